package sqlite_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"sluice.example/sluice/internal/store/sqlite"
	"sluice.example/sluice/internal/store/storetest"
	"sluice.example/sluice/metering"
)

func open(t testing.TB, path string) *sqlite.DB {
	t.Helper()
	db, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Store {
		return open(t, filepath.Join(t.TempDir(), "ledger.db"))
	})
}

func BenchmarkStore(b *testing.B) {
	storetest.Bench(b, func(b *testing.B) metering.Store {
		return open(b, filepath.Join(b.TempDir(), "ledger.db"))
	})
}

// unguarded opens a ledger, and returns a function that changes it without the ledger's knowledge.
func unguarded(t *testing.T) (metering.Store, func(string) int64) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	store := open(t, path)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	exec := func(statement string) int64 {
		result, err := db.Exec(statement)
		if err != nil {
			t.Fatal(statement, err)
		}
		n, err := result.RowsAffected()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, trigger := range []string{"transfers_no_update", "transfers_no_delete", "budget_lines_no_update", "budget_lines_no_delete"} {
		exec("DROP TRIGGER " + trigger)
	}
	return store, exec
}

func TestDamage(t *testing.T) {
	t.Parallel()
	storetest.Damage(t, unguarded)
}

func TestOldDamage(t *testing.T) {
	t.Parallel()
	storetest.Old(t, unguarded)
}

// TestColumns asks the file which columns have numbers.
func TestColumns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	open(t, path)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`SELECT t.name || '.' || c.name FROM sqlite_schema t, pragma_table_info(t.name) c
		WHERE t.type = 'table' AND c.type = 'INTEGER' ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var columns []string
	for rows.Next() {
		var c string
		if err := rows.Scan(&c); err != nil {
			t.Fatal(err)
		}
		columns = append(columns, c)
	}
	storetest.Columns(t, columns)
}

func BenchmarkAudits(b *testing.B) {
	storetest.BenchAudits(b, func(b *testing.B) (metering.Store, func() int64) {
		path := filepath.Join(b.TempDir(), "ledger.db")
		return open(b, path), func() int64 {
			if info, err := os.Stat(path + "-wal"); err == nil {
				return info.Size()
			}
			return 0
		}
	})
}
