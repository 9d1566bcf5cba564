package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"

	"sluice/internal/store/sqlite"
	"sluice/internal/store/storetest"
	"sluice/metering"
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
	storetest.Run(t, func(t *testing.T) metering.Store {
		return open(t, filepath.Join(t.TempDir(), "ledger.db"))
	})
}

func BenchmarkStore(b *testing.B) {
	storetest.Bench(b, func(b *testing.B) metering.Store {
		return open(b, filepath.Join(b.TempDir(), "ledger.db"))
	})
}
