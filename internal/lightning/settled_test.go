package lightning_test

import (
	"slices"
	"testing"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
)

// since lists the invoices since at and returns their hashes in the order in which they came.
func since(t *testing.T, c *lightning.Client, at time.Time) (all []l402.PaymentHash) {
	t.Helper()
	err := c.SettledSince(t.Context(), at, func(inv lightning.SettledInvoice) error {
		all = append(all, inv.Hash)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestSettledSinceCostsWhatIsNew checks that the date is compared with the creation, less one hour,
// and that older invoices cost at most one page.
func TestSettledSinceCostsWhatIsNew(t *testing.T) {
	f := &fakeLND{}
	now := time.Now()
	at := func(before time.Duration) func(*lnrpc.Invoice) {
		return func(inv *lnrpc.Invoice) { inv.CreationDate = now.Add(-before).Unix() }
	}
	for i := range uint64(5000) {
		f.settled(i+1, at(30*24*time.Hour))
	}
	tooOld := f.settled(5001, at(2*time.Hour+time.Minute))
	slack := f.settled(5002, at(2*time.Hour-time.Minute))
	f.unpaid(600)
	fresh := f.settled(5003, at(10*time.Minute))
	// lnd's clock was set back for a moment.
	stepped := f.settled(5004, at(48*time.Hour))
	newest := f.settled(5005, at(0))
	c := serve(t, f)
	f.asked()
	got := since(t, c, now.Add(-time.Hour))
	if want := []l402.PaymentHash{fresh, newest, slack}; !slices.Equal(got, want) {
		t.Errorf("listed %d: %v, want %v without %s and %s", len(got), got, want, tooOld, stepped)
	}
	if asked := f.asked(); len(asked) > 3 {
		t.Errorf("lnd was asked to %q", asked)
	}
	if got := since(t, c, time.Time{}); len(got) != 5005 {
		t.Errorf("listed %d of all", len(got))
	}
	if got := since(t, c, now.Add(3*time.Hour)); len(got) != 0 {
		t.Errorf("listed %v of the future", got)
	}
}

// TestSettledAsksLND has a subscription that hangs while its connection is open. Watching does not
// notice this, but Settled finds the payment.
func TestSettledAsksLND(t *testing.T) {
	f, sink := &fakeLND{}, newLedger()
	first := f.settled(1, nil)
	open, settle := f.open()
	foreign := f.settled(2, amp(2))
	c := serve(t, f)
	watch(t, c, sink)
	eventually(t, "Watch is live", live(c))
	f.mu.Lock()
	f.live = nil // nobody is told any more
	f.mu.Unlock()
	got, ok, err := c.Settled(t.Context(), first)
	if err != nil || !ok || got.Hash != first || got.Node != fakeNode || got.Paid != 1000 || got.SettleIndex != 1 {
		t.Errorf("settled: %+v, %v, %v", got, ok, err)
	}
	for _, hash := range []l402.PaymentHash{open, foreign, l402.NewPreimage().Hash()} {
		if got, ok, err := c.Settled(t.Context(), hash); ok || err != nil {
			t.Errorf("%s: %+v, %v, %v", hash, got, ok, err)
		}
	}
	settle(3)
	got, ok, err = c.Settled(t.Context(), open)
	if err != nil || !ok || got.Hash != open || got.SettleIndex != 3 || got.Cursor != (lightning.Cursor{}) {
		t.Errorf("settled meanwhile: %+v, %v, %v", got, ok, err)
	}
	if !live(c)() || len(sink.all()) != 1 {
		t.Errorf("the hanging stream brought %v", sink.all())
	}
	if _, ok, err := away(t).Settled(t.Context(), first); ok || err == nil {
		t.Errorf("asking an lnd that is away: %v, %v", ok, err)
	}
}

// away returns a client of an lnd that does not exist.
func away(t *testing.T) *lightning.Client {
	t.Helper()
	c, err := lightning.Dial(lightning.Config{Address: "127.0.0.1:1", Macaroon: someMacaroon(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
