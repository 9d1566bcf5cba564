package metering

import (
	"time"

	"sluice.example/sluice/l402"
)

// Batch is what the ledger and a Store hand each other for one transaction: the
// keys to load, the rows loaded, the changes decided. The ledger owns it; a
// Store uses it within Apply only.
//
// Every row belongs to an account, and a Store writes an account's changes as a
// whole or not at all. Only a cursor may belong to nobody.
type Batch struct {
	// Now is the store's clock in µs since 1970, set by the Store before it calls
	// decide.
	Now int64
	// Likely is set before Apply when decide will probably set Durable.
	Likely bool
	// Durable is set by decide when an acknowledgement depends on the commit: see
	// Store.Apply.
	Durable bool

	Accounts    Table[l402.TokenID, AccountRow]
	Budgets     Table[[32]byte, BudgetRow]
	Holds       Table[HoldID, HoldRow]
	Charges     Table[HoldID, ChargeRow]
	Deposits    Table[l402.PaymentHash, DepositRow]
	Windows     Table[[32]byte, WindowRow]
	Keys        Table[KeyID, KeyRow]
	Adjustments Table[HoldID, AdjustmentRow]
	Cursors     Table[string, CursorRow]

	Transfers   []TransferRow // to append
	BudgetLines []BudgetLine  // to append

	repeated bool // an attempt at some of its operations may have been committed: set before Apply

	create []l402.TokenID        // accounts to make when missing; may repeat
	missed map[l402.TokenID]bool // accounts that were left out; true: somebody else has locked them
	rules  rules
}

// rules is what decisions depend on beside the rows.
type rules struct {
	owner       OwnerID // of new holds
	lateSettle  time.Duration
	maxBudgets  int64 // live ones delegated by an account itself
	maxChildren int64 // live ones delegated from one budget
}

// Changed reports whether there is anything to write.
func (b *Batch) Changed() bool {
	return b.Accounts.changed() || b.Budgets.changed() || b.Holds.changed() || b.Charges.changed() ||
		b.Deposits.changed() || b.Windows.changed() || b.Keys.changed() || b.Adjustments.changed() ||
		b.Cursors.changed() || len(b.Transfers) > 0
}

// Miss notes that the store left an account out, with all that belongs to it:
// somebody else has it locked, or has changed it since it was loaded.
func (b *Batch) Miss(id l402.TokenID, locked bool) {
	if b.missed == nil {
		b.missed = make(map[l402.TokenID]bool)
	}
	b.missed[id] = locked
}

// reset empties the batch and keeps its memory.
func (b *Batch) reset() {
	b.Now, b.Likely, b.Durable = 0, false, false
	b.repeated = false
	b.create = b.create[:0]
	clear(b.missed)
	b.Accounts.reset()
	b.Budgets.reset()
	b.Holds.reset()
	b.Charges.reset()
	b.Deposits.reset()
	b.Windows.reset()
	b.Keys.reset()
	b.Adjustments.reset()
	b.Cursors.reset()
	b.Transfers = b.Transfers[:0]
	b.BudgetLines = b.BudgetLines[:0]
}

// begin makes the accounts that are to exist, once the rows are loaded. They are
// written only if an operation changes them.
func (b *Batch) begin() {
	for _, id := range b.create {
		b.Accounts.open(id, AccountRow{ID: id})
	}
}

// end makes every account with a changed row a changed account: the store
// compares accounts' versions only, so each change must move one.
func (b *Batch) end() {
	touch := func(id l402.TokenID) { b.Accounts.touch(id) }
	b.Budgets.eachChanged(func(r *BudgetRow) { touch(r.Account) })
	b.Holds.eachChanged(func(r *HoldRow) { touch(r.Account) })
	b.Charges.eachChanged(func(r *ChargeRow) { touch(r.Account) })
	b.Deposits.eachChanged(func(r *DepositRow) { touch(r.Account) })
	b.Windows.eachChanged(func(r *WindowRow) { touch(r.Account) })
	b.Keys.eachChanged(func(r *KeyRow) { touch(r.Account) })
	b.Adjustments.eachChanged(func(r *AdjustmentRow) { touch(r.Account) })
}

// confirm has an account written durably, whatever was decided. An attempt that got
// no answer may have been committed, and be seen by this one, without being safe: a
// server that waits for its synchronous standby gives up the wait when the connection
// breaks, and the standby may never get that commit. The standby gets this one only
// together with all before it.
func (b *Batch) confirm(id l402.TokenID) {
	if b.Accounts.get(id) != nil {
		b.Accounts.touch(id)
		b.Durable = true
	}
}

// needNew names an account that is made when it is missing.
func (b *Batch) needNew(id l402.TokenID) {
	b.create = append(b.create, id)
	b.Accounts.need(id)
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

// moveHeld changes what the account and its budgets hold, and what the lock
// covers; amount may be negative.
func (b *Batch) moveHeld(a *AccountRow, c *holdContext, amount l402.Msat) {
	if amount == 0 { // a hold of nothing makes no budget row
		return
	}
	a.Available -= amount
	a.Held += amount
	b.Accounts.touch(a.ID)
	b.onBudgets(a, c.budgets, func(r *BudgetRow) { r.Held += amount })
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
		b.transfer(TransferCharge, a.ID, a.ID[:], []byte(BookRevenue), amount, hold[:])
	} else {
		b.transfer(TransferReversal, a.ID, []byte(BookRevenue), a.ID[:], -amount, hold[:])
	}
	b.onBudgets(a, c.budgets, func(r *BudgetRow) {
		r.Spent += amount
		b.BudgetLines = append(b.BudgetLines, BudgetLine{Account: a.ID, Budget: r.ID, Hold: hold, Amount: amount, At: b.Now})
	})
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
func (b *Batch) transfer(kind TransferKind, account l402.TokenID, debit, credit []byte, amount l402.Msat, ref []byte) {
	buf := make([]byte, 0, len(debit)+len(credit)+len(ref))
	buf = append(append(append(buf, debit...), credit...), ref...)
	d, c := len(debit), len(debit)+len(credit)
	b.Transfers = append(b.Transfers, TransferRow{Kind: kind, Account: account, Amount: amount, At: b.Now,
		Debit: buf[:d:d], Credit: buf[d:c:c], Ref: buf[c:]})
}

// until is a moment after Now, in µs since 1970.
func (b *Batch) until(d time.Duration) int64 { return b.Now + d.Microseconds() }
