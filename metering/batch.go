package metering

import (
	"time"

	"sluice/l402"
)

// Batch is what the ledger and a Store hand each other for one transaction: the
// keys to load, the rows loaded, the changes decided. The ledger owns it; a
// Store uses it within Apply only.
type Batch struct {
	// Now is the store's clock in µs since 1970, set by the Store once it holds
	// the locks and before it calls decide.
	Now int64
	// Durable is set before Apply when the batch may move money: see Store.Apply.
	Durable bool

	Create      []l402.TokenID // accounts to make when missing, before anything is loaded; may repeat
	Accounts    Table[l402.TokenID, AccountRow]
	Budgets     Table[[32]byte, BudgetRow]
	Holds       Table[HoldID, HoldRow]
	Charges     Table[HoldID, ChargeRow]
	Deposits    Table[l402.PaymentHash, DepositRow]
	Rates       Table[[32]byte, RateRow]
	Keys        Table[KeyID, KeyRow]
	Adjustments Table[HoldID, AdjustmentRow]
	Cursors     Table[string, CursorRow]

	Transfers   []TransferRow // to append
	BudgetLines []BudgetLine  // to append

	rules rules
}

// rules is the configuration that decisions depend on.
type rules struct {
	lease      time.Duration
	lateSettle time.Duration
	maxBudgets int64
}

// Changed reports whether there is anything to write.
func (b *Batch) Changed() bool {
	return b.Accounts.changed() || b.Budgets.changed() || b.Holds.changed() || b.Charges.changed() ||
		b.Deposits.changed() || b.Rates.changed() || b.Keys.changed() || b.Adjustments.changed() ||
		b.Cursors.changed() || len(b.Transfers) > 0
}

// reset empties the batch and keeps its memory.
func (b *Batch) reset() {
	b.Now, b.Durable = 0, false
	b.Create = b.Create[:0]
	b.Accounts.reset()
	b.Budgets.reset()
	b.Holds.reset()
	b.Charges.reset()
	b.Deposits.reset()
	b.Rates.reset()
	b.Keys.reset()
	b.Adjustments.reset()
	b.Cursors.reset()
	b.Transfers = b.Transfers[:0]
	b.BudgetLines = b.BudgetLines[:0]
}

// needAccount names the rows that a hold of an account is booked on: the
// account, the chain of budgets, the payment that locked the rates.
func (b *Batch) needAccount(id l402.TokenID, c *holdContext) {
	b.Accounts.need(id)
	for i := range c.budgets {
		b.Budgets.need(c.budgets[i].ID)
	}
	if c.lock != (l402.PaymentHash{}) {
		b.Deposits.need(c.lock)
	}
}

// budgetRoom is what one delegated budget can still hold. A budget without a row
// has all of its limit; should two tokens ever state different limits for one
// budget, the smaller counts.
func budgetRoom(row *BudgetRow, limit l402.Msat) l402.Msat {
	if row == nil {
		return max(0, limit)
	}
	return max(0, min(row.Limit, limit)-row.Spent-row.Held)
}

// room is what one request may hold now: the least of the account and all of
// its budgets. It is the number that /l402/balance shows.
func (b *Batch) room(a *AccountRow, budgets []l402.Budget) l402.Msat {
	room := a.Available
	for i := range budgets {
		room = min(room, budgetRoom(b.Budgets.get(budgets[i].ID), budgets[i].Limit))
	}
	return room
}

// budget returns the row of a budget for changes, made if missing.
func (b *Batch) budget(a *AccountRow, l *l402.Budget) *BudgetRow {
	if row := b.Budgets.get(l.ID); row != nil {
		b.Budgets.touch(l.ID)
		return row
	}
	a.Budgets++
	return b.Budgets.put(l.ID, BudgetRow{ID: l.ID, Account: a.ID, Limit: l.Limit})
}

// newBudgets counts the budgets of a chain that have no row yet.
func (b *Batch) newBudgets(budgets []l402.Budget) (n int64) {
	for i := range budgets {
		if b.Budgets.get(budgets[i].ID) == nil {
			n++
		}
	}
	return n
}

// moveHeld changes what the account and its budgets hold, and what the lock
// covers; amount may be negative.
func (b *Batch) moveHeld(a *AccountRow, c *holdContext, amount l402.Msat) {
	if amount == 0 { // a hold of nothing makes no budget row
		return
	}
	a.Available -= amount
	a.Held += amount
	b.Accounts.touch(a.ID)
	for i := range c.budgets {
		b.budget(a, &c.budgets[i]).Held += amount
	}
	b.cover(a, c.lock, amount)
}

// spend moves money from the account to revenue, and on its budgets and lock. A
// negative amount takes an earlier charge back.
func (b *Batch) spend(a *AccountRow, c *holdContext, hold HoldID, amount l402.Msat) {
	if amount == 0 {
		return
	}
	a.Available -= amount
	a.Charged += amount
	b.Accounts.touch(a.ID)
	if amount > 0 {
		b.transfer(TransferCharge, a.ID[:], []byte(BookRevenue), amount, hold[:])
	} else {
		b.transfer(TransferReversal, []byte(BookRevenue), a.ID[:], -amount, hold[:])
	}
	for i := range c.budgets {
		b.budget(a, &c.budgets[i]).Spent += amount
		b.BudgetLines = append(b.BudgetLines, BudgetLine{Budget: c.budgets[i].ID, Hold: hold, Amount: amount, At: b.Now})
	}
	b.cover(a, c.lock, amount)
}

// cover notes what is held or was charged at the rates that a payment locked.
// The payment of such a hold is always there: deposits are durable and stay.
func (b *Batch) cover(a *AccountRow, lock l402.PaymentHash, amount l402.Msat) {
	if lock == (l402.PaymentHash{}) {
		return
	}
	if row := b.Deposits.get(lock); row != nil && row.Account == a.ID {
		row.Covered += amount
		b.Deposits.touch(lock)
	}
}

// covers reports whether a lock applies to a new hold. A lock that has nothing
// left covers no hold of nothing either, which could be extended.
func (b *Batch) covers(a *AccountRow, l *RateLock) bool {
	row := b.Deposits.get(l.Hash)
	return row != nil && row.Account == a.ID && row.Covered+max(l.Amount, 1) <= min(l.Limit, row.Credited)
}

// transfer appends a pair of lines. debit, credit and ref are copied: rows move
// under their pointers between batches.
func (b *Batch) transfer(kind TransferKind, debit, credit []byte, amount l402.Msat, ref []byte) {
	buf := make([]byte, 0, len(debit)+len(credit)+len(ref))
	buf = append(append(append(buf, debit...), credit...), ref...)
	d, c := len(debit), len(debit)+len(credit)
	b.Transfers = append(b.Transfers, TransferRow{Kind: kind, Amount: amount, At: b.Now,
		Debit: buf[:d:d], Credit: buf[d:c:c], Ref: buf[c:]})
}

// dropEmpty removes those of the budgets that have nothing spent or held, so
// that fresh delegated tokens which never pay leave nothing behind.
func (b *Batch) dropEmpty(a *AccountRow, budgets []l402.Budget) {
	for i := range budgets {
		if row := b.Budgets.get(budgets[i].ID); row != nil && row.Spent == 0 && row.Held == 0 {
			b.Budgets.remove(budgets[i].ID)
			a.Budgets--
			b.Accounts.touch(a.ID)
		}
	}
}

// until is a moment after Now, in µs since 1970.
func (b *Batch) until(d time.Duration) int64 { return b.Now + d.Microseconds() }
