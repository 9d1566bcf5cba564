package metering

import (
	"bytes"
	"context"

	"sluice.example/sluice/l402"
)

// increment turns an id into the next larger id. done is true when id was the largest; id is then all zeros.
func increment(id []byte) (done bool) {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]++; id[i] != 0 {
			return false
		}
	}
	return true
}

// most returns the largest id.
func most() (id [32]byte) {
	for i := range id {
		id[i] = 0xff
	}
	return id
}

// rowsAtOnce returns how many rows one snapshot compares. It is at least the number of open holds, because each
// snapshot also reads all open holds.
func (a *auditor) rowsAtOnce() int { return max(sliceRows, int(a.OpenHolds)) }

// walkRange covers the ids of a share in several snapshots. compare compares at most n rows from the id from on, and
// returns the last id that it covered.
func (a *auditor) walkRange(ctx context.Context, part *share, compare func(v *view, from [32]byte, n int) (last [32]byte, err error)) error {
	for from, done := part.first(), false; !done && part.holds(&from); {
		var last [32]byte
		err := a.look(ctx, func(v *view) (err error) {
			last, err = compare(v, from, a.rowsAtOnce())
			return err
		})
		if err != nil {
			return err
		}
		from = last
		done = increment(from[:])
	}
	return nil
}

// chunk cuts off the rows beyond the end of a share. It also returns the last id that the rows cover: the id of the
// last of n rows, or the largest id when there are fewer than n rows.
func chunk[R any](rows []R, n int, part *share, id func(*R) *[32]byte) ([]R, [32]byte) {
	last := most()
	if len(rows) == n {
		last = *id(&rows[n-1])
	}
	for len(rows) > 0 && !part.holds(id(&rows[len(rows)-1])) {
		rows = rows[:len(rows)-1]
	}
	return rows, last
}

func within(id, from, last [32]byte, part *share) bool {
	return bytes.Compare(from[:], id[:]) <= 0 && bytes.Compare(id[:], last[:]) <= 0 && part.holds(&id)
}

func (a *auditor) walkAccounts(ctx context.Context, part *share) error {
	return a.walkRange(ctx, part, func(v *view, from [32]byte, n int) ([32]byte, error) {
		var rows []AccountRow
		if err := v.s.Accounts(from, n, func(r AccountRow) { rows = append(rows, r) }); err != nil {
			return from, err
		}
		rows, last := chunk(rows, n, part, func(r *AccountRow) *[32]byte { return (*[32]byte)(&r.ID) })
		known := make(map[l402.TokenID]bool, len(rows))
		for i := range rows {
			known[rows[i].ID] = true
		}
		for id := range v.heldBy {
			if within(id, from, last, part) && !known[id] {
				v.mismatch(accountSubject(id), "account %s: a hold of an account that does not exist", id)
			}
		}
		return last, v.checkAccounts(rows)
	})
}

func (a *auditor) walkBudgets(ctx context.Context, part *share) error {
	return a.walkRange(ctx, part, func(v *view, from [32]byte, n int) ([32]byte, error) {
		var rows []BudgetRow
		var owners []l402.TokenID
		if err := v.s.Budgets(from, n, func(r BudgetRow) { rows = append(rows, r) }); err != nil {
			return from, err
		}
		rows, last := chunk(rows, n, part, func(r *BudgetRow) *[32]byte { return &r.ID })
		known := make(map[[32]byte]bool, len(rows))
		for i := range rows {
			known[rows[i].ID] = true
			owners = append(owners, rows[i].Account)
		}
		var gone [][32]byte
		for id := range v.heldBudget {
			if within(id, from, last, part) && !known[id] {
				gone = append(gone, id)
			}
		}
		if err := v.checkNoBudgets(gone); err != nil {
			return last, err
		}
		if err := v.checkOwners("budget", owners); err != nil {
			return last, err
		}
		return last, v.checkBudgets(rows)
	})
}

func (a *auditor) walkPayments(ctx context.Context, part *share) error {
	return a.walkRange(ctx, part, func(v *view, from [32]byte, n int) ([32]byte, error) {
		var rows []DepositRow
		var owners []l402.TokenID
		if err := v.s.Deposits(from, n, func(r DepositRow) { rows = append(rows, r) }); err != nil {
			return from, err
		}
		rows, last := chunk(rows, n, part, func(r *DepositRow) *[32]byte { return (*[32]byte)(&r.Hash) })
		for i := range rows {
			owners = append(owners, rows[i].Account)
		}
		if err := v.checkOwners("deposit", owners); err != nil {
			return last, err
		}
		return last, v.checkPayments(rows, nil)
	})
}

// leftOver compares the subjects that have lines, but whose row no walk has met. Their rows are missing, or were made
// after the walk had passed their ids.
func (a *auditor) leftOver(ctx context.Context, _ *share) error {
	var left []Subject
	for id, t := range a.tallies {
		if !t.seen {
			left = append(left, id)
		}
	}
	for len(left) > 0 {
		n := min(len(left), sliceRows)
		if err := a.look(ctx, func(v *view) error { return v.checkSubjects(left[:n]) }); err != nil {
			return err
		}
		left = left[n:]
	}
	return nil
}

// checkSubjects compares subjects, with or without a row.
func (v *view) checkSubjects(subjects []Subject) error {
	var accounts []l402.TokenID
	var payments []l402.PaymentHash
	var gone [][32]byte
	var budgets []BudgetRow
	for _, s := range subjects {
		switch s.Kind {
		case SubjectAccount:
			accounts = append(accounts, s.ID)
		case SubjectPayment:
			payments = append(payments, s.ID)
		case SubjectBudget:
			found := false
			err := v.s.Budgets(s.ID, 1, func(b BudgetRow) {
				if found = b.ID == s.ID; found {
					budgets = append(budgets, b)
				}
			})
			if err != nil {
				return err
			}
			if !found {
				gone = append(gone, s.ID)
			}
		}
	}
	if err := v.checkNoBudgets(gone); err != nil {
		return err
	}
	if err := v.checkBudgets(budgets); err != nil {
		return err
	}
	if err := v.checkAccountIDs(accounts); err != nil {
		return err
	}
	var deposits []DepositRow
	if err := v.s.DepositsOf(payments, func(d DepositRow) { deposits = append(deposits, d) }); err != nil {
		return err
	}
	return v.checkPayments(deposits, payments)
}

// checkAccountIDs compares the accounts of these ids, and reports those that do not exist.
func (v *view) checkAccountIDs(ids []l402.TokenID) error {
	missing := make(map[l402.TokenID]bool, len(ids))
	for _, id := range ids {
		missing[id] = true
	}
	var rows []AccountRow
	if err := v.s.AccountsOf(ids, func(r AccountRow) { rows = append(rows, r); delete(missing, r.ID) }); err != nil {
		return err
	}
	for id := range missing {
		what := "a transfer"
		if _, held := v.heldBy[id]; held {
			what = "a hold"
		}
		v.mismatch(accountSubject(id), "account %s: %s of an account that does not exist", id, what)
		v.sumsOf(accountSubject(id)) // marks the subject as seen
	}
	return v.checkAccounts(rows)
}
