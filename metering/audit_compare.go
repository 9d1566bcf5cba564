package metering

import "sluice.example/sluice/l402"

// checkAccounts compares accounts with the sums of their lines, and with the budgets and holds of the same snapshot.
func (v *view) checkAccounts(rows []AccountRow) error {
	ids := make([]l402.TokenID, len(rows))
	subjects := make([]Subject, len(rows))
	for i := range rows {
		ids[i], subjects[i] = rows[i].ID, accountSubject(rows[i].ID)
	}
	var budgets []BudgetRow
	if err := v.s.BudgetsOf(ids, func(b BudgetRow) { budgets = append(budgets, b) }); err != nil {
		return err
	}
	count := v.countBudgets(budgets)
	if err := v.prepare(subjects); err != nil {
		return err
	}
	for i := range rows {
		v.checkAccount(&rows[i], count[rows[i].ID])
	}
	if v.withBudgets {
		return v.checkBudgets(budgets)
	}
	return nil
}

// countBudgets counts the live budgets at the account or budget that delegated them. It returns the counts of accounts,
// which its caller compares, and compares the counts of budgets itself.
func (v *view) countBudgets(rows []BudgetRow) map[l402.TokenID]int64 {
	accounts, children := make(map[l402.TokenID]int64), make(map[[32]byte]int64)
	for i := range rows {
		switch b := &rows[i]; {
		case !b.live():
		case b.Parent == ([32]byte{}):
			accounts[b.Account]++
		default:
			children[b.Parent]++
		}
	}
	for i := range rows {
		if b := &rows[i]; b.Children != children[b.ID] {
			v.mismatch(budgetSubject(b.ID), "budget %x: %d live budgets delegated from it, recomputed %d", b.ID, b.Children, children[b.ID])
		}
	}
	return accounts
}

func (v *view) checkAccount(r *AccountRow, budgets int64) {
	v.Accounts++
	v.sums.available.add(r.Available)
	v.sums.held.add(r.Held)
	v.sums.deposited.add(r.Deposited)
	v.sums.charged.add(r.Charged)
	v.sums.adjusted.add(r.Adjusted)
	about := accountSubject(r.ID)
	sums, overflow := v.sumsOf(about)
	if overflow {
		v.mismatch(about, "account %s: its lines sum up to more than there is", r.ID)
		return
	}
	if r.Available < 0 || r.Held < 0 {
		v.mismatch(about, "account %s: available %d, held %d: negative", r.ID, r.Available, r.Held)
	}
	for _, c := range []struct {
		what          string
		stands, shown l402.Msat
	}{
		{"balance against its lines", r.Available + r.Held, sums[0] + sums[2] - sums[1]},
		{"deposited against lines", r.Deposited, sums[0]},
		{"charged against lines", r.Charged, sums[1]},
		{"adjusted against lines", r.Adjusted, sums[2]},
		{"held against open holds", r.Held, v.heldBy[r.ID]},
		{"number of budgets", l402.Msat(r.Budgets), l402.Msat(budgets)},
	} {
		if c.stands != c.shown {
			v.mismatch(about, "account %s: %s: %d, recomputed %d", r.ID, c.what, c.stands, c.shown)
		}
	}
}

// checkBudgets compares delegated budgets with their lines and holds.
func (v *view) checkBudgets(rows []BudgetRow) error {
	subjects := make([]Subject, len(rows))
	for i := range rows {
		subjects[i] = budgetSubject(rows[i].ID)
	}
	if err := v.prepare(subjects); err != nil {
		return err
	}
	for i := range rows {
		b := &rows[i]
		v.Budgets++
		about := budgetSubject(b.ID)
		sums, overflow := v.sumsOf(about)
		held := v.heldBudget[b.ID]
		v.budgetsSeen[b.ID] = true
		if b.Spent < 0 || b.Held < 0 || b.Spent > b.Limit || b.Held > b.Limit-b.Spent {
			v.mismatch(about, "budget %x: spent %d and held %d of %d", b.ID, b.Spent, b.Held, b.Limit)
		}
		if damaged(b.Checksum, b.checksum()) {
			v.mismatch(about, "budget %x: what was fixed when it was made has changed since, such as its limit of %d", b.ID, b.Limit)
		}
		if b.Spent != sums[0] || overflow {
			v.mismatch(about, "budget %x: spent %d, recomputed %d", b.ID, b.Spent, sums[0])
		}
		if b.Held != held {
			v.mismatch(about, "budget %x: held %d, open holds %d", b.ID, b.Held, held)
		}
	}
	return nil
}

// checkNoBudgets reports budgets that have no row, but whose lines do not sum up to 0 or that open holds name.
func (v *view) checkNoBudgets(ids [][32]byte) error {
	subjects := make([]Subject, len(ids))
	for i := range ids {
		subjects[i] = budgetSubject(ids[i])
	}
	if err := v.prepare(subjects); err != nil {
		return err
	}
	for _, id := range ids {
		v.budgetsSeen[id] = true
		if sums, _ := v.sumsOf(budgetSubject(id)); sums[0] != 0 {
			v.mismatch(budgetSubject(id), "budget %x: lines of %d msat without a budget", id, sums[0])
		}
		if held := v.heldBudget[id]; held != 0 {
			v.mismatch(budgetSubject(id), "budget %x: open holds of %d msat without a budget", id, held)
		}
	}
	return nil
}

// checkPayments compares payments with their lines, and what their locks cover with holds and charges. ids are the
// payments that the caller asked for: a payment of ids that has no row must have no lines that sum up to anything and
// cover nothing.
func (v *view) checkPayments(rows []DepositRow, ids []l402.PaymentHash) error {
	found := make(map[l402.PaymentHash]*DepositRow, len(rows))
	var subjects []Subject
	for i := range rows {
		found[rows[i].Hash] = &rows[i]
		subjects = append(subjects, paymentSubject(rows[i].Hash))
	}
	for _, id := range ids {
		if found[id] == nil {
			found[id] = &DepositRow{Hash: id}
			subjects = append(subjects, paymentSubject(id))
		}
	}
	if err := v.prepare(subjects); err != nil {
		return err
	}
	for _, d := range found {
		about := paymentSubject(d.Hash)
		sums, overflow := v.sumsOf(about)
		if d.Credited != sums[0] || overflow {
			v.mismatch(about, "account %s: deposit %s: credited %d, recomputed %d", d.Account, d.Hash, d.Credited, sums[0])
		}
		if d.wronglyOwed() {
			v.mismatch(about, "account %s: deposit %s: %d of %d msat credited are owed", d.Account, d.Hash, d.Owed, d.Credited)
		}
		if held := v.heldLock[lockKey{d.Hash, d.Account}]; d.Covered != held+sums[1] {
			v.mismatch(about, "account %s: deposit %s: its lock covers %d, open holds %d and charges %d", d.Account, d.Hash, d.Covered, held, sums[1])
		}
	}
	return nil
}

// wronglyOwed reports whether d.Owed is impossible. When the Lightning node has reported the payment as settled, the
// debt depends on the amount that arrived. Only the Lightning node knows that amount, so wronglyOwed then checks only
// that the debt is from 0 to d.Credited.
func (d *DepositRow) wronglyOwed() bool {
	switch {
	case d.Settled != 0:
		return d.Owed < 0 || d.Owed > d.Credited
	case d.Doubted != 0:
		return d.Owed != d.Credited
	default:
		return d.Owed != 0
	}
}

// checkLocks reports accounts whose holds use rates that another account's payment locked.
func (v *view) checkLocks() error {
	byHash := make(map[l402.PaymentHash][]l402.TokenID)
	for key := range v.heldLock {
		byHash[key.hash] = append(byHash[key.hash], key.account)
	}
	owner := make(map[l402.PaymentHash]l402.TokenID)
	if err := v.s.DepositsOf(keysOf(byHash), func(d DepositRow) { owner[d.Hash] = d.Account }); err != nil {
		return err
	}
	for hash, accounts := range byHash {
		for _, account := range accounts {
			if owner[hash] != account {
				v.mismatch(accountSubject(account), "account %s: holds of %d msat use the lock of deposit %s, which is not the account's",
					account, v.heldLock[lockKey{hash, account}], hash)
			}
		}
	}
	return nil
}

// checkOwners reports the accounts in owners that do not exist. what names the rows that belong to them, for the
// report.
func (v *view) checkOwners(what string, owners []l402.TokenID) error {
	missing := make(map[l402.TokenID]bool)
	for _, id := range owners {
		missing[id] = true
	}
	if len(missing) == 0 {
		return nil
	}
	if err := v.s.AccountsOf(keysOf(missing), func(a AccountRow) { delete(missing, a.ID) }); err != nil {
		return err
	}
	for id := range missing {
		v.mismatch(accountSubject(id), "account %s: a %s of an account that does not exist", id, what)
	}
	return nil
}
