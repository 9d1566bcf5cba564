package metering

import (
	"time"

	"sluice.example/sluice/l402"
)

// Delegated budgets. A budget that the account itself delegated counts on the account. Any other budget counts on its
// parent. So a delegate who hands on a thousand budgets uses up only the delegate's own places. Only live budgets
// count: see BudgetRow.live.

// budgetRoom returns the amount that one delegated budget can still hold. A budget without a row has all of its limit.
// If two tokens state different limits for one budget, the smaller limit counts.
func budgetRoom(row *BudgetRow, limit l402.Msat) l402.Msat {
	if row == nil {
		return max(0, limit)
	}
	return max(0, min(row.Limit, limit)-row.Spent-row.Held)
}

// room returns the amount that one request may hold now: the least of what the account and each of its budgets have
// left. /l402/balance shows this number.
func (b *Batch) room(a *AccountRow, budgets []l402.Budget) l402.Msat {
	room := a.Available
	for i := range budgets {
		room = min(room, budgetRoom(b.Budgets.get(budgets[i].ID), budgets[i].Limit))
	}
	return room
}

// onBudgets calls change on every budget of a chain, makes the missing rows first, and keeps the counts of live
// budgets.
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

// parentOf returns the id of the budget from which budget i of a chain was delegated. Zeros mean the account itself.
func parentOf(chain []l402.Budget, i int) [32]byte {
	if i == 0 {
		return [32]byte{}
	}
	return chain[i-1].ID
}

// count updates the number of live budgets at the account or budget that delegated row. was and is say whether the
// budget was live before the change and is live now.
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

// tooMany reports whether a hold would raise the number of live budgets, at the account or at one budget, above its
// limit.
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

// dropEmpty removes the budgets of the chain that have nothing spent, nothing held, no live children and no charge. So
// a client that keeps using new delegated tokens without paying leaves no rows. The innermost budget goes first,
// because it counts on its parent.
func (b *Batch) dropEmpty(a *AccountRow, chain []l402.Budget) {
	for i := len(chain) - 1; i >= 0; i-- {
		row := b.Budgets.get(chain[i].ID)
		if row != nil && row.Spent == 0 && row.Held == 0 && row.Children == 0 && row.Last == (HoldID{}) {
			b.count(a, row, row.live(), false)
			b.Budgets.remove(row.ID)
		}
	}
}

// closeOp closes budgets whose tokens have all expired. The lines of such a budget remain. A last line takes back what
// was spent, because the parent budgets have counted that amount as well.
type closeOp struct {
	who    l402.TokenID
	rows   []BudgetRow // the rows as ExpiredBudgets saw them; only ids and parents are used
	before int64       // unix seconds: close the budgets whose tokens expired before this

	closed int64 // result: how many budgets were closed
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
	// Both the gateway's clock and the store's clock must say that the tokens expired long enough ago, because a budget
	// that is closed too early could be spent again.
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
