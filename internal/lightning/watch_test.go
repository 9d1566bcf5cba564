package lightning_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"

	"sluice/internal/lightning"
	"sluice/l402"
)

const fakeNode = "02fake"

// TestReplayOutOfOrder has lnd replay in another order than that of settlement,
// as with a SQL database, and break off after each few events. Whatever the
// cursor says must have been handed over.
func TestReplayOutOfOrder(t *testing.T) {
	orders := map[string]func([]*lnrpc.Invoice){
		"backwards": slices.Reverse[[]*lnrpc.Invoice],
		"interleaved": func(b []*lnrpc.Invoice) {
			slices.SortFunc(b, func(x, y *lnrpc.Invoice) int { return cmp.Compare(x.SettleIndex*7%31, y.SettleIndex*7%31) })
		},
	}
	for name, order := range orders {
		for _, breaks := range []int{0, 3} {
			t.Run(fmt.Sprint(name, " with ", breaks, " breaks"), func(t *testing.T) {
				f := &fakeLND{replay: order, breakAfter: 17, breaks: breaks}
				var hashes []l402.PaymentHash
				for i := range uint64(30) {
					hashes = append(hashes, f.settled(i+1, nil))
				}
				sink := &checkingLedger{ledger: newLedger(), t: t}
				sink.cursors[fakeNode] = 2
				watch(t, serve(t, f), sink)
				sink.has(t, hashes[2:]...)
				eventually(t, "the cursor is at the end", func() bool { return sink.cursor(fakeNode) == 30 })
			})
		}
	}
}

// checkingLedger fails when the cursor passes what was not handed over.
type checkingLedger struct {
	*ledger
	t  *testing.T
	mu sync.Mutex
	by map[uint64]bool
}

func (l *checkingLedger) Settled(ctx context.Context, inv lightning.SettledInvoice) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = map[uint64]bool{1: true, 2: true} // what the cursor stands for
	}
	l.by[inv.SettleIndex] = true
	for i := uint64(1); i <= inv.Index; i++ {
		if !l.by[i] {
			l.t.Errorf("the cursor goes to %d without %d", inv.Index, i)
		}
	}
	return l.ledger.Settled(ctx, inv)
}

// TestStreamBreaks ends one subscription after the other, each after a few
// events.
func TestStreamBreaks(t *testing.T) {
	f := &fakeLND{breakAfter: 3, breaks: 12}
	sink := newLedger()
	c := serve(t, f)
	watch(t, c, sink)
	var hashes []l402.PaymentHash
	for i := range uint64(40) {
		hashes = append(hashes, f.settled(i+1, nil))
		if i%8 == 0 {
			sink.has(t, hashes...)
		}
	}
	sink.has(t, hashes...)
	eventually(t, "the cursor is at the end", func() bool { return sink.cursor(fakeNode) == 40 })
}

// TestForeignPayments takes spontaneous and AMP payments, which have numbers in
// lnd's sequence but are none of ours.
func TestForeignPayments(t *testing.T) {
	f := &fakeLND{}
	f.settled(1, nil)
	f.settled(2, nil)
	amp := func(indexes ...uint64) func(*lnrpc.Invoice) {
		return func(inv *lnrpc.Invoice) {
			inv.IsAmp, inv.SettleIndex = true, 0
			inv.AmpInvoiceState = map[string]*lnrpc.AMPInvoiceState{}
			for _, i := range indexes {
				inv.AmpInvoiceState[string(rune('a'+i))] = &lnrpc.AMPInvoiceState{State: lnrpc.InvoiceHTLCState_SETTLED, SettleIndex: i}
			}
		}
	}
	sink := newLedger()
	sink.cursors[fakeNode] = 2
	c := serve(t, f)
	watch(t, c, sink)
	eventually(t, "Watch is live", c.Watching)
	third := f.settled(3, func(inv *lnrpc.Invoice) { inv.IsKeysend, inv.ValueMsat = true, 0 })
	f.settled(4, amp(4))
	f.settled(5, amp(4, 5))
	sixth := f.settled(6, nil)
	sink.has(t, third, sixth)
	if got := sink.get(sixth); got.Index != 6 {
		t.Errorf("the cursor stays at %d behind the AMP payments", got.Index)
	}
	if n := len(sink.all()); n != 3 { // 2 is replayed
		t.Errorf("%d invoices were handed over", n)
	}
}

// TestGapIsBelieved leaves a number out for ever: after a quiet while the
// cursor moves on.
func TestGapIsBelieved(t *testing.T) {
	f := &fakeLND{}
	for _, i := range []uint64{1, 2, 4} {
		f.settled(i, nil)
	}
	sink := newLedger()
	sink.cursors[fakeNode] = 2
	c := serve(t, f)
	c.Hurry(time.Millisecond, 20*time.Millisecond, 5*time.Second, 50*time.Millisecond)
	watch(t, c, sink)
	next := uint64(5)
	eventually(t, "the cursor passes the gap", func() bool {
		sink.has(t, f.settled(next, nil))
		next++
		time.Sleep(100 * time.Millisecond) // twice what Hurry calls quiet
		return sink.cursor(fakeNode) >= 5
	})
}

// TestListingIsPaged has more invoices than one page, most of them unpaid.
func TestListingIsPaged(t *testing.T) {
	f := &fakeLND{}
	var hashes []l402.PaymentHash
	for i := range 1_234 {
		if i%100 == 7 {
			hashes = append(hashes, f.settled(uint64(len(hashes)+1), nil))
			continue
		}
		f.mu.Lock()
		f.append(&lnrpc.Invoice{RHash: make([]byte, 32)})
		f.mu.Unlock()
	}
	sink := newLedger()
	c := serve(t, f)
	watch(t, c, sink)
	sink.has(t, hashes...)
	eventually(t, "Watch is live", c.Watching)
	if sink.cursor(fakeNode) != 0 || len(sink.all()) != len(hashes) {
		t.Errorf("cursor %d, %d invoices", sink.cursor(fakeNode), len(sink.all()))
	}
}

// TestWatchWaitsForLND starts Watch before there is anything to connect to.
func TestWatchWaitsForLND(t *testing.T) {
	c, err := lightning.Dial(lightning.Config{Address: "127.0.0.1:1", Macaroon: someMacaroon(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Hurry(time.Millisecond, time.Millisecond, time.Second, time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := c.Watch(ctx, newLedger()); err != context.DeadlineExceeded {
		t.Errorf("Watch ended with %v", err)
	}
	if c.Watching() {
		t.Error("Watch says it is live")
	}
}
