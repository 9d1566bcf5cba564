package storetest

import (
	"context"
	"sync"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// rogue shows audits other rows than the store has.
type rogue struct {
	metering.StoreReader
	mu   sync.Mutex
	rows rogueRows
}

// rogueRows changes the rows of each kind. A nil function changes nothing.
type rogueRows struct {
	account    func(*metering.AccountRow)
	budget     func(*metering.BudgetRow)
	hold       func(*metering.HoldRow)
	charge     func(*metering.ChargeRow)
	deposit    func(*metering.DepositRow)
	adjustment func(*metering.AdjustmentRow)
	transfer   func(*metering.TransferRow)
	budgetLine func(*metering.BudgetLine)
}

func (r *rogue) set(rows rogueRows) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = rows
}

func (r *rogue) Look(ctx context.Context, fn func(metering.Snapshot) error) error {
	r.mu.Lock()
	rows := r.rows
	r.mu.Unlock()
	return r.StoreReader.Look(ctx, func(s metering.Snapshot) error { return fn(rogueSnapshot{s, rows}) })
}

// rogueStore is a store whose audits see the rows that a rogue shows.
type rogueStore struct {
	metering.Store
	rogue rogue
}

func (r *rogueStore) Look(ctx context.Context, fn func(metering.Snapshot) error) error {
	return r.rogue.Look(ctx, fn)
}

type rogueSnapshot struct {
	metering.Snapshot
	rows rogueRows
}

// changed returns a function that calls fn with each row after change has changed the row.
func changed[R any](change func(*R), fn func(R)) func(R) {
	return func(row R) {
		if change != nil {
			change(&row)
		}
		fn(row)
	}
}

func (s rogueSnapshot) Transfers(after, upto int64, limit int, fn func(int64, metering.TransferRow)) error {
	return s.Snapshot.Transfers(after, upto, limit, func(seq int64, t metering.TransferRow) {
		changed(s.rows.transfer, func(t metering.TransferRow) { fn(seq, t) })(t)
	})
}

func (s rogueSnapshot) BudgetLines(after, upto int64, limit int, fn func(int64, metering.BudgetLine)) error {
	return s.Snapshot.BudgetLines(after, upto, limit, func(seq int64, l metering.BudgetLine) {
		changed(s.rows.budgetLine, func(l metering.BudgetLine) { fn(seq, l) })(l)
	})
}

func (s rogueSnapshot) Accounts(id l402.TokenID, limit int, fn func(metering.AccountRow)) error {
	return s.Snapshot.Accounts(id, limit, changed(s.rows.account, fn))
}

func (s rogueSnapshot) AccountsOf(ids []l402.TokenID, fn func(metering.AccountRow)) error {
	return s.Snapshot.AccountsOf(ids, changed(s.rows.account, fn))
}

func (s rogueSnapshot) Budgets(id [32]byte, limit int, fn func(metering.BudgetRow)) error {
	return s.Snapshot.Budgets(id, limit, changed(s.rows.budget, fn))
}

func (s rogueSnapshot) BudgetsOf(ids []l402.TokenID, fn func(metering.BudgetRow)) error {
	return s.Snapshot.BudgetsOf(ids, changed(s.rows.budget, fn))
}

func (s rogueSnapshot) Deposits(h l402.PaymentHash, limit int, fn func(metering.DepositRow)) error {
	return s.Snapshot.Deposits(h, limit, changed(s.rows.deposit, fn))
}

func (s rogueSnapshot) DepositsOf(ids []l402.PaymentHash, fn func(metering.DepositRow)) error {
	return s.Snapshot.DepositsOf(ids, changed(s.rows.deposit, fn))
}

func (s rogueSnapshot) Charges(id metering.HoldID, limit int, fn func(metering.ChargeRow)) error {
	return s.Snapshot.Charges(id, limit, changed(s.rows.charge, fn))
}

func (s rogueSnapshot) ChargesOf(ids []metering.HoldID, fn func(metering.ChargeRow)) error {
	return s.Snapshot.ChargesOf(ids, changed(s.rows.charge, fn))
}

func (s rogueSnapshot) Adjustments(id metering.HoldID, limit int, fn func(metering.AdjustmentRow)) error {
	return s.Snapshot.Adjustments(id, limit, changed(s.rows.adjustment, fn))
}

func (s rogueSnapshot) AdjustmentsOf(ids []metering.HoldID, fn func(metering.AdjustmentRow)) error {
	return s.Snapshot.AdjustmentsOf(ids, changed(s.rows.adjustment, fn))
}

func (s rogueSnapshot) Holds(fn func(metering.HoldRow)) error {
	return s.Snapshot.Holds(changed(s.rows.hold, fn))
}
