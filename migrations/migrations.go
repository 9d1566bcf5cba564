// Package migrations holds the schema of the ledger for each store as numbered
// SQL files, and the order in which they run.
//
// A file is never changed once released: a new one follows. Each runs in a
// transaction of its own together with the note that it ran, so a process that
// dies in between leaves nothing half done.
package migrations

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// The stores that there is a schema for.
const (
	Postgres = "postgres"
	SQLite   = "sqlite"
)

// Migration is one step of a schema.
type Migration struct {
	Version int // from 1, without gaps
	Name    string
	SQL     string
}

// Load returns the steps for a store in order.
func Load(dialect string) ([]Migration, error) {
	entries, err := fs.ReadDir(files, dialect)
	if err != nil {
		return nil, fmt.Errorf("migrations for %s: %w", dialect, err)
	}
	var all []Migration
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".sql")
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("migration %s: its name does not begin with a number", e.Name())
		}
		text, err := fs.ReadFile(files, path.Join(dialect, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", e.Name(), err)
		}
		all = append(all, Migration{Version: version, Name: name, SQL: string(text)})
	}
	slices.SortFunc(all, func(a, b Migration) int { return a.Version - b.Version })
	for i, m := range all {
		if m.Version != i+1 {
			return nil, fmt.Errorf("migration %s: expected number %d", m.Name, i+1)
		}
	}
	return all, nil
}

// Target is a database to bring up to date. The caller keeps other processes
// from doing the same at the same time.
type Target interface {
	// Version is the number of the last migration that ran; 0: none.
	Version(ctx context.Context) (int, error)
	// Migrate runs one step and records it, in one transaction.
	Migrate(ctx context.Context, m Migration) error
}

// Run brings a database up to date. It refuses one that a newer version of the
// program has changed.
func Run(ctx context.Context, dialect string, t Target) error {
	all, err := Load(dialect)
	if err != nil {
		return err
	}
	if err := check(ctx, all, t); err != nil {
		return err
	}
	at, err := t.Version(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	for _, m := range all[at:] {
		if err := t.Migrate(ctx, m); err != nil {
			return fmt.Errorf("migration %s: %w", m.Name, err)
		}
	}
	return nil
}

// Check fails unless a database is exactly up to date: for readers, which
// change nothing.
func Check(ctx context.Context, dialect string, t Target) error {
	all, err := Load(dialect)
	if err != nil {
		return err
	}
	if err := check(ctx, all, t); err != nil {
		return err
	}
	at, err := t.Version(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if at < len(all) {
		return fmt.Errorf("the database has schema version %d, this program needs %d: start the gateway once to migrate it", at, len(all))
	}
	return nil
}

func check(ctx context.Context, all []Migration, t Target) error {
	at, err := t.Version(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if at > len(all) {
		return fmt.Errorf("the database has schema version %d, this program knows %d: use a newer version of it", at, len(all))
	}
	return nil
}
