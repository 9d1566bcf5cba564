package metering

import (
	"time"

	"sluice.example/sluice/l402"
)

// Batch carries one transaction between the ledger and a Store: the keys of the rows to load, the loaded rows, and the
// changes that the ledger decided. The ledger owns the Batch. A Store uses it within Apply only.
//
// Every row belongs to an account. A Store writes all changes of an account or none of them. Only a cursor may belong
// to no account.
type Batch struct {
	// Now is the store's clock in µs since 1970. The Store sets Now before it calls decide.
	Now int64
	// Likely is set before Apply when decide will probably set Durable.
	Likely bool
	// Durable is set by decide when the ledger may acknowledge an operation only after a durable commit: see
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

	Transfers   []TransferRow // lines to append
	BudgetLines []BudgetLine  // lines to append

	repeated bool // an earlier attempt at some of these operations may have been committed; set before Apply

	create []l402.TokenID        // accounts to make when they are missing; an id may repeat
	missed map[l402.TokenID]bool // accounts that the store left out; true: another process has the account locked
	rules  rules
}

// rules is what decisions depend on besides the rows.
type rules struct {
	owner       OwnerID // the owner of new holds
	lateSettle  time.Duration
	maxBudgets  int64 // most live budgets that an account itself delegates
	maxChildren int64 // most live budgets that are delegated from one budget
}

// Changed reports whether the Batch has anything to write.
func (b *Batch) Changed() bool {
	return b.Accounts.changed() || b.Budgets.changed() || b.Holds.changed() || b.Charges.changed() ||
		b.Deposits.changed() || b.Windows.changed() || b.Keys.changed() || b.Adjustments.changed() ||
		b.Cursors.changed() || len(b.Transfers) > 0
}

// Miss notes that the store left out an account with all rows that belong to it. locked is true when another process
// has the account locked. It is false when another process has changed the account since it was loaded.
func (b *Batch) Miss(id l402.TokenID, locked bool) {
	if b.missed == nil {
		b.missed = make(map[l402.TokenID]bool)
	}
	b.missed[id] = locked
}

// reset empties the batch and keeps its memory for the next batch.
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

// begin makes the missing accounts that needNew named. The ledger calls begin after the store has loaded the rows. The
// store writes such an account only if an operation changes it.
func (b *Batch) begin() {
	for _, id := range b.create {
		b.Accounts.open(id, AccountRow{ID: id})
	}
}

// end marks the account of every changed row as changed. The store compares only the versions of accounts, so each
// change must raise the version of an account.
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

// confirm makes the batch write an account durably, even if no operation changed it. An earlier attempt that got no
// answer may have been committed, and this attempt may see that commit although the commit is not safe yet: a server
// that waits for its synchronous standby gives up the wait when the connection breaks, and the standby may never get
// that commit. The standby gets this attempt's commit only together with all commits before it.
func (b *Batch) confirm(id l402.TokenID) {
	if b.Accounts.get(id) != nil {
		b.Accounts.touch(id)
		b.Durable = true
	}
}

// needNew names an account that begin makes when the store has no such account.
func (b *Batch) needNew(id l402.TokenID) {
	b.create = append(b.create, id)
	b.Accounts.need(id)
}

// needAccount names the rows that a hold of an account changes: the account, the chain of budgets, and the payment that
// locked the rates.
func (b *Batch) needAccount(id l402.TokenID, c *holdContext) {
	b.Accounts.need(id)
	for i := range c.budgets {
		b.Budgets.need(c.budgets[i].ID)
	}
	if c.lock != (l402.PaymentHash{}) {
		b.Deposits.need(c.lock)
	}
}

// moveHeld adds amount to what the account and its budgets hold and to what the lock covers, and takes amount from what
// is available. amount may be negative.
func (b *Batch) moveHeld(a *AccountRow, c *holdContext, amount l402.Msat) {
	if amount == 0 { // a hold of 0 msat makes no budget row
		return
	}
	a.Available -= amount
	a.Held += amount
	b.Accounts.touch(a.ID)
	b.onBudgets(a, c.budgets, func(r *BudgetRow) { r.Held += amount })
	b.cover(a, c.lock, amount)
}

// spend moves amount from the account to revenue, and records it on the account's budgets and lock. A negative amount
// takes back an earlier charge.
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

// cover adds amount to what is held or was charged at the rates that a payment locked. The deposit row of a hold made
// under a lock always exists, because deposits are durable and are never deleted.
func (b *Batch) cover(a *AccountRow, lock l402.PaymentHash, amount l402.Msat) {
	if lock == (l402.PaymentHash{}) {
		return
	}
	if row := b.Deposits.get(lock); row != nil && row.Account == a.ID {
		row.Covered += amount
		b.Deposits.touch(lock)
	}
}

// covers reports whether a lock applies to a new hold. A lock with no money left does not cover a hold of 0 msat
// either, because such a hold could be extended.
func (b *Batch) covers(a *AccountRow, l *RateLock) bool {
	row := b.Deposits.get(l.Hash)
	return row != nil && row.Account == a.ID && row.Covered+max(l.Amount, 1) <= min(l.Limit, row.Credited)
}

// transfer appends a transfer. transfer copies debit, credit and ref, because rows are overwritten in place between
// batches.
func (b *Batch) transfer(kind TransferKind, account l402.TokenID, debit, credit []byte, amount l402.Msat, ref []byte) {
	buf := make([]byte, 0, len(debit)+len(credit)+len(ref))
	buf = append(append(append(buf, debit...), credit...), ref...)
	d, c := len(debit), len(debit)+len(credit)
	b.Transfers = append(b.Transfers, TransferRow{Kind: kind, Account: account, Amount: amount, At: b.Now,
		Debit: buf[:d:d], Credit: buf[d:c:c], Ref: buf[c:]})
}

// until returns the moment that is d after Now, in µs since 1970.
func (b *Batch) until(d time.Duration) int64 { return b.Now + d.Microseconds() }
