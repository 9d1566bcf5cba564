package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// querier is the pool or one transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// each calls row for each row of a query.
func each(ctx context.Context, q querier, row func(raw) error, sql string, args ...any) error {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.RawValues()); err != nil {
			return err
		}
	}
	return rows.Err()
}

// snapshot runs fn in a transaction in which every statement sees the same rows.
func (d *DB) snapshot(ctx context.Context, fn func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, d.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, fn)
}

// Meta returns the ledger's id and when its database was made.
func (d *DB) Meta(ctx context.Context) (id l402.LedgerID, born time.Time, err error) {
	err = each(ctx, d.pool, func(r raw) error {
		r.id(0, id[:])
		born = time.UnixMicro(r.int(1)).UTC()
		return nil
	}, "SELECT ledger_id, born FROM meta")
	if err == nil && born.IsZero() {
		err = errors.New("the database holds no ledger")
	}
	return id, born, err
}

// Balance reads an account and its budgets in one snapshot.
func (d *DB) Balance(ctx context.Context, id l402.TokenID, budgets []l402.Budget) (a metering.AccountRow, rows []metering.BudgetRow, found bool, err error) {
	a.ID = id
	account := func(q querier) error {
		return each(ctx, q, func(r raw) error {
			a, found = readAccount(r), true
			return nil
		}, `SELECT `+accountColumns+` FROM accounts WHERE id = $1`, id[:])
	}
	if len(budgets) == 0 {
		err = account(d.pool)
		return a, nil, found, err
	}
	ids := make([][]byte, len(budgets))
	for i := range budgets {
		ids[i] = budgets[i].ID[:]
	}
	err = d.snapshot(ctx, func(tx pgx.Tx) error {
		if err := account(tx); err != nil {
			return err
		}
		return each(ctx, tx, func(r raw) error {
			rows = append(rows, readBudget(r))
			return nil
		}, `SELECT `+budgetColumns+` FROM budgets WHERE id = ANY($1)`, ids)
	})
	return a, rows, found, err
}

// Charge finds the charge of a hold.
func (d *DB) Charge(ctx context.Context, hold metering.HoldID) (c metering.ChargeRow, found bool, err error) {
	err = each(ctx, d.pool, func(r raw) error {
		c, found = readCharge(r), true
		return nil
	}, `SELECT `+chargeColumns+` FROM charges WHERE hold = $1`, uuid(hold))
	return c, found, err
}

// Charges follows the account's list, or with a chain the list of one innermost budget.
func (d *DB) Charges(ctx context.Context, account l402.TokenID, chain l402.ChainID, from metering.HoldID, limit int) (list []metering.ChargeRow, err error) {
	next, only, args := "prev", "", []any{uuid(from), account[:], limit}
	if chain != (l402.ChainID{}) {
		next, only, args = "chain_prev", " AND chain = $4", append(args, chain[:])
	}
	err = each(ctx, d.pool, func(r raw) error {
		list = append(list, readCharge(r))
		return nil
	}, `WITH RECURSIVE walk AS (
			SELECT 1 AS place, `+chargeColumns+` FROM charges WHERE hold = $1 AND account = $2`+only+`
			UNION ALL
			SELECT w.place + 1, c.* FROM walk w CROSS JOIN LATERAL (
				SELECT `+chargeColumns+` FROM charges WHERE hold = w.`+next+` AND account = $2`+only+`) c
			WHERE w.place < $3)
		SELECT `+chargeColumns+` FROM walk ORDER BY place`, args...)
	return list, err
}

// ExpiredBudgets looks for budgets that hold nothing and whose tokens have all expired before a moment.
func (d *DB) ExpiredBudgets(ctx context.Context, before int64, after [32]byte, limit int) (list []metering.BudgetRow, next [32]byte, err error) {
	looked := 0
	err = each(ctx, d.pool, func(r raw) error {
		row := readBudget(r)
		looked, next = looked+1, row.ID
		if row.ValidUntil > 0 && row.ValidUntil < before && row.Held == 0 {
			list = append(list, row)
		}
		return nil
	}, `SELECT `+budgetColumns+` FROM budgets WHERE id > $1 ORDER BY id LIMIT $2`, after[:], limit)
	if looked < limit {
		next = [32]byte{}
	}
	return list, next, err
}

// Cursor reads a node's cursor.
func (d *DB) Cursor(ctx context.Context, node string) (c metering.CursorRow, known bool, err error) {
	err = each(ctx, d.pool, func(r raw) error {
		c, known = readCursor(r), true
		return nil
	}, `SELECT node, settle_index, hash, since FROM settle_cursors WHERE node = $1`, node)
	return c, known, err
}

// Deposit finds one payment.
func (d *DB) Deposit(ctx context.Context, h l402.PaymentHash) (row metering.DepositRow, found bool, err error) {
	err = each(ctx, d.pool, func(r raw) error {
		row, found = readDeposit(r), true
		return nil
	}, `SELECT `+depositColumns+` FROM deposits WHERE hash = $1`, h[:])
	return row, found, err
}

// Deposits calls fn with the payments that the filter selects.
func (d *DB) Deposits(ctx context.Context, f metering.DepositFilter, fn func(metering.DepositRow) error) error {
	sql, args := `SELECT `+depositColumns+` FROM deposits`, []any{nil}
	if f.Limit > 0 {
		args[0] = int64(f.Limit)
	}
	switch {
	case f.Unclaimed:
		sql += ` WHERE presented IS NULL AND settled IS NOT NULL ORDER BY settled`
	case !f.Unconfirmed.IsZero():
		sql, args = sql+` WHERE settled IS NULL AND presented < $2`, append(args, f.Unconfirmed.UnixMicro())
		if f.Undoubted {
			sql += ` AND doubted IS NULL`
		}
		if !f.Since.IsZero() {
			sql, args = sql+` AND presented >= $3`, append(args, f.Since.UnixMicro())
		}
		sql += ` ORDER BY presented`
	}
	return each(ctx, d.pool, func(r raw) error { return fn(readDeposit(r)) }, sql+` LIMIT $1`, args...)
}

// Totals sums over all accounts. It sums up the upper and the lower 32 bits of each column separately, so that no sum
// overflows.
func (d *DB) Totals(ctx context.Context) (t metering.Totals, err error) {
	columns := []string{"available", "held", "deposited", "charged", "adjusted"}
	sql := "SELECT count(*)"
	for _, c := range columns {
		sql += fmt.Sprintf(", sum(%s >> 32)::bigint, sum(%s & 4294967295)::bigint", c, c)
	}
	err = each(ctx, d.pool, func(r raw) (err error) {
		t.Accounts = r.int(0)
		for i, into := range []*l402.Msat{&t.Available, &t.Held, &t.Deposited, &t.Charged, &t.Adjusted} {
			if *into, err = metering.Total(r.int(2*i+1), r.int(2*i+2)); err != nil {
				return fmt.Errorf("all accounts: %s: %w", columns[i], err)
			}
		}
		return nil
	}, sql+" FROM accounts")
	return t, err
}
