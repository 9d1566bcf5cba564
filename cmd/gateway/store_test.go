package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"sluice.example/sluice/internal/config"
	"sluice.example/sluice/metering"
)

// promising is a store whose promises the test sets.
type promising struct {
	store
	list []metering.Promise
	err  error
}

func (p promising) Promises(context.Context) ([]metering.Promise, error) { return p.list, p.err }

// TestPromisesAreLogged checks that a setting which breaks a promise is a warning, that another
// setting is an ordinary line, and that the gateway serves even when it cannot read the settings.
func TestPromisesAreLogged(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	tellPromises(context.Background(), promising{list: []metering.Promise{
		{Setting: "fsync=off", Means: "All is lost.", Broken: true}, {Setting: "wal_level=replica", Means: "All is well."},
	}}, log)
	tellPromises(context.Background(), promising{err: errors.New("no rights")}, log)
	for i, want := range []string{`level=WARN msg="ledger: All is lost." setting="fsync=off"`,
		`level=INFO msg="ledger: All is well." setting="wal_level=replica"`, `level=WARN`} {
		lines := strings.Split(out.String(), "\n")
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %d is %q", i, lines[i])
		}
	}
	out.Reset()
	s, err := openStore(context.Background(), config.Store{Path: t.TempDir() + "/ledger.db"}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tellPromises(context.Background(), s, log)
	if !strings.Contains(out.String(), "journal_mode=wal") {
		t.Errorf("log: %s", out.String())
	}
}
