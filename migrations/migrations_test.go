package migrations

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// target is a database that remembers which steps ran.
type target struct {
	version, steps int
	ran            []string
	fail           map[string]error // the error of a step, by the step's SQL
}

func (t *target) Done(context.Context, int) (int, int, error) { return t.version, t.steps, nil }

func (t *target) Migrate(_ context.Context, s Step) error {
	if err := t.fail[s.SQL]; err != nil {
		return err
	}
	t.ran = append(t.ran, s.String())
	if t.steps = s.Number; s.Last() {
		t.version, t.steps = s.Version, 0
	}
	return nil
}

func TestRun(t *testing.T) {
	ctx := context.Background()
	var names []string
	for _, dialect := range []string{Postgres, SQLite} {
		all, err := Load(dialect)
		if err != nil || len(all) == 0 {
			t.Fatalf("%s: %d migrations, %v", dialect, len(all), err)
		}
		db := &target{}
		if err := Check(ctx, dialect, db); err == nil || !strings.Contains(err.Error(), "start the gateway") {
			t.Errorf("an old schema passed for reading: %v", err)
		}
		full := errors.New("disk full")
		broken := &target{fail: map[string]error{all[0].Steps[0].SQL: full}}
		if err := Run(ctx, dialect, broken); !errors.Is(err, full) || broken.version != 0 {
			t.Errorf("failure: %v", err)
		}
		var want []string
		for _, m := range all {
			names = append(names, m.Name)
			for _, s := range m.Steps {
				want = append(want, s.String())
			}
		}
		for range 2 {
			if err := Run(ctx, dialect, db); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(db.ran, want) || db.version != len(all) {
			t.Errorf("%s: ran %q", dialect, db.ran)
		}
		if err := Check(ctx, dialect, db); err != nil {
			t.Error(err)
		}
	}
	if half := len(names) / 2; !slices.Equal(names[:half], names[half:]) {
		t.Errorf("the stores differ: %q", names)
	}
	if _, err := Load("oracle"); err == nil {
		t.Error("there is a schema for an unknown store")
	}
}

// TestAhead checks that Run does not touch a database on which another version of the program ran migrations that this
// version does not know, in whole or in part.
func TestAhead(t *testing.T) {
	ctx := context.Background()
	all, err := Load(Postgres)
	if err != nil {
		t.Fatal(err)
	}
	for _, db := range []*target{
		{version: len(all) + 1},
		{version: len(all), steps: 1},
		{version: 0, steps: len(all[0].Steps)},
	} {
		if err := Run(ctx, Postgres, db); err == nil || len(db.ran) > 0 {
			t.Errorf("touched: %+v, %v", db, err)
		}
		if err := Check(ctx, Postgres, db); err == nil {
			t.Errorf("passed for reading: %+v", db)
		}
	}
}

// TestSteps checks that a file is cut at its lines "-- step", and that a migration continues after the last step that
// ran.
func TestSteps(t *testing.T) {
	ctx := context.Background()
	const file = "-- Words.\nA;\n-- step\nB; -- step of B\n  -- step\r\n-- stepping\nC;"
	m := Migration{Version: 1, Name: "0001_x", SQL: file, Steps: split(1, "0001_x", file)}
	var sql, names []string
	for i, s := range m.Steps {
		sql, names = append(sql, s.SQL), append(names, s.String())
		if s.Version != 1 || s.Number != i+1 || s.Of != 3 || s.Last() != (i == 2) {
			t.Errorf("step %d: %+v", i+1, s)
		}
	}
	if !slices.Equal(sql, []string{"-- Words.\nA;\n", "B; -- step of B\n", "-- stepping\nC;"}) {
		t.Fatalf("steps %q", sql)
	}
	next := Migration{Version: 2, Name: "0002_y", Steps: split(2, "0002_y", "D;")}
	died := errors.New("died")
	db := &target{fail: map[string]error{sql[2]: died}}
	if err := run(ctx, []Migration{m, next}, db); !errors.Is(err, died) || !strings.Contains(err.Error(), names[2]) {
		t.Errorf("got %v", err)
	}
	db.fail = nil
	if err := run(ctx, []Migration{m, next}, db); err != nil {
		t.Error(err)
	}
	if !slices.Equal(db.ran, append(names, next.Steps[0].String())) {
		t.Errorf("ran %q", db.ran)
	}
}
