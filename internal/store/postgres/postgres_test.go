package postgres_test

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/internal/store/postgres"
	"sluice.example/sluice/internal/store/storetest"
	"sluice.example/sluice/metering"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func open(t testing.TB, url string) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestStore(t *testing.T) {
	t.Parallel() // waits as often as it works
	storetest.Run(t, func(t *testing.T) storetest.Store { return open(t, pgtest.Start(t)) })
}

func BenchmarkStore(b *testing.B) {
	server := pgtest.New(b, true)
	storetest.Bench(b, func(b *testing.B) metering.Store {
		return open(b, server.Fresh(b))
	})
}

// unguarded opens a ledger, and returns a function that changes it without the ledger's knowledge.
func unguarded(t *testing.T) (metering.Store, func(string) int64) {
	url := pgtest.Start(t)
	store := open(t, url)
	c := admin(t, url)
	exec := func(statement string) int64 {
		tag, err := c.Exec(context.Background(), statement)
		if err != nil {
			t.Fatal(statement, err)
		}
		return tag.RowsAffected()
	}
	exec("DROP TRIGGER transfers_append_only ON transfers")
	exec("DROP TRIGGER budget_lines_append_only ON budget_lines")
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

// TestColumns asks the server which columns have numbers.
func TestColumns(t *testing.T) {
	url := pgtest.Start(t)
	open(t, url)
	rows, err := admin(t, url).Query(context.Background(), `SELECT table_name || '.' || column_name FROM information_schema.columns
		WHERE table_schema = 'public' AND data_type IN ('bigint', 'integer', 'smallint') ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	storetest.Columns(t, columns)
}

func BenchmarkAudits(b *testing.B) {
	server := pgtest.New(b, true)
	storetest.BenchAudits(b, func(b *testing.B) (metering.Store, func() int64) { return open(b, server.Fresh(b)), nil })
}
