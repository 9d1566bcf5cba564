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

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
)

// TestReplayOutOfOrder has an lnd that replays in another order than that of settlement, as with a
// SQL database, and breaks the connection after every few events. Everything up to the cursor must
// have been given to the sink.
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
				sink := &checkingLedger{ledger: newLedger(), t: t, from: 2}
				sink.cursors[fakeNode] = f.cursor(2)
				watch(t, serve(t, f), sink)
				sink.has(t, hashes[2:]...)
				eventually(t, "the cursor is at the end", func() bool { return sink.cursor(fakeNode) == f.cursor(30) })
			})
		}
	}
}

// checkingLedger fails the test when the cursor passes an invoice that the ledger did not get, or
// moves back within one history.
type checkingLedger struct {
	*ledger
	t    *testing.T
	from uint64 // index of the cursor at the start
	mu   sync.Mutex
	by   map[uint64]bool
	last uint64
}

func (l *checkingLedger) Settled(ctx context.Context, inv lightning.SettledInvoice) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = make(map[uint64]bool)
	}
	l.by[inv.SettleIndex] = true
	if inv.Cursor.Index > 0 {
		l.check(inv.Cursor.Index)
	}
	return l.ledger.Settled(ctx, inv)
}

func (l *checkingLedger) Restart(ctx context.Context, node string, c lightning.Cursor) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.from = 0
	l.check(c.Index)
	return l.ledger.Restart(ctx, node, c)
}

func (l *checkingLedger) check(index uint64) {
	for i := l.from + 1; i <= index; i++ {
		if !l.by[i] {
			l.t.Errorf("the cursor goes to %d without %d", index, i)
		}
	}
	if index < l.last {
		l.t.Errorf("the cursor goes back from %d to %d", l.last, index)
	}
	l.last = index
}

// TestStreamBreaks breaks one subscription after another, each after a few events.
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
	eventually(t, "the cursor is at the end", func() bool { return sink.cursor(fakeNode) == f.cursor(40) })
}

// amp makes an invoice an AMP invoice with one paid set per index.
func amp(indexes ...uint64) func(*lnrpc.Invoice) {
	return func(inv *lnrpc.Invoice) {
		inv.IsAmp, inv.SettleIndex = true, 0
		inv.AmpInvoiceState = map[string]*lnrpc.AMPInvoiceState{}
		for _, i := range indexes {
			inv.AmpInvoiceState[string(rune('a'+i))] = &lnrpc.AMPInvoiceState{State: lnrpc.InvoiceHTLCState_SETTLED, SettleIndex: i}
		}
	}
}

// TestForeignPayments has spontaneous and AMP payments. They have numbers in lnd's sequence, but
// they do not belong to the ledger.
func TestForeignPayments(t *testing.T) {
	f := &fakeLND{}
	f.settled(1, nil)
	f.settled(2, nil)
	sink := newLedger()
	sink.cursors[fakeNode] = f.cursor(2)
	c := serve(t, f)
	watch(t, c, sink)
	eventually(t, "Watch is live", live(c))
	third := f.settled(3, func(inv *lnrpc.Invoice) { inv.IsKeysend, inv.ValueMsat = true, 0 })
	f.settled(4, amp(4))
	f.settled(5, amp(4, 5))
	sixth := f.settled(6, nil)
	sink.has(t, third, sixth)
	if got := sink.get(sixth); got.Cursor.Index != 6 {
		t.Errorf("the cursor stays at %d behind the AMP payments", got.Cursor.Index)
	}
	if n := len(sink.all()); n != 3 { // index 2 is replayed
		t.Errorf("%d invoices were handed over", n)
	}
}

// TestGapIsBelieved leaves out one number for ever while other invoices settle. The cursor moves
// past the gap once the gap is old.
func TestGapIsBelieved(t *testing.T) {
	f := &fakeLND{}
	for _, i := range []uint64{1, 2, 4} {
		f.settled(i, nil)
	}
	sink := newLedger()
	sink.cursors[fakeNode] = f.cursor(2)
	c := serve(t, f)
	c.Hurry(time.Millisecond, 20*time.Millisecond, 5*time.Second, 50*time.Millisecond)
	watch(t, c, sink)
	next := uint64(5)
	eventually(t, "the cursor passes the gap", func() bool { // a settlement well within the age of a gap
		sink.has(t, f.settled(next, nil))
		next++
		return sink.cursor(fakeNode).Index >= 5
	})
}

// TestListingIsPaged has more invoices than fit into one page. Most of them are unpaid.
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
	eventually(t, "Watch is live", live(c))
	if sink.cursor(fakeNode) != f.cursor(13) || len(sink.all()) != len(hashes) || len(hashes) != 13 {
		t.Errorf("cursor %v, %d invoices", sink.cursor(fakeNode), len(sink.all()))
	}
}

// TestWatchWaitsForLND starts Watch before lnd can be reached.
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
	if live(c)() {
		t.Error("Watch says it is live")
	}
}
