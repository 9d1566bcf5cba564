package postgres_test

import (
	"context"
	"testing"

	"sluice/internal/store/pgtest"
	"sluice/internal/store/postgres"
	"sluice/internal/store/storetest"
	"sluice/metering"
)

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
	pgtest.Start(t) // one server for all of them
	storetest.Run(t, func(t *testing.T) metering.Store { return open(t, pgtest.Start(t)) })
}

func BenchmarkStore(b *testing.B) {
	server := pgtest.New(b, true)
	storetest.Bench(b, func(b *testing.B) metering.Store {
		return open(b, server.Fresh(b))
	})
}
