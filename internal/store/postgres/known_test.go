package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// TestKnownOnOneConnection checks that what was learnt on a connection is forgotten on another connection and after any
// error. The server may have crashed meanwhile, lost commits that were not durable, and given their transaction ids,
// which are the versions, to other transactions.
func TestKnownOnOneConnection(t *testing.T) {
	ctx := context.Background()
	d, err := Open(ctx, pgtest.Start(t))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := metering.Open(ctx, metering.Config{Store: d})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(ctx)
	id := l402.NewTokenID()
	deposit := metering.Deposit{Hash: l402.NewPreimage().Hash(), Account: id, Amount: 100}
	if _, err := l.Deposit(ctx, deposit); err != nil {
		t.Fatal(err)
	}
	// pair makes a reservation and a release, as the gateway does.
	pair := func() {
		t.Helper()
		h, err := l.Reserve(ctx, metering.Reservation{Account: id, Amount: 10})
		if err == nil {
			err = h.Release(ctx, metering.OutcomeNotTaken)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	known := func() bool {
		d.recent.mu.Lock()
		defer d.recent.mu.Unlock()
		return d.recent.clock != 0 && d.recent.rows.Len() > 0
	}
	pair()
	if !known() {
		t.Fatal("nothing is known of what was written")
	}
	d.recent.fill(new(pgx.Conn), new(metering.Batch))
	if known() {
		t.Error("what was learned on one connection counts on another")
	}
	pair()
	if !known() {
		t.Error("nothing is known of what was written on the next connection")
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	conn, err := d.writers.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	d.recent.fill(conn.Conn(), new(metering.Batch))
	conn.Release()
	if err := d.Apply(over, new(metering.Batch), func() {}); err == nil || known() {
		t.Errorf("after a batch without an answer: error %v, rows are known: %t", err, known())
	}
}
