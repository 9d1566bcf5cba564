package sqlite

import (
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// save writes the changes of the batch.
func (w *writer) save(b *metering.Batch) error {
	for _, part := range []func(*metering.Batch) error{w.saveAccounts, w.saveBudgets, w.saveHolds, w.saveCharges,
		w.saveDeposits, w.saveLimits, w.saveLines, w.saveCursors} {
		if err := part(b); err != nil {
			return err
		}
	}
	return nil
}

// each calls run for all rows of a sequence, until run fails.
func each[R any](rows func(func(R) bool), run func(R) error) (err error) {
	rows(func(r R) bool {
		err = run(r)
		return err == nil
	})
	return err
}

// id binds an identifier. It binds NULL for an identifier of zeros.
func (s *stmt) id(v []byte) *stmt {
	for _, b := range v {
		if b != 0 {
			return s.blob(v)
		}
	}
	return s.null()
}

// moment binds a time. It binds NULL for 0, which means never.
func (s *stmt) moment(v int64) *stmt {
	if v == 0 {
		return s.null()
	}
	return s.int(v)
}

func (s *stmt) msat(v l402.Msat) *stmt { return s.int(int64(v)) }

func (w *writer) saveAccounts(b *metering.Batch) error {
	err := each(b.Accounts.Inserted, func(a *metering.AccountRow) error { return w.createAccount.blob(a.ID[:]).run() })
	if err != nil {
		return err
	}
	return each(b.Accounts.Upserted, func(a *metering.AccountRow) error {
		return w.saveAccount.int(int64(a.Status)).msat(a.Available).msat(a.Held).msat(a.Deposited).msat(a.Charged).
			msat(a.Adjusted).int(a.Budgets).id(a.Last[:]).blob(a.ID[:]).run()
	})
}

func (w *writer) saveBudgets(b *metering.Batch) error {
	err := each(b.Budgets.Inserted, func(r *metering.BudgetRow) error {
		return w.insertBudget.blob(r.Account[:]).msat(r.Limit).msat(r.Spent).msat(r.Held).id(r.Parent[:]).int(r.Children).
			int(r.ValidUntil).id(r.Last[:]).moment(int64(r.Checksum)).blob(r.ID[:]).run()
	})
	if err != nil {
		return err
	}
	err = each(b.Budgets.Updated, func(r *metering.BudgetRow) error {
		return w.updateBudget.msat(r.Spent).msat(r.Held).int(r.Children).id(r.Last[:]).blob(r.ID[:]).run()
	})
	if err != nil {
		return err
	}
	return each(b.Budgets.Deleted, func(r *metering.BudgetRow) error { return w.deleteBudget.blob(r.ID[:]).run() })
}

// saveHolds does not write the running usage of holds that are stored already, because Beat writes it.
func (w *writer) saveHolds(b *metering.Batch) error {
	err := each(b.Holds.Inserted, func(h *metering.HoldRow) error {
		return w.insertHold.blob(h.ID[:]).blob(h.Account[:]).msat(h.Amount).blob(h.Owner[:]).blob(h.Context).
			blob(h.Usage).text(string(h.Source)).run()
	})
	if err != nil {
		return err
	}
	err = each(b.Holds.Updated, func(h *metering.HoldRow) error {
		return w.updateHold.msat(h.Amount).blob(h.Owner[:]).blob(h.ID[:]).run()
	})
	if err != nil {
		return err
	}
	return each(b.Holds.Deleted, func(h *metering.HoldRow) error { return w.deleteHold.blob(h.ID[:]).run() })
}

func (w *writer) saveCharges(b *metering.Batch) error {
	err := each(b.Charges.Inserted, func(c *metering.ChargeRow) error {
		return w.insertCharge.blob(c.Hold[:]).blob(c.Account[:]).id(c.Prev[:]).int(c.At).text(c.Service).text(c.Model).
			id(c.Chain[:]).text(string(c.Source)).text(string(c.Outcome)).text(c.Backend).blob(c.Usage).bool(c.Clamped).
			int(c.Delivered).msat(c.Amount).msat(c.Charged).msat(c.Unbilled).int(c.Epoch).blob(c.Rates).
			bool(c.Provisional).id(c.Lock[:]).id(c.ChainPrev[:]).moment(int64(c.Checksum)).run()
	})
	if err != nil {
		return err
	}
	return each(b.Charges.Updated, func(c *metering.ChargeRow) error {
		return w.updateCharge.int(c.At).text(string(c.Source)).text(string(c.Outcome)).text(c.Backend).blob(c.Usage).
			bool(c.Clamped).int(c.Delivered).msat(c.Charged).msat(c.Unbilled).bool(c.Provisional).blob(c.Hold[:]).run()
	})
}

func (w *writer) saveDeposits(b *metering.Batch) error {
	return each(b.Deposits.Upserted, func(d *metering.DepositRow) error {
		return w.saveDeposit.blob(d.Hash[:]).blob(d.Account[:]).msat(d.Credited).moment(d.Presented).moment(d.Settled).
			text(d.Node).int(int64(d.Index)).msat(d.Covered).moment(d.Doubted).msat(d.Owed).run()
	})
}

// saveLimits writes rate windows and idempotency keys.
func (w *writer) saveLimits(b *metering.Batch) error {
	err := each(b.Windows.Upserted, func(r *metering.WindowRow) error {
		return w.saveRate.blob(r.ID[:]).int(r.Window).int(r.Count).int(r.Previous).run()
	})
	if err != nil {
		return err
	}
	err = each(b.Keys.Upserted, func(k *metering.KeyRow) error {
		return w.saveKey.blob(k.Account[:]).blob(k.Key[:]).blob(k.Body[:]).blob(k.Hold[:]).bool(k.Charged).int(k.Expires).run()
	})
	if err != nil {
		return err
	}
	return each(b.Keys.Deleted, func(k *metering.KeyRow) error {
		return w.deleteKey.blob(k.Account[:]).blob(k.Key[:]).run()
	})
}

// saveLines appends transfers, budget lines and adjustments.
func (w *writer) saveLines(b *metering.Batch) error {
	for i := range b.Transfers {
		t := &b.Transfers[i]
		if err := w.insertTransfer.int(int64(t.Kind)).blob(t.Debit).blob(t.Credit).msat(t.Amount).blob(t.Ref).int(t.At).run(); err != nil {
			return err
		}
	}
	for i := range b.BudgetLines {
		l := &b.BudgetLines[i]
		if err := w.insertBudgetLine.blob(l.Budget[:]).blob(l.Hold[:]).msat(l.Amount).int(l.At).run(); err != nil {
			return err
		}
	}
	return each(b.Adjustments.Inserted, func(a *metering.AdjustmentRow) error {
		return w.insertAdjustment.blob(a.ID[:]).blob(a.Account[:]).msat(a.Delta).text(a.Reason).int(a.At).run()
	})
}

func (w *writer) saveCursors(b *metering.Batch) error {
	return each(b.Cursors.Upserted, func(c *metering.CursorRow) error {
		return w.saveCursor.text(c.Node).int(int64(c.Index)).id(c.Hash[:]).int(c.Since).run()
	})
}
