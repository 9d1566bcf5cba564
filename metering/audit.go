package metering

import (
	"context"
	"fmt"
	"time"

	"sluice/l402"
)

// Report is the result of an audit.
type Report struct {
	Totals
	Unbilled    l402.Msat `json:"unbilled_msat"`
	OpenHolds   int64     `json:"open_holds"`
	Budgets     int64     `json:"budgets"`
	Unclaimed   int64     `json:"unclaimed"`   // payments that arrived and were never presented
	Unconfirmed int64     `json:"unconfirmed"` // payments presented over confirmWithin ago and never seen settled
	Mismatched  int64     `json:"mismatched"`  // how many; 0: all agrees
	Mismatches  []string  `json:"mismatches"`  // the first maxMismatches of them
}

// maxMismatches bounds the list of a report.
const maxMismatches = 100

// OK reports whether everything agreed.
func (r *Report) OK() bool { return r.Mismatched == 0 }

func (r *Report) mismatch(format string, args ...any) {
	r.Mismatched++
	if len(r.Mismatches) < maxMismatches {
		r.Mismatches = append(r.Mismatches, fmt.Sprintf(format, args...))
	}
}

// Audit recomputes, in one snapshot of the store, every balance from the
// append-only lines and from the rows behind them, and checks the invariants of
// every account and budget. It streams: memory grows with open holds only.
func (r *Reader) Audit(ctx context.Context) (Report, error) {
	a := auditor{held: make(map[[32]byte]l402.Msat), locked: make(map[lockKey]l402.Msat)}
	a.Mismatches = []string{}
	err := r.store.Audit(ctx, AuditSink{Hold: a.hold, Account: a.account, Budget: a.budget, Lock: a.lock, Book: a.book, Orphan: a.orphan})
	if err != nil {
		return Report{}, unavailable("audit", err)
	}
	a.finish()
	for filter, count := range map[DepositFilter]*int64{
		{Unclaimed: true}: &a.Unclaimed, {Unconfirmed: time.Now().Add(-confirmWithin)}: &a.Unconfirmed,
	} {
		if err := r.store.Deposits(ctx, filter, func(DepositRow) error { *count++; return nil }); err != nil {
			return Report{}, unavailable("audit", err)
		}
	}
	return a.Report, nil
}

type auditor struct {
	Report
	held                           map[[32]byte]l402.Msat // by budget, from open holds
	locked                         map[lockKey]l402.Msat  // from open holds at locked rates
	lightning, revenue, adjustment l402.Msat
}

// lockKey is a payment as an account's: a lock counts for its owner only.
type lockKey struct {
	hash    l402.PaymentHash
	account l402.TokenID
}

func (a *auditor) hold(h HoldRow) error {
	a.OpenHolds++
	c, err := readContext(h.Context)
	if err != nil {
		a.mismatch("hold %s: %v", h.ID, err)
		return nil
	}
	if _, err := readUsage(h.Usage); err != nil {
		a.mismatch("hold %s: usage: %v", h.ID, err)
	}
	if h.Amount == 0 {
		return nil
	}
	for i := range c.budgets {
		a.held[c.budgets[i].ID] += h.Amount
	}
	if c.lock != (l402.PaymentHash{}) {
		a.locked[lockKey{c.lock, h.Account}] += h.Amount
	}
	return nil
}

func (a *auditor) account(r AuditAccount) error {
	a.Accounts++
	a.Available += r.Available
	a.Held += r.Held
	a.Deposited += r.Deposited
	a.Charged += r.Charged
	a.Adjusted += r.Adjusted
	a.Unbilled += r.UnbilledRows
	if r.Available < 0 || r.Held < 0 {
		a.mismatch("account %s: available %d, held %d: negative", r.ID, r.Available, r.Held)
	}
	for _, c := range []struct {
		what          string
		stands, shown l402.Msat
	}{
		{"balance against its lines", r.Available + r.Held, r.LineDeposits + r.LineAdjustments - r.LineCharges},
		{"deposited against lines", r.Deposited, r.LineDeposits},
		{"deposited against deposits", r.Deposited, r.DepositRows},
		{"charged against lines", r.Charged, r.LineCharges},
		{"charged against charges", r.Charged, r.ChargeRows},
		{"adjusted against lines", r.Adjusted, r.LineAdjustments},
		{"adjusted against adjustments", r.Adjusted, r.AdjustmentRows},
		{"held against open holds", r.Held, r.HoldRows},
		{"number of budgets", l402.Msat(r.Budgets), l402.Msat(r.BudgetRows)},
	} {
		if c.stands != c.shown {
			a.mismatch("account %s: %s: %d, recomputed %d", r.ID, c.what, c.stands, c.shown)
		}
	}
	return nil
}

func (a *auditor) budget(b AuditBudget) error {
	if !b.Found {
		if b.Lines != 0 {
			a.mismatch("budget %x: lines of %d msat without a budget", b.ID, b.Lines)
		}
		return nil
	}
	a.Budgets++
	held := a.held[b.ID]
	delete(a.held, b.ID)
	if b.Spent < 0 || b.Held < 0 || b.Spent+b.Held > b.Limit {
		a.mismatch("budget %x: spent %d and held %d of %d", b.ID, b.Spent, b.Held, b.Limit)
	}
	if b.Spent != b.Lines {
		a.mismatch("budget %x: spent %d, recomputed %d", b.ID, b.Spent, b.Lines)
	}
	if b.Held != held {
		a.mismatch("budget %x: held %d, open holds %d", b.ID, b.Held, held)
	}
	return nil
}

func (a *auditor) lock(l AuditLock) error {
	key := lockKey{l.Hash, l.Account}
	held := a.locked[key]
	delete(a.locked, key)
	if l.Covered != held+l.Charges {
		a.mismatch("deposit %s: its lock covers %d, open holds %d and charges %d", l.Hash, l.Covered, held, l.Charges)
	}
	return nil
}

func (a *auditor) book(name string, balance l402.Msat) error {
	switch name {
	case BookLightning:
		a.lightning = balance
	case BookRevenue:
		a.revenue = balance
	case BookAdjustments:
		a.adjustment = balance
	}
	return nil
}

func (a *auditor) orphan(what string) error {
	a.mismatch("%s", what)
	return nil
}

// finish compares the sums over all accounts with the ledger's own books.
func (a *auditor) finish() {
	for id, held := range a.held {
		a.mismatch("budget %x: open holds of %d msat without a budget", id, held)
	}
	for key, held := range a.locked {
		a.mismatch("deposit %s: its lock covers nothing, open holds %d", key.hash, held)
	}
	if a.lightning != -a.Deposited {
		a.mismatch("lightning paid in %d, accounts were credited %d", -a.lightning, a.Deposited)
	}
	if a.revenue != a.Charged {
		a.mismatch("revenue %d, accounts were charged %d", a.revenue, a.Charged)
	}
	if a.adjustment != -a.Adjusted {
		a.mismatch("adjustments %d, accounts were adjusted by %d", -a.adjustment, a.Adjusted)
	}
}
