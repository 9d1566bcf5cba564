package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/internal/store/postgres"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/migrations"
)

// TestUpgrade checks that a ledger of the first schema, with an open hold and a deposit, works under the present
// schema.
func TestUpgrade(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	c := admin(t, url)
	all, err := migrations.Load(migrations.Postgres)
	if err != nil {
		t.Fatal(err)
	}
	id, hash := strings.Repeat("01", 32), strings.Repeat("02", 32)
	for _, sql := range []string{
		`CREATE TABLE schema_versions (version integer PRIMARY KEY, name text NOT NULL, applied timestamptz NOT NULL DEFAULT now())`,
		all[0].SQL,
		`INSERT INTO schema_versions (version, name) VALUES (1, '` + all[0].Name + `')`,
		`INSERT INTO accounts (id, available, held, deposited) VALUES ('\x` + id + `', 600, 400, 1000)`,
		`INSERT INTO deposits (hash, account, credited, presented) VALUES ('\x` + hash + `', '\x` + id + `', 1000, 1)`,
		`INSERT INTO transfers (kind, debit, credit, amount, ref, at) VALUES (1, 'lightning', '\x` + id + `', 1000, '\x` + hash + `', 1)`,
		// The rate is 150,000 msat per million input tokens, and 1000 input tokens were used so far.
		`INSERT INTO holds VALUES ('11111111-1111-4111-8111-111111111111', '\x` + id + `', 400, 1,
			'\x01000009696e666572656e6365016d03d00f0001f0930900c0cf24', '\x01e807', 'running')`,
	} {
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	reading, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := postgres.OpenReader(reading, url); err == nil || !strings.Contains(err.Error(), "schema version 1") {
		t.Errorf("a reader of the schema before: %v", err)
	}
	passed, swept := time.Duration(0), 0
	l := ledger(t, open(t, url), metering.Config{SweepEvery: time.Hour, Now: func() time.Time { return time.Now().Add(passed) }})
	for ; passed < 20*time.Second; passed += 4 * time.Second {
		n, err := l.Sweep(ctx)
		if swept += n; err != nil {
			t.Fatal(err)
		}
	}
	if swept != 1 {
		t.Errorf("swept %d holds, want 1", swept)
	}
	var account l402.TokenID
	copy(account[:], strings.Repeat("\x01", 32))
	if b, err := l.Balance(ctx, account, nil); err != nil || b.Available != 850 || b.Held != 0 || b.Charged != 150 {
		t.Errorf("balance: %+v, %v", b, err)
	}
	if r := audit(t, l); r.Charged != 150 {
		t.Errorf("report: %+v", r)
	}
	// Programs that know no additive migrations look only at these two tables.
	want, version, steps := 0, 0, 0
	for _, m := range all {
		if !m.Steps[0].Additive {
			want = m.Version
		}
	}
	err = c.QueryRow(ctx, `SELECT max(version), (SELECT count(*) FROM schema_steps WHERE version > $1) FROM schema_versions`, want).
		Scan(&version, &steps)
	if err != nil || version != want || steps != 0 {
		t.Errorf("an older program sees version %d and %d steps of the next, %v; want %d and none", version, steps, err, want)
	}
}
