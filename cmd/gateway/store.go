package main

import (
	"context"

	"sluice/internal/config"
	"sluice/internal/store/postgres"
	"sluice/internal/store/sqlite"
	"sluice/metering"
)

// store is what both databases offer.
type store interface {
	metering.Store
	Close() error
}

func openStore(ctx context.Context, cfg config.Store) (store, error) {
	if cfg.Path == "" {
		return postgres.Open(ctx, cfg.URL.Reveal())
	}
	return sqlite.Open(ctx, cfg.Path)
}

// openReader opens a ledger that may be in use, and changes nothing.
func openReader(ctx context.Context, cfg config.Store) (store, error) {
	if cfg.Path == "" {
		return postgres.OpenReader(ctx, cfg.URL.Reveal())
	}
	return sqlite.OpenReader(ctx, cfg.Path)
}
