package migrations_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"sluice/migrations"
)

// target is a database that remembers what ran.
type target struct {
	version int
	ran     []string
	fail    error
}

func (t *target) Version(context.Context) (int, error) { return t.version, nil }

func (t *target) Migrate(_ context.Context, m migrations.Migration) error {
	if t.fail != nil {
		return t.fail
	}
	t.version = m.Version
	t.ran = append(t.ran, m.Name)
	return nil
}

func TestRun(t *testing.T) {
	ctx := context.Background()
	var names []string
	for _, dialect := range []string{migrations.Postgres, migrations.SQLite} {
		all, err := migrations.Load(dialect)
		if err != nil || len(all) == 0 {
			t.Fatalf("%s: %d migrations, %v", dialect, len(all), err)
		}
		db := &target{}
		if err := migrations.Check(ctx, dialect, db); err == nil || !strings.Contains(err.Error(), "start the gateway") {
			t.Errorf("an old schema passed for reading: %v", err)
		}
		broken := &target{fail: errors.New("disk full")}
		if err := migrations.Run(ctx, dialect, broken); !errors.Is(err, broken.fail) || broken.version != 0 {
			t.Errorf("failure: %v", err)
		}
		for range 2 {
			if err := migrations.Run(ctx, dialect, db); err != nil {
				t.Fatal(err)
			}
		}
		if len(db.ran) != len(all) || db.version != len(all) {
			t.Errorf("%s: ran %q", dialect, db.ran)
		}
		if err := migrations.Check(ctx, dialect, db); err != nil {
			t.Error(err)
		}
		newer := &target{version: len(all) + 1}
		if err := migrations.Run(ctx, dialect, newer); err == nil || len(newer.ran) > 0 {
			t.Errorf("a newer schema was touched: %v", err)
		}
		names = append(names, strings.Join(db.ran, " "))
	}
	if names[0] != names[1] {
		t.Errorf("the stores differ: %q and %q", names[0], names[1])
	}
	if _, err := migrations.Load("oracle"); err == nil {
		t.Error("there is a schema for an unknown store")
	}
}
