package sqlite

import (
	"context"
	"errors"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// SQLite begins its log anew only at a moment when no connection reads from the log. The snapshots of an audit follow
// one another closely. So after every breathEvery the next Look waits for such a moment, for at most breathMost. It
// does not wait while the log is short.
const (
	breathEvery = 200 * time.Millisecond
	breathMost  = time.Second
	breathBeat  = 5 * time.Millisecond
	shortLog    = 2000 // pages
)

// Look runs fn over one snapshot.
func (d *DB) Look(ctx context.Context, fn func(metering.Snapshot) error) error {
	if now := time.Now().UnixNano(); now-d.breath.Load() > int64(breathEvery) {
		if err := d.breathe(ctx); err != nil {
			return err
		}
		d.breath.Store(time.Now().UnixNano())
	}
	return d.read(ctx, func(r *reader) error { return fn(snapshot{r}) })
}

// breathe copies the log into the database again and again, as far as other readers allow. It returns once the log is
// short. It also returns after breathMost, and when the log has kept its length since the last attempt, because without
// writes the log does not begin anew.
func (d *DB) breathe(ctx context.Context) error {
	var r *reader
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.closed:
		return errors.New("sqlite: closed")
	case r = <-d.pool:
	}
	defer func() { d.pool <- r }()
	before := int64(-1)
	for end := time.Now().Add(breathMost); time.Now().Before(end); {
		var pages int64
		err := r.query("PRAGMA wal_checkpoint(PASSIVE)", nil, func(s *stmt) error {
			pages = s.colInt(1)
			return nil
		})
		if err != nil || pages < shortLog || pages == before {
			return err
		}
		before = pages
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(breathBeat):
		}
	}
	return nil
}

// Cutoff returns the numbers of the last lines, because the only writer commits lines in the order of their numbers.
func (d *DB) Cutoff(ctx context.Context) (p metering.Position, err error) {
	err = d.read(ctx, func(r *reader) error {
		return r.query(`SELECT coalesce((SELECT max(seq) FROM transfers), 0), coalesce((SELECT max(seq) FROM budget_lines), 0)`,
			nil, func(s *stmt) error {
				p.Transfers, p.Budgets = s.colInt(0), s.colInt(1)
				return nil
			})
	})
	return p, err
}

// snapshot reads the books within one transaction.
type snapshot struct{ r *reader }

var _ metering.Snapshot = snapshot{}

// each runs a statement and calls row for each of its rows.
func (v snapshot) each(sql string, bind func(*stmt), row func(*stmt)) error {
	return v.r.query(sql, bind, func(s *stmt) error {
		row(s)
		return nil
	})
}

// Transfers reads transfers in order of their numbers.
func (v snapshot) Transfers(after, upto int64, limit int, fn func(int64, metering.TransferRow)) error {
	return v.each(`SELECT seq, kind, debit, credit, amount, ref, at FROM transfers WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?`,
		func(s *stmt) { s.int(after).int(upto).int(int64(limit)) }, func(s *stmt) {
			fn(s.colInt(0), metering.TransferRow{Kind: metering.TransferKind(s.colInt(1)), Debit: s.colBytes(2), Credit: s.colBytes(3),
				Amount: l402.Msat(s.colInt(4)), Ref: s.colBytes(5), At: s.colInt(6)})
		})
}

// BudgetLines reads lines of budgets in order of their numbers.
func (v snapshot) BudgetLines(after, upto int64, limit int, fn func(int64, metering.BudgetLine)) error {
	return v.each(`SELECT seq, budget, hold, amount, at FROM budget_lines WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?`,
		func(s *stmt) { s.int(after).int(upto).int(int64(limit)) }, func(s *stmt) {
			l := metering.BudgetLine{Amount: l402.Msat(s.colInt(3)), At: s.colInt(4)}
			s.colID(1, l.Budget[:])
			s.colID(2, l.Hold[:])
			fn(s.colInt(0), l)
		})
}

const (
	auditAccounts    = `SELECT id, status, available, held, deposited, charged, adjusted, budgets, last_charge FROM accounts WHERE id `
	auditBudgets     = `SELECT ` + budgetColumns + `, id FROM budgets WHERE `
	auditAdjustments = `SELECT account, delta, reason, at, id FROM adjustments WHERE id `
)

func auditAccount(s *stmt) metering.AccountRow {
	var id l402.TokenID
	s.colID(0, id[:])
	return readAccount(s, 1, id)
}

func auditBudget(s *stmt) metering.BudgetRow {
	var id [32]byte
	s.colID(9, id[:])
	return readBudget(s, id)
}

func auditAdjustment(s *stmt) metering.AdjustmentRow {
	r := metering.AdjustmentRow{Delta: l402.Msat(s.colInt(1)), Reason: s.colText(2), At: s.colInt(3)}
	s.colID(0, r.Account[:])
	s.colID(4, r.ID[:])
	return r
}

// from binds the first id and the number of rows.
func from(id []byte, limit int) func(*stmt) {
	return func(s *stmt) { s.blob(id).int(int64(limit)) }
}

// Accounts reads accounts in order of ids, from the given id.
func (v snapshot) Accounts(id l402.TokenID, limit int, fn func(metering.AccountRow)) error {
	return v.each(auditAccounts+`>= ? ORDER BY id LIMIT ?`, from(id[:], limit), func(s *stmt) { fn(auditAccount(s)) })
}

// Budgets reads budgets in order of ids, from the given id.
func (v snapshot) Budgets(id [32]byte, limit int, fn func(metering.BudgetRow)) error {
	return v.each(auditBudgets+`id >= ? ORDER BY id LIMIT ?`, from(id[:], limit), func(s *stmt) { fn(auditBudget(s)) })
}

// Deposits reads payments in order of hashes, from the given hash.
func (v snapshot) Deposits(h l402.PaymentHash, limit int, fn func(metering.DepositRow)) error {
	return v.each(`SELECT `+depositColumns+` FROM deposits WHERE hash >= ? ORDER BY hash LIMIT ?`, from(h[:], limit),
		func(s *stmt) { fn(readDeposit(s)) })
}

// Charges reads charges in order of their holds, from the given hold.
func (v snapshot) Charges(id metering.HoldID, limit int, fn func(metering.ChargeRow)) error {
	return v.each(`SELECT `+chargeColumns+` FROM charges WHERE hold >= ? ORDER BY hold LIMIT ?`, from(id[:], limit),
		func(s *stmt) { fn(readCharge(s)) })
}

// Adjustments reads adjustments in order of ids, from the given id.
func (v snapshot) Adjustments(id metering.HoldID, limit int, fn func(metering.AdjustmentRow)) error {
	return v.each(auditAdjustments+`>= ? ORDER BY id LIMIT ?`, from(id[:], limit), func(s *stmt) { fn(auditAdjustment(s)) })
}

// Holds reads all open holds.
func (v snapshot) Holds(fn func(metering.HoldRow)) error {
	return v.each(`SELECT `+holdColumns+` FROM holds`, nil, func(s *stmt) { fn(readHoldRow(s)) })
}

// lookUps runs a statement once for each id. In a B-tree within the same process this is cheaper than a statement with
// a list.
func lookUps[ID any](v snapshot, ids []ID, sql string, bytes func(*ID) []byte, row func(*stmt)) error {
	for i := range ids {
		if err := v.each(sql, func(s *stmt) { s.blob(bytes(&ids[i])) }, row); err != nil {
			return err
		}
	}
	return nil
}

func tokenBytes(id *l402.TokenID) []byte      { return id[:] }
func paymentBytes(h *l402.PaymentHash) []byte { return h[:] }
func holdBytes(id *metering.HoldID) []byte    { return id[:] }

// AccountsOf reads accounts by their ids.
func (v snapshot) AccountsOf(ids []l402.TokenID, fn func(metering.AccountRow)) error {
	return lookUps(v, ids, auditAccounts+`= ?`, tokenBytes, func(s *stmt) { fn(auditAccount(s)) })
}

// BudgetsOf reads the budgets of accounts.
func (v snapshot) BudgetsOf(ids []l402.TokenID, fn func(metering.BudgetRow)) error {
	return lookUps(v, ids, auditBudgets+`account = ?`, tokenBytes, func(s *stmt) { fn(auditBudget(s)) })
}

// DepositsOf reads payments by their hashes.
func (v snapshot) DepositsOf(ids []l402.PaymentHash, fn func(metering.DepositRow)) error {
	return lookUps(v, ids, `SELECT `+depositColumns+` FROM deposits WHERE hash = ?`, paymentBytes, func(s *stmt) { fn(readDeposit(s)) })
}

// ChargesOf reads charges by their holds.
func (v snapshot) ChargesOf(ids []metering.HoldID, fn func(metering.ChargeRow)) error {
	return lookUps(v, ids, `SELECT `+chargeColumns+` FROM charges WHERE hold = ?`, holdBytes, func(s *stmt) { fn(readCharge(s)) })
}

// AdjustmentsOf reads adjustments by their ids.
func (v snapshot) AdjustmentsOf(ids []metering.HoldID, fn func(metering.AdjustmentRow)) error {
	return lookUps(v, ids, auditAdjustments+`= ?`, holdBytes, func(s *stmt) { fn(auditAdjustment(s)) })
}

func readTally(s *stmt) metering.Tally {
	return metering.Tally{Subject: metering.SubjectOf(s.colRaw(0)), Upto: s.colInt(4),
		Sums: metering.Sums{l402.Msat(s.colInt(1)), l402.Msat(s.colInt(2)), l402.Msat(s.colInt(3))}}
}

// Tallies reads running sums.
func (v snapshot) Tallies(ids []metering.Subject, fn func(metering.Tally)) error {
	for i := range ids {
		key := ids[i].Key()
		err := v.each(`SELECT id, a, b, c, upto FROM audited WHERE id = ?`, func(s *stmt) { s.blob(key[:]) },
			func(s *stmt) { fn(readTally(s)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// SealedTallies reads the sums of closed periods.
func (v snapshot) SealedTallies(period int64, ids []metering.Subject, fn func(metering.Tally)) error {
	for i := range ids {
		key := ids[i].Key()
		err := v.each(`SELECT id, a, b, c, upto FROM sealed WHERE id = ? AND period <= ? ORDER BY period DESC LIMIT 1`,
			func(s *stmt) { s.blob(key[:]).int(period) }, func(s *stmt) { fn(readTally(s)) })
		if err != nil {
			return err
		}
	}
	return nil
}
