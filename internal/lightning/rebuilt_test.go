package lightning_test

import (
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet/devnettest"
	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
)

// cursorAt returns the cursor of a ledger that has processed everything up to index.
func (w world) cursorAt(t *testing.T, index uint64) (c lightning.Cursor) {
	t.Helper()
	err := w.seller.SettledSince(t.Context(), time.Time{}, func(inv lightning.SettledInvoice) error {
		if inv.SettleIndex == index {
			c = lightning.Cursor{Index: index, Hash: inv.Hash}
		}
		return nil
	})
	if err != nil || c.Index == 0 {
		t.Fatalf("no invoice was settled as number %d: %v", index, err)
	}
	return c
}

// rebuilt loses the node's disk while nobody watches. Before anybody watches again, the rebuilt
// node has settled more invoices than the lost node.
func (w world) rebuilt(t *testing.T) {
	key := w.n.Gateway.PubKey
	sink := newLedger()
	old := w.cursorAt(t, 6)
	sink.cursors[key] = old
	lost := w.settle(t, 6_500)
	if _, ok, err := w.seller.Settled(t.Context(), lost); !ok || err != nil {
		t.Fatalf("settled: %v, %v", ok, err)
	}
	if err := w.n.RebuildGateway(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := w.seller.Settled(t.Context(), lost); ok || err != nil {
		t.Fatalf("settled at a lost node: %v, %v", ok, err)
	}
	var all []l402.PaymentHash
	for i := range 10 {
		all = append(all, w.settle(t, l402.Msat(7_000+i)))
	}
	before := time.Now()
	c := w.poor(t)
	stop := watch(t, c, sink)
	sink.has(t, all...)
	eventually(t, "Watch is live", live(c))
	if _, since := c.Watching(); since.Before(before) {
		t.Errorf("the stream is said to show all since %s, when that was paid to the lost node", since)
	}
	all = append(all, w.settle(t, 8_000))
	sink.has(t, all...)
	want := lightning.Cursor{Index: 11, Hash: all[10]}
	eventually(t, "the cursor is at the end", func() bool { return sink.cursor(key) == want })
	stop()

	// From there on the watcher resumes. The replay has the invoice at the cursor and the new
	// invoices.
	all = append(all, w.settle(t, 9_000))
	sink.reset()
	c = w.poor(t)
	watch(t, c, sink)
	sink.has(t, all[10:]...)
	if ok, since := c.Watching(); !ok || !since.IsZero() {
		t.Errorf("live %v since %s", ok, since)
	}
	all = append(all, w.settle(t, 9_500))
	sink.has(t, all[12])
	if got := sink.all(); len(got) != 3 || got[0].Hash != want.Hash {
		t.Errorf("a second reconnect was handed %d invoices: %+v", len(got), got)
	}
	if len(sink.restarts) != 1 || sink.restarts[0].Index != 10 {
		t.Errorf("the cursor was replaced by %v", sink.restarts)
	}
}

// regress has a cursor far beyond every index that the node has settled.
func (w world) regress(t *testing.T) {
	sink := newLedger()
	key := w.n.Gateway.PubKey
	sink.cursors[key] = lightning.Cursor{Index: 1_000_000, Hash: l402.NewPreimage().Hash()}
	missed := w.settle(t, 7_000)
	c := devnettest.Seller(t, w.n)
	c.Hurry(10*time.Millisecond, time.Second, 300*time.Millisecond, time.Second)
	watch(t, c, sink)
	sink.has(t, missed)
	eventually(t, "Watch is live", live(c))
	if got := sink.cursor(key); got.Hash != missed {
		t.Errorf("after the listing the cursor is %v", got)
	}
	next := w.settle(t, 8_000)
	sink.has(t, next)
	if got := sink.cursor(key); got.Hash != next {
		t.Errorf("the cursor moved to %v", got)
	}
}
