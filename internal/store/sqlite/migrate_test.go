package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	lib "modernc.org/sqlite/lib"

	"sluice.example/sluice/migrations"
)

func newConn(t *testing.T, path string) *conn {
	t.Helper()
	c, err := openConn(path, lib.SQLITE_OPEN_READWRITE|lib.SQLITE_OPEN_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	if err := c.script("PRAGMA journal_mode=WAL; PRAGMA busy_timeout=10"); err != nil {
		t.Fatal(err)
	}
	return c
}

func step(number, of int, sql string) migrations.Step {
	return migrations.Step{Version: 1, Name: "0001_x", Number: number, Of: of, SQL: sql}
}

// TestMigrationGoesOn checks that a migration which was interrupted between its steps continues after the last step
// that ran, and counts as done only when all steps have run.
func TestMigrationGoesOn(t *testing.T) {
	ctx := context.Background()
	s := schema{c: newConn(t, filepath.Join(t.TempDir(), "ledger.db"))}
	if err := s.Migrate(ctx, step(1, 3, "CREATE TABLE one (x)")); err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(ctx, step(2, 3, "CREATE TABLE two (x); CREATE TABLE one (x)")); err == nil {
		t.Error("a step that fails ran")
	}
	if v, n, err := s.Done(ctx, 99); err != nil || v != 0 || n != 1 {
		t.Errorf("done %d, %d, %v", v, n, err)
	}
	for i, sql := range []string{"CREATE TABLE two (x)", "CREATE TABLE three (x)"} {
		if err := s.Migrate(ctx, step(i+2, 3, sql)); err != nil {
			t.Fatal(err)
		}
	}
	if v, n, err := s.Done(ctx, 99); err != nil || v != 1 || n != 0 {
		t.Errorf("done %d, %d, %v", v, n, err)
	}
}

// waits is a log that signals each write to it.
type waits struct {
	bytes.Buffer
	told chan struct{}
}

func (w *waits) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	w.told <- struct{}{}
	return n, err
}

// TestMigrationWaits checks that a step waits for another program that has the file locked, logs that it waits, and
// ends the wait with its context.
func TestMigrationWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	other := newConn(t, path)
	log := &waits{told: make(chan struct{}, 1)}
	s := schema{newConn(t, path), slog.New(slog.NewTextHandler(log, nil))}
	for _, ends := range []bool{false, true} {
		if err := other.script("BEGIN IMMEDIATE"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Migrate(ctx, step(1, 1, "CREATE TABLE one (x)")) }()
		<-log.told
		if !ends {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
		if err := other.script("ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		if ends {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		cancel()
	}
	if !strings.Contains(log.String(), "0001_x, step 1 of 1") {
		t.Errorf("log: %s", log)
	}
}

// TestMigrationsAreDocumented checks that docs/migrations.md has a row for each step.
func TestMigrationsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "migrations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(doc), "\n## SQLite\n")
	all, err := migrations.Load(migrations.SQLite)
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	for _, m := range all {
		for _, s := range m.Steps {
			steps++
			if !strings.Contains(part, "\n| "+s.String()+" | ") {
				t.Errorf("no row for %s", s)
			}
		}
	}
	if rows := strings.Count(part, "\n| 0"); rows != steps {
		t.Errorf("%d rows for %d steps", rows, steps)
	}
}

// TestAdditiveAhead checks what a program does with migrations of a newer one: it starts beside an additive one, whole or
// in part, and refuses the schema once another one has begun after it.
func TestAdditiveAhead(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "ledger.db")
	again := func() error {
		d, err := Open(ctx, path)
		if err == nil {
			err = d.Close()
		}
		return err
	}
	if err := again(); err != nil {
		t.Fatal(err)
	}
	all, err := migrations.Load(migrations.SQLite)
	if err != nil {
		t.Fatal(err)
	}
	run := func(step migrations.Step) {
		t.Helper()
		if err := (schema{c: newConn(t, path)}).Migrate(ctx, step); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n <= 2; n++ {
		run(migrations.Step{Version: len(all) + 1, Name: "added", Number: n, Of: 2, Additive: true, SQL: fmt.Sprintf("CREATE TABLE added%d (x)", n)})
		if err := again(); err != nil {
			t.Fatalf("step %d of an additive migration keeps this version from starting: %v", n, err)
		}
	}
	run(migrations.Step{Version: len(all) + 2, Name: "after", Number: 1, Of: 2, SQL: "CREATE TABLE after (x)"})
	if err := again(); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("it opened a schema that is being changed: %v", err)
	}
}
