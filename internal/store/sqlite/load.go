package sqlite

import (
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// load reads all rows that the batch names.
func (w *writer) load(b *metering.Batch) error {
	for _, part := range []func(*metering.Batch) error{w.loadAccounts, w.loadBudgets, w.loadHolds, w.loadCharges,
		w.loadDeposits, w.loadRates, w.loadKeys, w.loadAdjustments, w.loadCursors} {
		if err := part(b); err != nil {
			return err
		}
	}
	return nil
}

// loadEach looks up each key of a table by itself. In a B-tree within the same process this is cheaper than a statement
// with a list.
func loadEach[K comparable, R any](t *metering.Table[K, R], s *stmt, bind func(K), row func(K) R) (err error) {
	t.Missing(func(k K) bool {
		bind(k)
		var found bool
		if found, err = s.step(); found {
			t.Loaded(k, row(k))
			s.reset()
		}
		return err == nil
	})
	return err
}

func (w *writer) loadAccounts(b *metering.Batch) error {
	s := w.loadAccount
	return loadEach(&b.Accounts, s, func(k l402.TokenID) { s.blob(k[:]) }, func(k l402.TokenID) metering.AccountRow {
		return readAccount(s, 0, k)
	})
}

// readAccount reads the columns from status to last_charge.
func readAccount(s *stmt, at int32, id l402.TokenID) metering.AccountRow {
	a := metering.AccountRow{ID: id, Status: metering.Status(s.colInt(at)), Available: l402.Msat(s.colInt(at + 1)),
		Held: l402.Msat(s.colInt(at + 2)), Deposited: l402.Msat(s.colInt(at + 3)), Charged: l402.Msat(s.colInt(at + 4)),
		Adjusted: l402.Msat(s.colInt(at + 5)), Budgets: s.colInt(at + 6)}
	s.colID(at+7, a.Last[:])
	return a
}

func (w *writer) loadBudgets(b *metering.Batch) error {
	s := w.loadBudget
	return loadEach(&b.Budgets, s, func(k [32]byte) { s.blob(k[:]) }, func(k [32]byte) metering.BudgetRow {
		return readBudget(s, k)
	})
}

func readBudget(s *stmt, id [32]byte) metering.BudgetRow {
	r := metering.BudgetRow{ID: id, Limit: l402.Msat(s.colInt(1)), Spent: l402.Msat(s.colInt(2)), Held: l402.Msat(s.colInt(3)),
		Children: s.colInt(5), ValidUntil: s.colInt(6), Checksum: int32(s.colInt(8))}
	s.colID(0, r.Account[:])
	s.colID(4, r.Parent[:])
	s.colID(7, r.Last[:])
	return r
}

func (w *writer) loadHolds(b *metering.Batch) error {
	s := w.loadHold
	return loadEach(&b.Holds, s, func(k metering.HoldID) { s.blob(k[:]) }, func(k metering.HoldID) metering.HoldRow {
		return readHold(s, 0, k)
	})
}

// readHold reads the columns from account to source.
func readHold(s *stmt, at int32, id metering.HoldID) metering.HoldRow {
	h := metering.HoldRow{ID: id, Amount: l402.Msat(s.colInt(at + 1)), Context: s.colBytes(at + 3),
		Usage: s.colBytes(at + 4), Source: metering.Source(s.colText(at + 5))}
	s.colID(at, h.Account[:])
	s.colID(at+2, h.Owner[:])
	return h
}

func (w *writer) loadCharges(b *metering.Batch) error {
	s := w.loadCharge
	return loadEach(&b.Charges, s, func(k metering.HoldID) { s.blob(k[:]) }, func(metering.HoldID) metering.ChargeRow {
		return readCharge(s)
	})
}

// readCharge reads chargeColumns.
func readCharge(s *stmt) metering.ChargeRow {
	c := metering.ChargeRow{At: s.colInt(3), Service: s.colText(4), Model: s.colText(5),
		Source: metering.Source(s.colText(7)), Outcome: metering.Outcome(s.colText(8)), Backend: s.colText(9),
		Usage: s.colBytes(10), Clamped: s.colInt(11) != 0, Delivered: s.colInt(12), Amount: l402.Msat(s.colInt(13)),
		Charged: l402.Msat(s.colInt(14)), Unbilled: l402.Msat(s.colInt(15)), Epoch: s.colInt(16),
		Rates: s.colBytes(17), Provisional: s.colInt(18) != 0, Checksum: int32(s.colInt(21))}
	s.colID(0, c.Hold[:])
	s.colID(1, c.Account[:])
	s.colID(2, c.Prev[:])
	s.colID(6, c.Chain[:])
	s.colID(19, c.Lock[:])
	s.colID(20, c.ChainPrev[:])
	return c
}

func (w *writer) loadDeposits(b *metering.Batch) error {
	s := w.loadDeposit
	return loadEach(&b.Deposits, s, func(k l402.PaymentHash) { s.blob(k[:]) }, func(l402.PaymentHash) metering.DepositRow {
		return readDeposit(s)
	})
}

// readDeposit reads depositColumns.
func readDeposit(s *stmt) metering.DepositRow {
	d := metering.DepositRow{Credited: l402.Msat(s.colInt(2)), Presented: s.colInt(3), Settled: s.colInt(4),
		Node: s.colText(5), Index: uint64(s.colInt(6)), Covered: l402.Msat(s.colInt(7)),
		Doubted: s.colInt(8), Owed: l402.Msat(s.colInt(9))}
	s.colID(0, d.Hash[:])
	s.colID(1, d.Account[:])
	return d
}

func (w *writer) loadRates(b *metering.Batch) error {
	s := w.loadRate
	return loadEach(&b.Windows, s, func(k [32]byte) { s.blob(k[:]) }, func(k [32]byte) metering.WindowRow {
		return metering.WindowRow{ID: k, Window: s.colInt(0), Count: s.colInt(1), Previous: s.colInt(2)}
	})
}

func (w *writer) loadKeys(b *metering.Batch) error {
	s := w.loadKey
	return loadEach(&b.Keys, s, func(k metering.KeyID) { s.blob(k.Account[:]).blob(k.Key[:]) }, func(k metering.KeyID) metering.KeyRow {
		r := metering.KeyRow{KeyID: k, Charged: s.colInt(2) != 0, Expires: s.colInt(3)}
		s.colID(0, r.Body[:])
		s.colID(1, r.Hold[:])
		return r
	})
}

func (w *writer) loadAdjustments(b *metering.Batch) error {
	s := w.loadAdjustment
	return loadEach(&b.Adjustments, s, func(k metering.HoldID) { s.blob(k[:]) }, func(k metering.HoldID) metering.AdjustmentRow {
		r := metering.AdjustmentRow{ID: k, Delta: l402.Msat(s.colInt(1)), Reason: s.colText(2), At: s.colInt(3)}
		s.colID(0, r.Account[:])
		return r
	})
}

func (w *writer) loadCursors(b *metering.Batch) error {
	s := w.loadCursor
	return loadEach(&b.Cursors, s, func(k string) { s.text(k) }, func(k string) metering.CursorRow {
		return readCursor(s, k)
	})
}

func readCursor(s *stmt, node string) metering.CursorRow {
	c := metering.CursorRow{Node: node, Index: uint64(s.colInt(0)), Since: s.colInt(2)}
	s.colID(1, c.Hash[:])
	return c
}
