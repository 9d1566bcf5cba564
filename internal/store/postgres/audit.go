package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"sluice/metering"
)

// The lines of a transfer, one per side: what enters is positive.
const auditLines = `SELECT credit AS account, kind, amount FROM transfers UNION ALL SELECT debit, kind, -amount FROM transfers`

// auditAccounts joins each account with the sums of everything that refers to
// it. The server groups and joins on its disk when memory does not do.
const auditAccounts = `
WITH l AS (SELECT account,
		sum(amount) FILTER (WHERE kind = 1)::bigint AS deposits,
		-sum(amount) FILTER (WHERE kind IN (2, 3))::bigint AS charges,
		sum(amount) FILTER (WHERE kind = 4)::bigint AS adjustments
		FROM (` + auditLines + `) AS lines GROUP BY account),
	d AS (SELECT account, sum(credited)::bigint AS total FROM deposits GROUP BY account),
	c AS (SELECT account, sum(charged)::bigint AS total, sum(unbilled)::bigint AS unbilled FROM charges GROUP BY account),
	j AS (SELECT account, sum(delta)::bigint AS total FROM adjustments GROUP BY account),
	h AS (SELECT account, sum(amount)::bigint AS total FROM holds GROUP BY account),
	b AS (SELECT account, count(*) AS total FROM budgets WHERE parent IS NULL AND (spent < max_spend OR held > 0 OR valid_until = 0) GROUP BY account)
SELECT a.id, a.status, a.available, a.held, a.deposited, a.charged, a.adjusted, a.budgets, a.last_charge, a.xmin,
	l.deposits, l.charges, l.adjustments, d.total, c.total, c.unbilled, j.total, h.total, b.total
FROM accounts a LEFT JOIN l ON l.account = a.id LEFT JOIN d ON d.account = a.id LEFT JOIN c ON c.account = a.id
	LEFT JOIN j ON j.account = a.id LEFT JOIN h ON h.account = a.id LEFT JOIN b ON b.account = a.id`

// auditOrphans names rows of accounts that do not exist. Accounts' ids are 32
// bytes; the ledger's own books have shorter names.
const auditOrphans = `
SELECT 'a ' || kind || ' of an account that does not exist: ' || encode(account, 'hex') FROM (
	SELECT 'transfer' AS kind, credit AS account FROM transfers UNION SELECT 'transfer', debit FROM transfers
	UNION SELECT 'deposit', account FROM deposits UNION SELECT 'charge', account FROM charges
	UNION SELECT 'adjustment', account FROM adjustments UNION SELECT 'hold', account FROM holds
	UNION SELECT 'budget', account FROM budgets
) AS refs WHERE account NOT IN ('lightning'::bytea, 'revenue'::bytea, 'adjustments'::bytea)
	AND NOT EXISTS (SELECT 1 FROM accounts WHERE id = account)`

const auditBudgets = `
SELECT coalesce(b.id, l.budget), b.account, b.max_spend, b.spent, b.held, b.parent, b.children, b.valid_until, b.last_charge, l.total, b.id IS NOT NULL
FROM budgets b FULL JOIN (SELECT budget, sum(amount)::bigint AS total FROM budget_lines GROUP BY budget) l ON l.budget = b.id`

// auditLocks pairs what each payment's lock covers with what was charged under
// it. A charge of another account stands alone.
const auditLocks = `
SELECT coalesce(d.hash, c.rate_lock), coalesce(d.account, c.account), d.covered, c.total
FROM (SELECT hash, account, covered FROM deposits WHERE covered <> 0) d
	FULL JOIN (SELECT rate_lock, account, sum(charged)::bigint AS total FROM charges WHERE rate_lock IS NOT NULL
		GROUP BY rate_lock, account) c ON c.rate_lock = d.hash AND c.account = d.account`

const auditBooks = `
SELECT account, sum(amount)::bigint FROM (` + auditLines + `) AS lines
WHERE account IN ('lightning'::bytea, 'revenue'::bytea, 'adjustments'::bytea) GROUP BY account`

// Audit streams one snapshot.
func (d *DB) Audit(ctx context.Context, sink metering.AuditSink) error {
	return d.snapshot(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
			return err
		}
		for _, part := range []struct {
			sql string
			row func(raw) error
		}{
			{`SELECT ` + holdColumns + ` FROM holds`, func(r raw) error { return sink.Hold(readHold(r)) }},
			{auditAccounts, func(r raw) error { return sink.Account(readAuditAccount(r)) }},
			{auditBudgets, func(r raw) error { return sink.Budget(readAuditBudget(r)) }},
			{auditLocks, func(r raw) error { return sink.Lock(readAuditLock(r)) }},
			{auditBooks, func(r raw) error { return sink.Book(r.text(0), r.msat(1)) }},
			{auditOrphans, func(r raw) error { return sink.Orphan(r.text(0)) }},
		} {
			if err := each(ctx, tx, part.row, part.sql); err != nil {
				return err
			}
		}
		return nil
	})
}

// readAuditAccount reads a row of auditAccounts; NULL is 0.
func readAuditAccount(r raw) metering.AuditAccount {
	return metering.AuditAccount{AccountRow: readAccount(r), LineDeposits: r.msat(10), LineCharges: r.msat(11),
		LineAdjustments: r.msat(12), DepositRows: r.msat(13), ChargeRows: r.msat(14), UnbilledRows: r.msat(15),
		AdjustmentRows: r.msat(16), HoldRows: r.msat(17), BudgetRows: r.int(18)}
}

func readAuditBudget(r raw) metering.AuditBudget {
	return metering.AuditBudget{BudgetRow: readBudget(r), Lines: r.msat(9), Found: r.bool(10)}
}

func readAuditLock(r raw) metering.AuditLock {
	l := metering.AuditLock{Covered: r.msat(2), Charges: r.msat(3)}
	r.id(0, l.Hash[:])
	r.id(1, l.Account[:])
	return l
}
