// Package migrations has the schema of the ledger for each store as numbered SQL files, and runs them in order.
//
// A released file is never changed: a new file changes the schema further. A line "-- step" ends a step and begins the
// next step. Each step runs in a transaction of its own, which also records that the step ran. So a process that dies
// in between leaves no step half done, and no step runs twice. A step takes at most one strong lock, because it would
// keep the first lock while it waits for the second. docs/migrations.md lists the locks.
//
// A file whose first line is "-- additive" only adds what older programs can do without: nullable columns, functions,
// tables. Run records it in a table that older programs do not read. So older programs start on the new schema, beside
// newer programs or after an operator went back to the version before.
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

// The stores that have a schema here.
const (
	Postgres = "postgres"
	SQLite   = "sqlite"
)

// Migration is one numbered change of a schema.
type Migration struct {
	Version int // from 1, without gaps
	Name    string
	SQL     string // the whole file
	Steps   []Step // at least one
}

// additive is the first line of a file that older programs need not know.
const additive = "-- additive"

// Step is a part of a migration that runs in one transaction.
type Step struct {
	Version int
	Name    string // name of the migration
	Number  int    // from 1, without gaps
	Of      int    // number of steps of the migration
	SQL     string
	// Additive means that the step is recorded in a table of its own, so that a program which does not know the
	// migration still starts.
	Additive bool
}

// Last reports whether this step is the last of its migration.
func (s Step) Last() bool { return s.Number == s.Of }

func (s Step) String() string { return fmt.Sprintf("%s, step %d of %d", s.Name, s.Number, s.Of) }

// Load returns all migrations for a store in order. dialect is Postgres or SQLite.
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
		all = append(all, Migration{Version: version, Name: name, SQL: string(text),
			Steps: split(version, name, string(text))})
	}
	slices.SortFunc(all, func(a, b Migration) int { return a.Version - b.Version })
	for i, m := range all {
		if m.Version != i+1 {
			return nil, fmt.Errorf("migration %s: expected number %d", m.Name, i+1)
		}
	}
	return all, nil
}

// split cuts a file at the lines "-- step".
func split(version int, name, text string) (steps []Step) {
	var parts []string
	var sql strings.Builder
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "-- step" {
			parts = append(parts, sql.String())
			sql.Reset()
			continue
		}
		sql.WriteString(line)
	}
	parts = append(parts, sql.String())
	first, _, _ := strings.Cut(text, "\n")
	for i, p := range parts {
		steps = append(steps, Step{Version: version, Name: name, Number: i + 1, Of: len(parts), SQL: p,
			Additive: strings.TrimSpace(first) == additive})
	}
	return steps
}

// Target is a database to bring up to date. The caller makes sure that only one process does so at a time.
type Target interface {
	// Done returns the number of the last migration whose steps have all run (0: none), and how many steps of the next
	// migration have run. known is how many migrations the program has. Additive migrations beyond known do not count.
	Done(ctx context.Context, known int) (version, steps int, err error)
	// Migrate runs one step and records it, in one transaction. It waits for the locks that the step needs until ctx
	// ends.
	Migrate(ctx context.Context, s Step) error
}

// Run brings a database up to date. It refuses a database that a newer version of the program has changed.
func Run(ctx context.Context, dialect string, t Target) error {
	all, err := Load(dialect)
	if err != nil {
		return err
	}
	return run(ctx, all, t)
}

func run(ctx context.Context, all []Migration, t Target) error {
	version, steps, err := done(ctx, all, t)
	if err != nil {
		return err
	}
	for _, m := range all[version:] {
		for _, s := range m.Steps[steps:] {
			if err := t.Migrate(ctx, s); err != nil {
				return fmt.Errorf("migration %s: %w", s, err)
			}
		}
		steps = 0
	}
	return nil
}

// Check fails unless a database is exactly up to date. Readers call it, because they change nothing.
func Check(ctx context.Context, dialect string, t Target) error {
	all, err := Load(dialect)
	if err != nil {
		return err
	}
	version, _, err := done(ctx, all, t)
	if err != nil {
		return err
	}
	if version < len(all) {
		return fmt.Errorf("the database has schema version %d, this program needs %d: "+
			"start the gateway once to migrate it", version, len(all))
	}
	return nil
}

// done returns how far the migrations of a database have run. It refuses a database that has run more than this program
// knows.
func done(ctx context.Context, all []Migration, t Target) (version, steps int, err error) {
	version, steps, err = t.Done(ctx, len(all))
	if err != nil {
		return 0, 0, fmt.Errorf("read schema version: %w", err)
	}
	switch {
	case version > len(all), version == len(all) && steps > 0:
		return 0, 0, fmt.Errorf("the database has schema version %d and %d steps of the next, this program knows %d: "+
			"use a newer version of it", version, steps, len(all))
	case version < len(all) && steps >= len(all[version].Steps):
		return 0, 0, fmt.Errorf("the database has %d steps of migration %s, this program knows %d: "+
			"use the version of it that began the migration", steps, all[version].Name, len(all[version].Steps))
	}
	return version, steps, nil
}
