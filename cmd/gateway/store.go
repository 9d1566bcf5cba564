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

// store is what both databases offer.
type store interface {
	metering.Store
	pricer.Store
	// Promises says what the database's settings mean.
	Promises(ctx context.Context) ([]metering.Promise, error)
	Close() error
}

func openStore(ctx context.Context, cfg config.Store, log *slog.Logger) (store, error) {
	if cfg.Path == "" {
		return orNone(postgres.Open(ctx, cfg.URL.Reveal(), postgres.WithLog(log)))
	}
	return orNone(sqlite.Open(ctx, cfg.Path, sqlite.WithLog(log)))
}

// openReader opens a ledger that may be in use, and changes nothing.
func openReader(ctx context.Context, cfg config.Store) (store, error) {
	if cfg.Path == "" {
		return orNone(postgres.OpenReader(ctx, cfg.URL.Reveal()))
	}
	return orNone(sqlite.OpenReader(ctx, cfg.Path))
}

// orNone makes a failed opening the nil interface: one that holds a nil pointer
// would look like a store to the code that closes what was opened.
func orNone[S store](s S, err error) (store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// tellPromises logs what can be lost under the database's settings.
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
