package main

import (
	"context"
	"log/slog"

	"sluice.example/sluice/internal/config"
	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/internal/store/postgres"
	"sluice.example/sluice/internal/store/sqlite"
	"sluice.example/sluice/metering"
)

// store is the interface that both databases implement.
type store interface {
	metering.Store
	pricer.Store
	// Promises returns what the database's settings guarantee.
	Promises(ctx context.Context) ([]metering.Promise, error)
	Close() error
}

func openStore(ctx context.Context, cfg config.Store, log *slog.Logger) (store, error) {
	if cfg.Path == "" {
		return orNone(postgres.Open(ctx, cfg.URL.Reveal(), postgres.WithLog(log)))
	}
	return orNone(sqlite.Open(ctx, cfg.Path, sqlite.WithLog(log)))
}

// openReader opens a ledger for reading only. A gateway may be using the ledger.
func openReader(ctx context.Context, cfg config.Store) (store, error) {
	if cfg.Path == "" {
		return orNone(postgres.OpenReader(ctx, cfg.URL.Reveal()))
	}
	return orNone(sqlite.OpenReader(ctx, cfg.Path))
}

// orNone returns a nil interface when the store could not be opened. An interface that holds a nil
// pointer is not nil, so the code that closes an opened store would call a method on the nil
// pointer.
func orNone[S store](s S, err error) (store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// tellPromises logs which data can be lost under the database's settings.
func tellPromises(ctx context.Context, s store, log *slog.Logger) {
	list, err := s.Promises(ctx)
	if err != nil {
		log.Warn("cannot tell what the database keeps", "error", err)
		return
	}
	for _, p := range list {
		level := slog.LevelInfo
		if p.Broken {
			level = slog.LevelWarn
		}
		log.Log(ctx, level, "ledger: "+p.Means, "setting", p.Setting)
	}
}
