package metering

import (
	"cmp"
	"errors"
	"testing"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
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

// TestFinalIsFinal checks that only a provisional charge is ever replaced.
func TestFinalIsFinal(t *testing.T) {
	b, who := newBatch(time.Hour), l402.TokenID{1}
	b.Accounts.need(who)
	b.Accounts.Loaded(who, AccountRow{ID: who, Available: 600, Held: 400, Deposited: 1000})
	id := NewHoldID()
	b.Holds.need(id)
	b.Holds.Loaded(id, HoldRow{ID: id, Account: who, Amount: 400, Usage: noUsage})
	settle := func(cost l402.Msat, sweep bool) Entry {
		t.Helper()
		op := &settleOp{id: id, who: who, ctx: &holdContext{rates: pricing.Rates{pricing.Calls: 1}}, cost: cost, sweep: sweep}
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

// TestUnreadableUsage checks that a sweep charges nothing for damaged usage, and leaves a hold whose usage only a later
// version can read to that version.
func TestUnreadableUsage(t *testing.T) {
	for _, c := range []struct {
		usage []byte
		free  l402.Msat // what the sweep gives back
	}{{nil, 400}, {[]byte{1, 0x80}, 400}, {[]byte{0, 4}, 400}, {[]byte{2, 4}, 400}, {[]byte{2, 4, 7, 120, 1}, 0}, {[]byte{9, 9}, 0}} {
		b, who, id := newBatch(time.Hour), l402.TokenID{1}, NewHoldID()
		b.Accounts.need(who)
		b.Accounts.Loaded(who, AccountRow{ID: who, Held: 400, Deposited: 400})
		b.Holds.need(id)
		b.Holds.Loaded(id, HoldRow{ID: id, Account: who, Amount: 400, Usage: c.usage})
		op := &settleOp{id: id, who: who, ctx: &holdContext{rates: pricing.Rates{pricing.Calls: 1}}, sweep: true}
		if err := decide(b, op); err != nil || op.entry.Charged != 0 || b.Accounts.get(who).Available != c.free || op.swept != (c.free > 0) {
			t.Errorf("% x: charged %d, swept %v, %+v, %v", c.usage, op.entry.Charged, op.swept, b.Accounts.get(who), err)
		}
	}
}

// TestSweepBoundsThePrompt checks that a sweep charges at most as many input tokens as the reservation allowed.
func TestSweepBoundsThePrompt(t *testing.T) {
	b, who, id := newBatch(time.Hour), l402.TokenID{1}, NewHoldID()
	b.Accounts.need(who)
	b.Accounts.Loaded(who, AccountRow{ID: who, Held: 400, Deposited: 400})
	b.Holds.need(id)
	b.Holds.Loaded(id, HoldRow{ID: id, Account: who, Amount: 400, Usage: appendUsage(nil, pricing.Units{pricing.InputTokens: 300, pricing.OutputTokens: 20})})
	op := &settleOp{id: id, who: who, sweep: true,
		ctx: &holdContext{prompt: 100, rates: pricing.Rates{pricing.InputTokens: 1e6, pricing.OutputTokens: 1e6}}}
	if err := decide(b, op); err != nil || op.entry.Charged != 120 {
		t.Errorf("charged %d, %v", op.entry.Charged, err)
	}
}

// TestDepositsStayWithinAllMoney checks that no sum of deposits overflows.
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

// TestCursorOfACredit checks that within a batch the cursor moves only with the credits of one account, because the
// store may leave another account out.
func TestCursorOfACredit(t *testing.T) {
	b, node := newBatch(time.Hour), "02aa"
	for i, want := range []struct {
		who   byte
		index uint64
	}{{1, 5}, {1, 5}, {1, 7}} { // not with the second account's credit, and again with the first account's
		who := l402.TokenID{[]byte{1, 2, 1}[i]}
		op := &settledOp{s: Settled{Deposit: Deposit{Hash: l402.PaymentHash{byte(i)}, Account: who, Amount: 10}, Node: node, Index: uint64(5 + i)}}
		if err := decide(b, op); err != nil {
			t.Fatal(err)
		}
		if c := b.Cursors.get(node); c == nil || c.Index != want.index || c.Account != (l402.TokenID{want.who}) {
			t.Errorf("after credit %d: cursor %+v", i, c)
		}
	}
}

// TestCloseBudgets checks which budgets are closed, whatever the rows that ExpiredBudgets returned, and how the numbers
// of live budgets change.
func TestCloseBudgets(t *testing.T) {
	inTime := budgetGrace + 1000*time.Second // budgets that expired before second 1000 may be closed
	for name, test := range map[string]struct {
		row            BudgetRow
		closed         bool
		budgets, lines int
		now            time.Duration // by the store's clock; zero: inTime
	}{
		"expired":                              {BudgetRow{Limit: 100, Spent: 40, ValidUntil: 500}, true, 4, 1, 0},
		"expired and spent out":                {BudgetRow{Limit: 100, Spent: 100, ValidUntil: 500}, true, 5, 1, 0},
		"expired, nothing spent":               {BudgetRow{Limit: 100, ValidUntil: 500}, true, 4, 0, 0},
		"holds something":                      {BudgetRow{Limit: 100, Spent: 40, Held: 1, ValidUntil: 500}, false, 5, 0, 0},
		"valid":                                {BudgetRow{Limit: 100, Spent: 40, ValidUntil: 1000}, false, 5, 0, 0},
		"of a version without it":              {BudgetRow{Limit: 100, Spent: 40}, false, 5, 0, 0},
		"of another account":                   {BudgetRow{Account: l402.TokenID{9}, Limit: 100, Spent: 40, ValidUntil: 500}, false, 5, 0, 0},
		"expired by the gateway's clock alone": {BudgetRow{Limit: 100, Spent: 40, ValidUntil: 500}, false, 5, 0, budgetGrace + 500*time.Second},
	} {
		b, who, row := newBatch(cmp.Or(test.now, inTime)), l402.TokenID{1}, test.row
		if row.ID = [32]byte{2}; row.Account == (l402.TokenID{}) {
			row.Account = who
		}
		b.Accounts.need(who)
		b.Accounts.Loaded(who, AccountRow{ID: who, Budgets: 5})
		b.Budgets.need(row.ID)
		b.Budgets.Loaded(row.ID, row)
		op := &closeOp{who: who, rows: []BudgetRow{row}, before: 1000}
		if err := decide(b, op); err != nil {
			t.Fatal(err)
		}
		if closed := b.Budgets.get(row.ID) == nil; closed != test.closed || op.closed == 1 != test.closed {
			t.Errorf("%s: closed %v, counted %d", name, closed, op.closed)
		}
		if got := b.Accounts.get(who).Budgets; got != int64(test.budgets) || len(b.BudgetLines) != test.lines {
			t.Errorf("%s: %d live budgets, %d lines; want %d, %d", name, got, len(b.BudgetLines), test.budgets, test.lines)
		}
	}
}
