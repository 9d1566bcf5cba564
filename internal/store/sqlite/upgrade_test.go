package sqlite

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	lib "modernc.org/sqlite/lib"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/migrations"
)

// TestUpgrade checks that a ledger of the first schema, with an open hold and a deposit, works under the present
// schema.
func TestUpgrade(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "ledger.db")
	all, err := migrations.Load(migrations.SQLite)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openConn(path, lib.SQLITE_OPEN_READWRITE|lib.SQLITE_OPEN_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range all[0].Steps {
		if err := (schema{c: c}).Migrate(ctx, step); err != nil {
			t.Fatal(err)
		}
	}
	id, hash := `x'`+strings.Repeat("01", 32)+`'`, `x'`+strings.Repeat("02", 32)+`'`
	for _, sql := range []string{
		`INSERT INTO accounts (id, available, held, deposited) VALUES (` + id + `, 600, 400, 1000)`,
		`INSERT INTO deposits (hash, account, credited, presented) VALUES (` + hash + `, ` + id + `, 1000, 1)`,
		`INSERT INTO transfers (kind, debit, credit, amount, ref, at) VALUES (1, CAST('lightning' AS BLOB), ` + id + `, 1000, ` + hash + `, 1)`,
		// The rate is 150,000 msat per million input tokens, and 1000 input tokens were used so far.
		`INSERT INTO holds VALUES (x'11111111111141118111111111111111', ` + id + `, 400, 1,
			x'01000009696e666572656e6365016d03d00f0001f0930900c0cf24', x'01e807', 'running')`,
	} {
		if err := c.script(sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	c.close()

	d, err := Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	passed, swept := time.Duration(0), 0
	l, err := metering.Open(ctx, metering.Config{Store: d, SweepEvery: time.Hour,
		Now: func() time.Time { return time.Now().Add(passed) }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(ctx)
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
	if r, err := l.Audit(ctx); err != nil || !r.OK() || r.Charged != 150 {
		t.Errorf("report: %+v, %v", r, err)
	}
	// Programs that know no additive migrations look only at user_version.
	want := 0
	for _, m := range all {
		if !m.Steps[0].Additive {
			want = m.Version
		}
	}
	if got, err := (schema{c: d.w.conn}).number("PRAGMA user_version"); err != nil || got != want {
		t.Errorf("an older program sees version %d, %v; want %d", got, err, want)
	}
}
