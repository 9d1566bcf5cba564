package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/metering"
)

// TestCutoff checks that Cutoff does not pass a line before the line's transaction has ended, because a line with a
// smaller number may appear after a line with a larger number.
func TestCutoff(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	db := open(t, url)
	ledger := ledger(t, db, metering.Config{AuditEvery: -1})
	id, hash := `'\x`+strings.Repeat("01", 32)+`'`, `'\x`+strings.Repeat("02", 32)+`'`
	slow, fast := admin(t, url), admin(t, url)
	exec := func(c *pgx.Conn, sql string) {
		t.Helper()
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	exec(slow, "BEGIN")
	exec(slow, `INSERT INTO accounts (id, available, deposited) VALUES (`+id+`, 5, 5)`)
	exec(slow, `INSERT INTO deposits (hash, account, credited, presented) VALUES (`+hash+`, `+id+`, 5, 1)`)
	exec(slow, `INSERT INTO transfers (kind, debit, credit, amount, ref, at) VALUES (1, 'lightning', `+id+`, 5,
		`+hash+`, 1)`)
	// This line has the larger number but is visible first. Its transaction is the younger one: the transaction that
	// still runs began before it.
	other := strings.ReplaceAll(id, "01", "03")
	exec(fast, `INSERT INTO accounts (id, available, deposited) VALUES (`+other+`, 7, 7)`)
	exec(fast, `INSERT INTO deposits (hash, account, credited, presented) VALUES (`+other+`, `+other+`, 7, 1)`)
	exec(fast, `INSERT INTO transfers (kind, debit, credit, amount, ref, at) VALUES (1, 'lightning', `+other+`, 7,
		`+other+`, 1)`)

	brief, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if p, err := db.Cutoff(brief); err == nil {
		t.Errorf("a line of a transaction that runs was passed: %+v", p)
	}
	type result struct {
		report metering.Report
		err    error
	}
	done := make(chan result, 1)
	go func() {
		r, err := ledger.AuditNew(ctx)
		done <- result{r, err}
	}()
	time.Sleep(100 * time.Millisecond) // the audit has most likely begun, but either order must pass
	exec(slow, "COMMIT")
	if r := <-done; r.err != nil || !r.report.OK() || r.report.Lines != 2 {
		t.Errorf("audit: %+v, %v", r.report, r.err)
	}
	state, err := db.AuditState(ctx)
	if err != nil || state.Scanned.Transfers != 2 {
		t.Errorf("state: %+v, %v", state, err)
	}
}

// TestCutoffBelowRunning checks the case in which the smaller number belongs to the younger transaction. The snapshot's
// own upper bound does not cover that transaction.
func TestCutoffBelowRunning(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	db := open(t, url)
	older, younger := admin(t, url), admin(t, url)
	line := `INSERT INTO transfers (kind, debit, credit, amount, ref, at) VALUES (1, 'lightning', 'x', 5, 'x', 1)`
	for _, step := range []struct {
		c   *pgx.Conn
		sql string
	}{
		{older, "BEGIN"}, {older, "SELECT pg_current_xact_id()"}, {younger, "BEGIN"}, {younger,
			"SELECT pg_current_xact_id()"},
		{younger, line}, {older, line}, {older, "COMMIT"},
	} {
		if _, err := step.c.Exec(ctx, step.sql); err != nil {
			t.Fatal(step.sql, err)
		}
	}
	brief, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if p, err := db.Cutoff(brief); err == nil {
		t.Errorf("a line of a transaction that runs was passed: %+v", p)
	}
	if _, err := younger.Exec(ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if p, err := db.Cutoff(ctx); err != nil || p.Transfers != 2 {
		t.Errorf("cutoff: %+v, %v", p, err)
	}
}

// TestOneAudits checks that one of two gateways audits and both show what the audit found. When that gateway ends, the
// other audits.
func TestOneAudits(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	a, b := open(t, url), open(t, url)
	lead, err := a.LeadAudit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.LeadAudit(ctx); !errors.Is(err, metering.ErrNotLeader) {
		t.Errorf("a second lead: %v", err)
	}
	if prices, err := b.LeadPrices(ctx); err != nil {
		t.Errorf("the lead of prices is another: %v", err)
	} else if err := prices.Release(); err != nil {
		t.Error(err)
	}
	l := ledger(t, b, metering.Config{AuditEvery: time.Millisecond})
	time.Sleep(100 * time.Millisecond)
	if s := l.Stats(); s.Audits != 0 || s.AuditErrors != 0 {
		t.Errorf("not the leader: %+v", s)
	}
	if err := lead.Release(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); l.Stats().Audits < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody audits after the leader has gone")
		}
	}
}
