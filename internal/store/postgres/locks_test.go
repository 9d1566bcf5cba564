package postgres

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/migrations"
)

// strength lists the modes of table locks from the weakest to the strongest.
var strength = []string{"AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock",
	"ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"}

// TestMigrationLocks checks that docs/migrations.md lists the tables that each step makes and the locks that it takes,
// and that no step takes two locks that stop writers.
func TestMigrationLocks(t *testing.T) {
	ctx := context.Background()
	c, err := pgx.Connect(ctx, pgtest.Start(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	rows := documented(t, "## PostgreSQL")
	all, err := migrations.Load(migrations.Postgres)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		for _, step := range m.Steps {
			made, locks := observe(t, c, step.SQL)
			strong := 0
			for _, mode := range locks {
				if slices.Index(strength, mode) >= slices.Index(strength, "ShareLock") {
					strong++
				}
			}
			if strong > 1 {
				t.Errorf("%s takes %d locks that stop writers: %v", step, strong, locks)
			}
			row, found := rows[step.String()]
			if !found || len(row) != 4 {
				t.Errorf("docs/migrations.md has no row of five cells for %q", step)
				continue
			}
			delete(rows, step.String())
			if got := orNone(made); got != row[0] {
				t.Errorf("%s makes %s, the document says %s", step, got, row[0])
			}
			var told []string
			for _, table := range slices.Sorted(maps.Keys(locks)) {
				told = append(told, table+": "+locks[table])
			}
			if got := orNone(told); got != row[1] {
				t.Errorf("%s locks %s, the document says %s", step, got, row[1])
			}
		}
	}
	for step := range rows {
		t.Errorf("docs/migrations.md tells of %s, which is no step", step)
	}
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// documented reads a table of docs/migrations.md. The result has the further cells of each row, by the row's first
// cell.
func documented(t *testing.T, heading string) map[string][]string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "migrations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, part, found := strings.Cut(string(doc), "\n"+heading+"\n")
	if !found {
		t.Fatalf("docs/migrations.md has no %q", heading)
	}
	part, _, _ = strings.Cut(part, "\n## ")
	rows := make(map[string][]string)
	for line := range strings.SplitSeq(part, "\n") {
		if !strings.HasPrefix(line, "| 0") {
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		rows[cells[0]] = cells[1:]
	}
	return rows
}

// observe runs a step. It returns the tables that the step made, and the strongest lock on each table that existed
// before.
func observe(t *testing.T, c *pgx.Conn, sql string) (made []string, locks map[string]string) {
	t.Helper()
	ctx := context.Background()
	tables := func() []string {
		rows, err := c.Query(ctx, `SELECT relname::text FROM pg_class
			WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace ORDER BY 1`)
		if err != nil {
			t.Fatal(err)
		}
		list, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	before := tables()
	tx, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	rows, err := tx.Query(ctx, `SELECT c.relname::text, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
		WHERE l.pid = pg_backend_pid() AND c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace`)
	if err != nil {
		t.Fatal(err)
	}
	locks = make(map[string]string)
	var table, mode string
	_, err = pgx.ForEachRow(rows, []any{&table, &mode}, func() error {
		if slices.Contains(before, table) && slices.Index(strength, mode) > slices.Index(strength, locks[table]) {
			locks[table] = mode
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	for _, table := range tables() {
		if !slices.Contains(before, table) {
			made = append(made, table)
		}
	}
	return made, locks
}
