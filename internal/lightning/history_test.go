package lightning_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
)

// settleAll settles the indexes from..to and returns the hashes.
func (f *fakeLND) settleAll(from, to uint64) (all []l402.PaymentHash) {
	for i := from; i <= to; i++ {
		all = append(all, f.settled(i, nil))
	}
	return all
}

// hasty is like serve, for tests in which lnd does not replay what was requested.
func hasty(t *testing.T, f *fakeLND) *lightning.Client {
	c := serve(t, f)
	c.Hurry(time.Millisecond, 20*time.Millisecond, 300*time.Millisecond, 10*time.Second)
	return c
}

// resumes watches once more while one invoice settles. It fails the test when the watcher listed
// invoices.
func resumes(t *testing.T, f *fakeLND, sink *ledger, from, next uint64) {
	t.Helper()
	hash := f.settled(next, nil)
	f.asked()
	c := serve(t, f)
	stop := watch(t, c, sink)
	sink.has(t, hash)
	eventually(t, "the cursor is at the end", func() bool { return sink.cursor(fakeNode) == f.cursor(next) })
	stop()
	if asked := f.asked(); !slices.Equal(asked, []string{fmt.Sprint("subscribe ", from-1)}) {
		t.Errorf("to go on, lnd was asked to %q", asked)
	}
}

// TestRebuilt rebuilds the node while nobody watches. The cursor is at index 5 of the lost history.
// The sink gets all invoices of the new history, and the second reconnect lists nothing.
func TestRebuilt(t *testing.T) {
	for name, count := range map[string]uint64{
		"with one": 1, "with fewer": 3, "with one fewer": 4, "with as many": 5, "with more": 12,
	} {
		t.Run(name, func(t *testing.T) {
			f, sink := &fakeLND{}, newLedger()
			f.settleAll(1, 5)
			sink.cursors[fakeNode] = f.cursor(5)
			f.rebuild()
			hashes := f.settleAll(1, count)
			c := hasty(t, f)
			before := time.Now()
			stop := watch(t, c, sink)
			sink.has(t, hashes...)
			eventually(t, "Watch is live", live(c))
			if _, since := c.Watching(); since.Before(before) || since.After(time.Now()) {
				t.Errorf("another history, and the stream is said to show all since %s", since)
			}
			if !slices.Equal(sink.restarts, []lightning.Cursor{f.cursor(count)}) || sink.cursor(fakeNode) != f.cursor(count) {
				t.Errorf("the cursor was replaced by %v and is %v", sink.restarts, sink.cursor(fakeNode))
			}
			sink.has(t, f.settled(count+1, nil)) // a live settlement
			eventually(t, "the cursor moves on", func() bool { return sink.cursor(fakeNode) == f.cursor(count+1) })
			stop()
			resumes(t, f, sink, count+1, count+2)
		})
	}
}

// TestRebuiltEmpty has a new history without settlements. The old cursor remains until an invoice
// settles.
func TestRebuiltEmpty(t *testing.T) {
	f, sink := &fakeLND{}, newLedger()
	f.settleAll(1, 5)
	old := f.cursor(5)
	sink.cursors[fakeNode] = old
	f.rebuild()
	c := hasty(t, f)
	watch(t, c, sink)
	eventually(t, "Watch is live", live(c))
	if sink.cursor(fakeNode) != old {
		t.Errorf("the cursor became %v", sink.cursor(fakeNode))
	}
	for i := range uint64(7) { // the indexes pass the old cursor
		sink.has(t, f.settled(i+1, nil))
		eventually(t, "the cursor is the new history's", func() bool { return sink.cursor(fakeNode) == f.cursor(i+1) })
	}
	if !slices.Equal(sink.restarts, []lightning.Cursor{f.cursor(1)}) {
		t.Errorf("the cursor was replaced by %v", sink.restarts)
	}
}

// TestCursorWithoutHash has a cursor without a hash, from a ledger that did not store hashes. It is
// then unknown whether the history is the same.
func TestCursorWithoutHash(t *testing.T) {
	f, sink := &fakeLND{}, newLedger()
	hashes := f.settleAll(1, 10)
	sink.cursors[fakeNode] = lightning.Cursor{Index: 5}
	c := serve(t, f)
	stop := watch(t, c, sink)
	sink.has(t, hashes...)
	eventually(t, "Watch is live", live(c))
	if _, since := c.Watching(); since.IsZero() {
		t.Error("a history that is not known to be the same counts as unchanged")
	}
	stop()
	if sink.cursor(fakeNode) != f.cursor(10) {
		t.Errorf("cursor %v", sink.cursor(fakeNode))
	}
	resumes(t, f, sink, 10, 11)
}

// TestUnchanged checks that the stream shows every settlement when the node continues the history
// of the cursor. Nothing is replayed for a cursor of 1.
func TestUnchanged(t *testing.T) {
	for _, at := range []uint64{1, 2, 7, 10} {
		t.Run(fmt.Sprint("from ", at), func(t *testing.T) {
			f, sink := &fakeLND{}, newLedger()
			hashes := f.settleAll(1, 10)
			sink.cursors[fakeNode] = f.cursor(at)
			c := serve(t, f)
			watch(t, c, sink)
			sink.has(t, hashes[at-1:]...)
			eventually(t, "Watch is live", live(c))
			if _, since := c.Watching(); !since.IsZero() {
				t.Errorf("the stream is said to show all since %s only", since)
			}
			eventually(t, "the cursor is at the end", func() bool { return sink.cursor(fakeNode) == f.cursor(10) })
		})
	}
}

// TestCursorOlderThanLedger has a cursor at an invoice of another user, settled before the ledger
// was made, and an lnd that does not replay it. The history still counts as unchanged, and the
// cursor does not move back.
func TestCursorOlderThanLedger(t *testing.T) {
	f, sink := &fakeLND{}, newLedger()
	old := func(inv *lnrpc.Invoice) { inv.CreationDate -= 7200 }
	f.settled(1, nil)
	f.settled(2, old)
	sink.cursors[fakeNode] = f.cursor(2)
	f.onSubscribe = func(req *lnrpc.InvoiceSubscription) { req.SettleIndex = 0 } // the replay is lost
	c := hasty(t, f)
	watch(t, c, sink)
	eventually(t, "Watch is live", live(c))
	if _, since := c.Watching(); !since.IsZero() {
		t.Errorf("the stream is said to show all since %s only", since)
	}
	if sink.cursor(fakeNode) != f.cursor(2) {
		t.Errorf("the cursor went to %v", sink.cursor(fakeNode))
	}
}

// TestSinceOutlastsReconnects checks that since is kept, because a payment to a lost node is not
// shown after a reconnect either.
func TestSinceOutlastsReconnects(t *testing.T) {
	f, sink := &fakeLND{}, newLedger()
	f.settleAll(1, 5)
	sink.cursors[fakeNode] = f.cursor(5)
	c := hasty(t, f)
	watch(t, c, sink)
	eventually(t, "Watch is live", live(c))
	f.rebuild()
	sink.has(t, f.settleAll(1, 8)...)
	listed := time.Time{}
	eventually(t, "Watch lists the new history", func() bool {
		ok, since := c.Watching()
		listed = since
		return ok && !since.IsZero()
	})
	f.mu.Lock()
	f.hangUp()
	f.mu.Unlock()
	sink.has(t, f.settled(9, nil))
	eventually(t, "Watch is live", live(c))
	if _, since := c.Watching(); since != listed {
		t.Errorf("listed at %s, but after a reconnect the stream shows all since %s", listed, since)
	}
	if asked := f.asked(); !strings.HasPrefix(asked[len(asked)-1], "subscribe ") {
		t.Errorf("lnd was asked to %q", asked)
	}
}

// TestProvenBeforeListing has an lnd that accepts a subscription and serves it late. An invoice
// that settles in between is not replayed, so it must be listed, which needs a listing after the
// proof.
func TestProvenBeforeListing(t *testing.T) {
	f, sink := &fakeLND{}, newLedger()
	first, second := f.settled(1, nil), f.hash(2)
	f.onSubscribe = func(*lnrpc.InvoiceSubscription) {
		// The watcher has listed by then, or asks whether it is subscribed.
		f.await(t, func() bool { return f.listed > 0 || slices.Contains(f.calls, "add") })
		f.settled(2, nil)
	}
	c := serve(t, f)
	watch(t, c, sink)
	eventually(t, "Watch is live", live(c))
	sink.has(t, first, second)
	asked := f.asked()
	if list := slices.Index(asked, "list"); list < slices.Index(asked, "subscribe 0") || asked[list-1] != "add" {
		t.Errorf("lnd was asked to %q", asked)
	}
}

// pagesOf makes three pages of invoices. It returns functions that settle the invoice in the middle
// of each page.
func pagesOf(f *fakeLND) (open []func(uint64), hashes []l402.PaymentHash) {
	for range 3 {
		f.unpaid(250)
		hash, settle := f.open()
		open, hashes = append(open, settle), append(hashes, hash)
		f.unpaid(249)
	}
	return open, hashes
}

// TestSettledWhileListing settles one invoice of each of three pages between the reading of two
// pages. The listing then shows the second invoice as settled, but not the first, whose page was
// read before. The cursor must not pass the first invoice until it has come through the
// subscription.
func TestSettledWhileListing(t *testing.T) {
	f := &fakeLND{}
	before := f.settleAll(1, 2)
	open, hashes := pagesOf(f)
	f.onList = func(call int, _ *lnrpc.ListInvoiceRequest) {
		if call == 2 { // the newest page was read
			open[2](3)
			open[0](4)
			open[1](5)
		}
	}
	sink := &checkingLedger{ledger: newLedger(), t: t, from: 0}
	watch(t, serve(t, f), sink)
	sink.has(t, before...)
	sink.has(t, hashes...)
	want := lightning.Cursor{Index: 5, Hash: hashes[1]}
	eventually(t, "the cursor is at the end", func() bool { return sink.cursor(fakeNode) == want })
}

// TestListingBreaks stops the watcher, or breaks the subscription, during the listing and just
// before the cursor is replaced. The sink must not store a cursor for invoices that it did not get,
// and the next session must list again.
func TestListingBreaks(t *testing.T) {
	for name, crash := range map[string]func(f *fakeLND, sink *checkingLedger, stop func()){
		"a crash amid the listing": func(f *fakeLND, _ *checkingLedger, stop func()) {
			f.onList = func(call int, _ *lnrpc.ListInvoiceRequest) {
				if call == 3 {
					stop()
				}
			}
		},
		"the stream ends amid the listing": func(f *fakeLND, _ *checkingLedger, _ func()) {
			f.onList = func(call int, _ *lnrpc.ListInvoiceRequest) {
				if call == 2 {
					f.mu.Lock()
					f.hangUp()
					f.mu.Unlock()
				}
			}
		},
		"the cursor cannot be replaced at first": func(_ *fakeLND, sink *checkingLedger, _ func()) { sink.stuck = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeLND{}
			f.settleAll(1, 4)
			sink := &checkingLedger{ledger: newLedger(), t: t}
			old := f.cursor(4)
			sink.cursors[fakeNode] = old
			f.rebuild()
			before := f.settleAll(1, 6)
			open, hashes := pagesOf(f)
			c := hasty(t, f)
			ctx, stop := context.WithCancel(t.Context())
			crash(f, sink, stop)
			done := make(chan error, 1)
			go func() { done <- c.Watch(ctx, sink) }()
			if strings.HasPrefix(name, "a crash") {
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				if sink.cursor(fakeNode) != old || len(sink.restarts) > 0 {
					t.Fatalf("amid the listing the cursor became %v", sink.cursor(fakeNode))
				}
				ctx, stop = context.WithCancel(t.Context())
				go func() { done <- c.Watch(ctx, sink) }()
			}
			sink.has(t, before...)
			for i, settle := range open {
				settle(uint64(7 + i))
			}
			sink.has(t, hashes...)
			eventually(t, "the cursor is at the end", func() bool { return sink.cursor(fakeNode).Index == 9 })
			stop()
			<-done
		})
	}
}

// TestAMPAtTheEnd has an AMP payment as the newest settlement, which has no invoice of its own. The
// cursor remains at the last settlement with an invoice, and a reconnect resumes from there.
func TestAMPAtTheEnd(t *testing.T) {
	f, sink := &fakeLND{}, newLedger()
	f.settleAll(1, 3)
	f.settled(5, amp(5))
	f.settled(4, nil)
	sink.cursors[fakeNode] = f.cursor(2)
	f.replay = slices.Reverse[[]*lnrpc.Invoice] // the invoice at the cursor comes last
	c := serve(t, f)
	stop := watch(t, c, sink)
	sink.has(t, f.hash(2), f.hash(3), f.hash(4))
	stop()
	if sink.cursor(fakeNode) != f.cursor(4) {
		t.Fatalf("cursor %v", sink.cursor(fakeNode))
	}
	f.replay = nil
	resumes(t, f, sink, 4, 6)
}
