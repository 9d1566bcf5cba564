package metering

import (
	"errors"
	"testing"
	"time"

	"sluice/l402"
	"sluice/pricing"
)

// decide runs one operation over rows in memory.
func decide(b *Batch, op operation) error {
	op.need(b, false)
	b.begin()
	return op.apply(b)
}

func newBatch(now time.Duration) *Batch {
	return &Batch{Now: now.Microseconds(), rules: rules{lateSettle: time.Hour, maxBudgets: 2, maxChildren: 2}}
}

// TestFinalIsFinal: only a provisional charge is ever replaced.
func TestFinalIsFinal(t *testing.T) {
	b, who := newBatch(time.Hour), l402.TokenID{1}
	b.Accounts.need(who)
	b.Accounts.Loaded(who, AccountRow{ID: who, Available: 600, Held: 400, Deposited: 1000})
	id := NewHoldID()
	b.Holds.need(id)
	b.Holds.Loaded(id, HoldRow{ID: id, Account: who, Amount: 400, Usage: noUsage})
	settle := func(cost l402.Msat, sweep bool) Entry {
		t.Helper()
		op := &settleOp{id: id, who: who, ctx: &holdContext{rates: pricing.Rates{CallMsat: 1}}, cost: cost, sweep: sweep}
		if err := decide(b, op); err != nil {
			t.Fatal(err)
		}
		return op.entry
	}
	for i, step := range []struct {
		cost  l402.Msat
		sweep bool
		want  l402.Msat
	}{{0, true, 0}, {0, true, 0}, {250, false, 250}, {300, false, 250}, {0, false, 250}, {0, true, 250}} {
		if got := settle(step.cost, step.sweep); got.Charged != step.want {
			t.Errorf("step %d: charged %d, want %d", i, got.Charged, step.want)
		}
	}
	if a := b.Accounts.get(who); a.Available != 750 || a.Held != 0 || a.Charged != 250 {
		t.Errorf("account: %+v", a)
	}
}

// TestDamagedUsage: a client is not charged for rows that cannot be read.
func TestDamagedUsage(t *testing.T) {
	b, who, id := newBatch(time.Hour), l402.TokenID{1}, NewHoldID()
	b.Accounts.need(who)
	b.Accounts.Loaded(who, AccountRow{ID: who, Held: 400, Deposited: 400})
	b.Holds.need(id)
	b.Holds.Loaded(id, HoldRow{ID: id, Account: who, Amount: 400, Usage: []byte{9, 9}})
	op := &settleOp{id: id, who: who, ctx: &holdContext{rates: pricing.Rates{CallMsat: 1}}, sweep: true}
	if err := decide(b, op); err != nil || op.entry.Charged != 0 || b.Accounts.get(who).Available != 400 {
		t.Errorf("charged %d, %v", op.entry.Charged, err)
	}
}

// TestSweepBoundsThePrompt: what a sweep charges as prompt was bounded when the
// request was admitted.
func TestSweepBoundsThePrompt(t *testing.T) {
	b, who, id := newBatch(time.Hour), l402.TokenID{1}, NewHoldID()
	b.Accounts.need(who)
	b.Accounts.Loaded(who, AccountRow{ID: who, Held: 400, Deposited: 400})
	b.Holds.need(id)
	b.Holds.Loaded(id, HoldRow{ID: id, Account: who, Amount: 400, Usage: appendUsage(nil, pricing.Usage{InputTokens: 300, OutputTokens: 20})})
	op := &settleOp{id: id, who: who, sweep: true,
		ctx: &holdContext{prompt: 100, rates: pricing.Rates{InputMsatPerMtok: 1e6, OutputMsatPerMtok: 1e6}}}
	if err := decide(b, op); err != nil || op.entry.Charged != 120 {
		t.Errorf("charged %d, %v", op.entry.Charged, err)
	}
}

// TestDepositsStayWithinAllMoney: no sum of deposits overflows.
func TestDepositsStayWithinAllMoney(t *testing.T) {
	b, who := newBatch(time.Hour), l402.TokenID{1}
	b.Accounts.need(who)
	b.Accounts.Loaded(who, AccountRow{ID: who})
	for i, want := range []error{nil, ErrAmount, nil} {
		d := Deposit{Hash: l402.PaymentHash{byte(i)}, Account: who, Amount: l402.MaxMsat - 10}
		if i == 2 {
			d.Amount = 10
		}
		if err := decide(b, &depositOp{d: d}); !errors.Is(err, want) {
			t.Errorf("deposit %d: %v, want %v", i, err, want)
		}
	}
	if a := b.Accounts.get(who); a.Available != l402.MaxMsat {
		t.Errorf("available %d", a.Available)
	}
}

func TestKnownDepositsAreBounded(t *testing.T) {
	k := newKnownDeposits(100)
	d := func(i int) Deposit {
		return Deposit{Hash: l402.PaymentHash{byte(i), byte(i >> 8)}, Account: l402.TokenID{1}, Amount: 5}
	}
	for i := range 1000 {
		k.add(d(i))
		if !k.has(d(0)) && i > 200 {
			t.Fatalf("what is used all the time was forgotten after %d", i)
		}
		if n := len(k.young) + len(k.old); n > 100 {
			t.Fatalf("%d are known", n)
		}
	}
	if k.has(d(500)) || !k.has(d(999)) {
		t.Error("the oldest are to go, not the newest")
	}
	other := d(999)
	other.Account = l402.TokenID{2}
	more := d(999)
	more.Amount = 6
	if k.has(other) || k.has(more) {
		t.Error("another account, or a larger amount, is not known")
	}
}
