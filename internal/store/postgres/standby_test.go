package postgres_test

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/internal/store/postgres"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// pair is a primary and its standby, with one database on both.
type pair struct {
	*testing.T
	primary, standby *pgtest.Server
	old, new, both   string // URLs
}

func newPair(t *testing.T) *pair {
	p := &pair{T: t, primary: pgtest.New(t, true)}
	p.old = p.primary.URL("postgres")
	p.standby = p.primary.Standby(t, "second")
	p.new = p.standby.URL("postgres")
	u, err := url.Parse(p.old)
	if err != nil {
		t.Fatal(err)
	}
	n, err := url.Parse(p.new)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("host", query.Get("host")+","+n.Query().Get("host"))
	query.Set("port", "5432,5432")
	u.RawQuery = query.Encode()
	p.both = u.String()
	return p
}

// streams waits until the standby is in the given state.
func (p *pair) streams(state string) {
	p.Helper()
	c := admin(p.T, p.old)
	eventually(p.T, "a standby that is "+state, func() bool {
		var n int
		err := c.QueryRow(context.Background(), `SELECT count(*) FROM pg_stat_replication
			WHERE state = 'streaming' AND sync_state = $1`, state).Scan(&n)
		return err == nil && n == 1
	})
}

func (p *pair) set(c *pgx.Conn, sql string) {
	p.Helper()
	for _, s := range []string{sql, "SELECT pg_reload_conf()"} {
		if _, err := c.Exec(context.Background(), s); err != nil {
			p.Fatal(s, err)
		}
	}
}

// TestSynchronousStandby checks that with a synchronous standby a failover loses nothing that was acknowledged,
// whenever the primary dies.
func TestSynchronousStandby(t *testing.T) {
	ctx := context.Background()
	p := newPair(t)
	p.streams("async")
	p.set(admin(t, p.old), "ALTER SYSTEM SET synchronous_standby_names = 'second'")
	p.streams("sync")
	db := open(t, p.both)
	l := ledger(t, db, metering.Config{Patience: 200 * time.Millisecond})
	id := account(t, l, 1e6)
	settled := map[metering.HoldID]bool{}
	for range 50 {
		h, err := reserve(ctx, l, id, 100)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Settle(ctx, calls(7)); err != nil {
			t.Fatal(err)
		}
		settled[h.ID()] = true
	}
	p.primary.Kill()
	p.standby.Promote(t)
	eventually(t, "the new primary", func() bool { return db.Ping(ctx) == nil })
	if db.Generation() != 2 {
		t.Errorf("generation %d", db.Generation())
	}
	for hold := range settled {
		c, found, err := db.Charge(ctx, hold)
		if err != nil || !found || c.Charged != 7 {
			t.Fatalf("settlement %s was answered and lost: %v, %v", hold, found, err)
		}
	}
	if b, err := l.Balance(ctx, id, nil); err != nil || b.Charged != 50*7 || b.Available+b.Held != 1e6-50*7 {
		t.Errorf("balance: %+v, %v", b, err)
	}
}

// TestAsynchronousStandby checks that the generation grows in a failover to an asynchronous standby, which may lose the
// last acknowledged operations.
func TestAsynchronousStandby(t *testing.T) {
	ctx := context.Background()
	p := newPair(t)
	p.streams("async")
	db := open(t, p.both)
	l := ledger(t, db, metering.Config{Patience: 200 * time.Millisecond})
	early := account(t, l, 1000)
	eventually(t, "a copy", func() bool { return known(ctx, p.new, early) })
	p.standby.Kill()
	late := account(t, l, 1000)
	p.primary.Kill()
	if err := p.standby.Start(); err != nil {
		t.Fatal(err)
	}
	p.standby.Promote(t)
	eventually(t, "the new primary", func() bool { return db.Ping(ctx) == nil })
	if db.Generation() != 2 {
		t.Errorf("generation %d", db.Generation())
	}
	if _, _, found, err := db.Balance(ctx, early, nil); err != nil || !found {
		t.Errorf("the first account: %v, %v", found, err)
	}
	if _, _, found, err := db.Balance(ctx, late, nil); err != nil || found {
		t.Errorf("the last account: %v, %v", found, err)
	}
}

// known asks a standby whether it has an account.
func known(ctx context.Context, url string, id l402.TokenID) bool {
	db, err := postgres.OpenReader(ctx, url)
	if err != nil {
		return false
	}
	defer db.Close()
	_, _, found, err := db.Balance(ctx, id, nil)
	return err == nil && found
}

// TestSynchronousStandbyAway checks that, while the synchronous standby is away, no operation is acknowledged that
// would be lost without the standby.
func TestSynchronousStandbyAway(t *testing.T) {
	ctx := context.Background()
	p := newPair(t)
	p.streams("async")
	c := admin(t, p.old)
	p.set(c, "ALTER SYSTEM SET synchronous_standby_names = 'second'")
	p.streams("sync")
	l := ledger(t, open(t, p.both), metering.Config{Patience: 100 * time.Millisecond})
	id := account(t, l, 1000)
	p.standby.Kill()
	waiting, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := l.Deposit(waiting, metering.Deposit{Hash: l402.NewPreimage().Hash(), Account: id, Amount: 1000})
	if !errors.Is(err, metering.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a payment was answered without the standby: %v", err)
	}
	if err := p.standby.Start(); err != nil {
		t.Fatal(err)
	}
	p.streams("sync")
	eventually(t, "a payment", func() bool {
		_, err := l.Deposit(ctx, metering.Deposit{Hash: l402.NewPreimage().Hash(), Account: id, Amount: 1000})
		return err == nil
	})
}
