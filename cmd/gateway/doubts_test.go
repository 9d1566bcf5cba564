package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/internal/store/sqlite"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// told is a Lightning node that gives the answers which the test sets.
type told struct {
	live    bool
	since   time.Time
	settled map[l402.PaymentHash]l402.Msat
	asked   int
}

func (n *told) Watching() (bool, time.Time)             { return n.live, n.since }
func (n *told) NodeKey(context.Context) (string, error) { return "02aa", nil }

func (n *told) Settled(_ context.Context, h l402.PaymentHash) (lightning.SettledInvoice, bool, error) {
	n.asked++
	amount, ok := n.settled[h]
	return lightning.SettledInvoice{Node: "02aa", Hash: h, Amount: amount, Paid: amount, SettleIndex: 9, At: time.Now()}, ok, nil
}

// TestDoubts checks that the credit of a presented payment is taken back when the node does not
// know the payment, but only while the node's stream is live and the node must know the payment.
func TestDoubts(t *testing.T) {
	ctx := context.Background()
	// The store's clock is one hour slow, so that a payment presented now counts as one hour old.
	db, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "ledger.db"), sqlite.WithClock(func() time.Time { return time.Now().Add(-time.Hour) }))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ledger, err := metering.Open(ctx, metering.Config{Store: db})
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close(ctx)
	keys, err := l402.NewKeyring(ledger.ID(), []l402.MasterKey{{ID: "k1", State: l402.KeyMint, Secret: [32]byte{1}}})
	if err != nil {
		t.Fatal(err)
	}
	present := func() (l402.TokenID, l402.PaymentHash) {
		d := metering.Deposit{Hash: l402.NewPreimage().Hash(), Account: l402.NewTokenID(), Amount: 1000}
		if _, err := ledger.Deposit(ctx, d); err != nil {
			t.Fatal(err)
		}
		return d.Account, d.Hash
	}
	forged, _ := present()
	balance := func(id l402.TokenID, want l402.Msat) {
		t.Helper()
		if b, err := ledger.Balance(ctx, id, nil); err != nil || b.Available != want {
			t.Errorf("available %d, %v; want %d", b.Available, err, want)
		}
	}
	node := &told{}
	d := &doubts{ledger: ledger, node: node, grace: 10 * time.Minute, log: slog.New(slog.DiscardHandler),
		sink: &sink{Reader: ledger.Reader, ledger: ledger, log: slog.New(slog.DiscardHandler)}}
	d.sink.keys.Store(keys)
	look := func() {
		t.Helper()
		if err := d.look(ctx); err != nil {
			t.Error(err)
		}
	}
	look() // the stream is down
	balance(forged, 1000)
	node.live, node.since = true, time.Now() // a new history begins, so the payment may have reached a lost node
	look()
	balance(forged, 1000)
	if node.asked != 0 {
		t.Errorf("lnd was asked %d times about payments that it need not know", node.asked)
	}
	node.since = time.Time{}
	d.grace = 2 * time.Hour // the payment was presented one hour ago
	look()
	balance(forged, 1000)
	d.grace = 10 * time.Minute
	look()
	balance(forged, 0)
	if s := ledger.Stats(); s.Doubted != 1 {
		t.Errorf("%d payments doubted, want 1", s.Doubted)
	}

	// This payment was for another invoice of the node, which does not belong to the ledger.
	foreign, hash := present()
	node.settled = map[l402.PaymentHash]l402.Msat{hash: 1000}
	look()
	balance(foreign, 0)
	node.settled = nil

	// The ledger has stored that the history began anew, so this also holds after a restart of the
	// gateway.
	lost, _ := present()
	if err := ledger.AdvanceCursor(ctx, metering.CursorRow{Node: "02aa", Index: 3}, true); err != nil {
		t.Fatal(err)
	}
	look()
	balance(lost, 1000)
}
