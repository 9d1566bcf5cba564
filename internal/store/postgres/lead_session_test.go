package postgres

import (
	"context"
	"errors"
	"testing"
	"time"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/pricing"
)

// TestLeadIsALock checks that a session which is open but has lost the lock does not lead, and that the server was told
// to end silent sessions.
func TestLeadIsALock(t *testing.T) {
	ctx := context.Background()
	d, err := Open(ctx, pgtest.Start(t))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for name, ask := range map[string]func(*lead) error{
		"check":   func(l *lead) error { return l.Check(ctx) },
		"publish": func(l *lead) error { _, err := l.Publish(ctx, pricing.Epoch{Model: "a"}); return err },
	} {
		p, err := d.LeadPrices(ctx)
		if err != nil {
			t.Fatal(err)
		}
		l := p.(*lead)
		var idle string
		if err := l.conn.QueryRow(ctx, "SHOW idle_session_timeout").Scan(&idle); err != nil || idle != "20s" {
			t.Errorf("idle_session_timeout %s, %v", idle, err)
		}
		if err := ask(l); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := l.conn.Exec(ctx, "SELECT pg_advisory_unlock_all()"); err != nil {
			t.Fatal(err)
		}
		if err := ask(l); !errors.Is(err, pricer.ErrNotLeader) {
			t.Errorf("%s without the lock: %v", name, err)
		}
	}
	if all, err := d.Epochs(ctx, pricing.EpochQuery{Limit: 10}); err != nil || len(all) != 1 {
		t.Errorf("epochs: %+v, %v", all, err)
	}
}

// TestAwaitSilence checks that await asks a silent server and continues to wait, returns on a notification that comes
// meanwhile, and fails when the server ends the session.
func TestAwaitSilence(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	d, err := Open(ctx, pgtest.Start(t))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c, err := d.session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(c)
	if _, err := c.Exec(ctx, "LISTEN x"); err != nil {
		t.Fatal(err)
	}
	heard := make(chan error, 1)
	go func() { heard <- await(ctx, c, 5*time.Millisecond) }()
	for _, sql := range []string{"SELECT pg_sleep(0.1)", "NOTIFY x"} { // lasts many beats
		if _, err := d.pool.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-heard; err != nil {
		t.Error(err)
	}
	go func() { heard <- await(ctx, c, 5*time.Millisecond) }()
	if _, err := d.pool.Exec(ctx, "SELECT pg_terminate_backend($1)", c.PgConn().PID()); err != nil {
		t.Fatal(err)
	}
	if err := <-heard; err == nil || ctx.Err() != nil {
		t.Errorf("awaits a server that is gone: %v", err)
	}
}
