package metering

import (
	"time"

	"sluice.example/sluice/l402"
)

// Delegated budgets. Each is counted where it was delegated from: a budget of the
// account itself on the account, any other on its parent. So a delegate who hands
// on a thousand budgets uses up its own places, and nobody else's. Only live
// budgets count: see BudgetRow.live.

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

// onBudgets changes every budget of a chain, made if missing, and keeps the
// numbers of live ones.
func (b *Batch) onBudgets(a *AccountRow, chain []l402.Budget, change func(*BudgetRow)) {
	for i := range chain {
		row, was := b.Budgets.get(chain[i].ID), false
		if row == nil {
			made := BudgetRow{ID: chain[i].ID, Account: a.ID, Parent: parentOf(chain, i),
				Limit: chain[i].Limit, ValidUntil: chain[i].ValidUntil}
			made.Checksum = made.checksum()
			row = b.Budgets.put(made.ID, made)
		} else {
			was = row.live()
		}
		change(row)
		b.Budgets.touch(row.ID)
		b.count(a, row, was, row.live())
	}
}

// parentOf is the budget that a budget of a chain was delegated from; zero: the
// account.
func parentOf(chain []l402.Budget, i int) [32]byte {
	if i == 0 {
		return [32]byte{}
	}
	return chain[i-1].ID
}

// count keeps the number of live budgets where a budget was delegated from.
func (b *Batch) count(a *AccountRow, row *BudgetRow, was, is bool) {
	change := int64(0)
	switch {
	case was == is:
		return
	case is:
		change = 1
	default:
		change = -1
	}
	if row.Parent == ([32]byte{}) {
		a.Budgets += change
		b.Accounts.touch(a.ID)
	} else if parent := b.Budgets.get(row.Parent); parent != nil {
		parent.Children += change
		b.Budgets.touch(parent.ID)
	}
}

// tooMany reports whether a hold would make more budgets live, at one place, than
// may be.
func (b *Batch) tooMany(a *AccountRow, chain []l402.Budget) bool {
	for i := range chain {
		row := b.Budgets.get(chain[i].ID)
		if row != nil && row.live() {
			continue
		}
		if parent := parentOf(chain, i); parent == ([32]byte{}) || row != nil && row.Parent == ([32]byte{}) {
			if a.Budgets >= b.rules.maxBudgets {
				return true
			}
		} else if above := b.Budgets.get(parent); above != nil && above.Children >= b.rules.maxChildren {
			return true
		}
	}
	return false
}

// dropEmpty removes those of the budgets that have nothing spent or held and no
// history, so that fresh delegated tokens that never pay leave nothing behind. The
// innermost goes first, because it counts on its parent.
func (b *Batch) dropEmpty(a *AccountRow, chain []l402.Budget) {
	for i := len(chain) - 1; i >= 0; i-- {
		row := b.Budgets.get(chain[i].ID)
		if row != nil && row.Spent == 0 && row.Held == 0 && row.Children == 0 && row.Last == (HoldID{}) {
			b.count(a, row, row.live(), false)
			b.Budgets.remove(row.ID)
		}
	}
}

// closeOp ends budgets whose tokens have all expired. Their lines stay: a last
// one takes back what was spent, which the parents have counted as well.
type closeOp struct {
	who    l402.TokenID
	rows   []BudgetRow // as they were seen; only names and parents count
	before int64       // unix seconds: those whose tokens expired before

	closed int64 // result
}

func (o *closeOp) account() l402.TokenID { return o.who }

func (o *closeOp) need(b *Batch, _ bool) {
	b.Accounts.need(o.who)
	for i := range o.rows {
		b.Budgets.need(o.rows[i].ID)
		if o.rows[i].Parent != ([32]byte{}) {
			b.Budgets.need(o.rows[i].Parent)
		}
	}
}

func (o *closeOp) apply(b *Batch) error {
	o.closed = 0
	// Both clocks must say so, the gateway's and the store's: a budget that is closed
	// too early could be spent again.
	before := min(o.before, (b.Now-budgetGrace.Microseconds())/time.Second.Microseconds())
	a := b.Accounts.get(o.who)
	for i := range o.rows {
		id := o.rows[i].ID
		row := b.Budgets.get(id)
		if a == nil || row == nil || row.Account != a.ID || row.Held != 0 || row.ValidUntil == 0 || row.ValidUntil >= before {
			continue
		}
		if row.Spent != 0 {
			b.BudgetLines = append(b.BudgetLines, BudgetLine{Account: a.ID, Budget: id, Amount: -row.Spent, At: b.Now})
		}
		b.count(a, row, row.live(), false)
		b.Budgets.remove(id)
		o.closed++
	}
	return nil
}
