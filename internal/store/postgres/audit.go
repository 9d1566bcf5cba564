package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"sluice.example/sluice/internal/backoff"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// Look runs fn over one snapshot.
func (d *DB) Look(ctx context.Context, fn func(metering.Snapshot) error) error {
	return d.snapshot(ctx, func(tx pgx.Tx) error { return fn(books{ctx, tx}) })
}

// How long and how often Cutoff waits for the transactions that were given line numbers before.
const (
	cutoffLimit = 20 * time.Second
	cutoffBeat  = 2 * time.Millisecond
)

// Cutoff returns numbers up to which all lines are visible or will never exist. The server gives out a number when a
// line is inserted, but the line becomes visible when its transaction commits. So a smaller number may appear after a
// larger number. Every transaction that appends lines locks an account first, which gives the transaction its id before
// its first line number. So all transactions with numbers up to the largest visible number have smaller ids than a
// transaction that begins afterwards. When none of these transactions runs any more, no line can appear. (Cutoff cannot
// use the snapshot's own upper bound. That bound follows the last transaction that has ended, and a transaction that
// still runs may have a larger id.)
func (d *DB) Cutoff(ctx context.Context) (p metering.Position, err error) {
	var id int64
	err = each(ctx, d.pool, func(r raw) error {
		p.Transfers, p.Budgets, id = r.int(0), r.int(1), r.int(2)
		return nil
	}, `SELECT coalesce((SELECT max(seq) FROM transfers), 0), coalesce((SELECT max(seq) FROM budget_lines), 0),
		pg_current_xact_id()::text::bigint`)
	if err != nil {
		return p, err
	}
	began := time.Now()
	for pause := backoff.New(cutoffBeat, time.Second); ; {
		var oldest int64
		err := each(ctx, d.pool, func(r raw) error {
			oldest = r.int(0)
			return nil
		}, `SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint`)
		if err != nil || oldest >= id {
			return p, err
		}
		if time.Since(began) > cutoffLimit {
			return p, fmt.Errorf("%w: transaction %d of this server has been open for %s", metering.ErrConflict, oldest, cutoffLimit)
		}
		if err := pause.Wait(ctx); err != nil {
			return p, err
		}
	}
}

// books reads the rows of one snapshot.
type books struct {
	ctx context.Context
	tx  pgx.Tx
}

var _ metering.Snapshot = books{}

func (v books) each(row func(raw), sql string, args ...any) error {
	return each(v.ctx, v.tx, func(r raw) error {
		row(r)
		return nil
	}, sql, args...)
}

// Transfers reads transfers in order of their numbers.
func (v books) Transfers(after, upto int64, limit int, fn func(int64, metering.TransferRow)) error {
	return v.each(func(r raw) {
		fn(r.int(0), metering.TransferRow{Kind: metering.TransferKind(r.int(1)), Debit: r.bytes(2), Credit: r.bytes(3),
			Amount: r.msat(4), Ref: r.bytes(5), At: r.int(6)})
	}, `SELECT seq, kind, debit, credit, amount, ref, at FROM transfers WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3`, after, upto, limit)
}

// BudgetLines reads lines of budgets in order of their numbers.
func (v books) BudgetLines(after, upto int64, limit int, fn func(int64, metering.BudgetLine)) error {
	return v.each(func(r raw) {
		l := metering.BudgetLine{Amount: r.msat(3), At: r.int(4)}
		r.id(1, l.Budget[:])
		r.id(2, l.Hold[:])
		fn(r.int(0), l)
	}, `SELECT seq, budget, hold, amount, at FROM budget_lines WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3`, after, upto, limit)
}

func readAdjustment(r raw) metering.AdjustmentRow {
	x := metering.AdjustmentRow{Delta: r.msat(2), Reason: r.text(3), At: r.int(4)}
	r.id(0, x.ID[:])
	r.id(1, x.Account[:])
	return x
}

// Accounts reads accounts in order of ids, from the given id.
func (v books) Accounts(id l402.TokenID, limit int, fn func(metering.AccountRow)) error {
	return v.each(func(r raw) { fn(readAccount(r)) },
		`SELECT `+accountColumns+` FROM accounts WHERE id >= $1 ORDER BY id LIMIT $2`, id[:], limit)
}

// Budgets reads budgets in order of ids, from the given id.
func (v books) Budgets(id [32]byte, limit int, fn func(metering.BudgetRow)) error {
	return v.each(func(r raw) { fn(readBudget(r)) },
		`SELECT `+budgetColumns+` FROM budgets WHERE id >= $1 ORDER BY id LIMIT $2`, id[:], limit)
}

// Deposits reads payments in order of hashes, from the given hash.
func (v books) Deposits(h l402.PaymentHash, limit int, fn func(metering.DepositRow)) error {
	return v.each(func(r raw) { fn(readDeposit(r)) },
		`SELECT `+depositColumns+` FROM deposits WHERE hash >= $1 ORDER BY hash LIMIT $2`, h[:], limit)
}

// Charges reads charges in order of their holds, from the given hold.
func (v books) Charges(id metering.HoldID, limit int, fn func(metering.ChargeRow)) error {
	return v.each(func(r raw) { fn(readCharge(r)) },
		`SELECT `+chargeColumns+` FROM charges WHERE hold >= $1 ORDER BY hold LIMIT $2`, uuid(id), limit)
}

// Adjustments reads adjustments in order of ids, from the given id.
func (v books) Adjustments(id metering.HoldID, limit int, fn func(metering.AdjustmentRow)) error {
	return v.each(func(r raw) { fn(readAdjustment(r)) },
		`SELECT id, account, delta, reason, at FROM adjustments WHERE id >= $1 ORDER BY id LIMIT $2`, uuid(id), limit)
}

// Holds reads all open holds.
func (v books) Holds(fn func(metering.HoldRow)) error {
	return v.each(func(r raw) { fn(readHold(r)) }, `SELECT `+holdColumns+` FROM holds`)
}

// list converts ids to a slice of the type that a statement's parameter takes.
func list[ID, V any](ids []ID, value func(*ID) V) []V {
	out := make([]V, len(ids))
	for i := range ids {
		out[i] = value(&ids[i])
	}
	return out
}

func tokenList(ids []l402.TokenID) [][]byte {
	return list(ids, func(id *l402.TokenID) []byte { return id[:] })
}

func holdList(ids []metering.HoldID) []pgtype.UUID {
	return list(ids, func(id *metering.HoldID) pgtype.UUID { return uuid(*id) })
}

// subjectList returns the keys of subjects.
func subjectList(ids []metering.Subject) [][]byte {
	return list(ids, func(s *metering.Subject) []byte { k := s.Key(); return k[:] })
}

// AccountsOf reads accounts by their ids.
func (v books) AccountsOf(ids []l402.TokenID, fn func(metering.AccountRow)) error {
	if len(ids) == 0 {
		return nil
	}
	return v.each(func(r raw) { fn(readAccount(r)) }, `SELECT `+accountColumns+` FROM accounts WHERE id = ANY($1)`, tokenList(ids))
}

// BudgetsOf reads the budgets of accounts.
func (v books) BudgetsOf(ids []l402.TokenID, fn func(metering.BudgetRow)) error {
	if len(ids) == 0 {
		return nil
	}
	return v.each(func(r raw) { fn(readBudget(r)) }, `SELECT `+budgetColumns+` FROM budgets WHERE account = ANY($1)`, tokenList(ids))
}

// DepositsOf reads payments by their hashes.
func (v books) DepositsOf(ids []l402.PaymentHash, fn func(metering.DepositRow)) error {
	if len(ids) == 0 {
		return nil
	}
	return v.each(func(r raw) { fn(readDeposit(r)) }, `SELECT `+depositColumns+` FROM deposits WHERE hash = ANY($1)`,
		list(ids, func(h *l402.PaymentHash) []byte { return h[:] }))
}

// ChargesOf reads charges by their holds.
func (v books) ChargesOf(ids []metering.HoldID, fn func(metering.ChargeRow)) error {
	if len(ids) == 0 {
		return nil
	}
	return v.each(func(r raw) { fn(readCharge(r)) }, `SELECT `+chargeColumns+` FROM charges WHERE hold = ANY($1)`, holdList(ids))
}

// AdjustmentsOf reads adjustments by their ids.
func (v books) AdjustmentsOf(ids []metering.HoldID, fn func(metering.AdjustmentRow)) error {
	if len(ids) == 0 {
		return nil
	}
	return v.each(func(r raw) { fn(readAdjustment(r)) },
		`SELECT id, account, delta, reason, at FROM adjustments WHERE id = ANY($1)`, holdList(ids))
}

func readTally(r raw) metering.Tally {
	return metering.Tally{Subject: metering.SubjectOf(r[0]), Sums: metering.Sums{r.msat(1), r.msat(2), r.msat(3)}, Upto: r.int(4)}
}

// Tallies reads running sums.
func (v books) Tallies(ids []metering.Subject, fn func(metering.Tally)) error {
	return v.each(func(r raw) { fn(readTally(r)) }, `SELECT id, a, b, c, upto FROM audited WHERE id = ANY($1)`, subjectList(ids))
}

// SealedTallies reads the sums of closed periods.
func (v books) SealedTallies(period int64, ids []metering.Subject, fn func(metering.Tally)) error {
	return v.each(func(r raw) { fn(readTally(r)) }, `SELECT s.* FROM unnest($1::bytea[]) AS u (id) CROSS JOIN LATERAL (
		SELECT id, a, b, c, upto FROM sealed WHERE id = u.id AND period <= $2 ORDER BY period DESC LIMIT 1) AS s`, subjectList(ids), period)
}
