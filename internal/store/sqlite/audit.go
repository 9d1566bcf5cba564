package sqlite

import (
	"context"

	"sluice/l402"
	"sluice/metering"
)

// The lines of a transfer, one per side: what enters is positive.
const auditLines = `SELECT credit AS account, kind, amount FROM transfers UNION ALL SELECT debit, kind, -amount FROM transfers`

// auditAccounts joins each account with the sums of everything that refers to
// it. Each sum is one pass over its table, grouped in temporary files.
const auditAccounts = `
WITH l AS (SELECT account,
		sum(CASE WHEN kind = 1 THEN amount ELSE 0 END) AS deposits,
		-sum(CASE WHEN kind IN (2, 3) THEN amount ELSE 0 END) AS charges,
		sum(CASE WHEN kind = 4 THEN amount ELSE 0 END) AS adjustments
		FROM (` + auditLines + `) GROUP BY account),
	d AS (SELECT account, sum(credited) AS total FROM deposits GROUP BY account),
	c AS (SELECT account, sum(charged) AS total, sum(unbilled) AS unbilled FROM charges GROUP BY account),
	j AS (SELECT account, sum(delta) AS total FROM adjustments GROUP BY account),
	h AS (SELECT account, sum(amount) AS total FROM holds GROUP BY account),
	b AS (SELECT account, count(*) AS total FROM budgets WHERE parent IS NULL AND (spent < max_spend OR held > 0 OR valid_until = 0) GROUP BY account)
SELECT a.id, a.status, a.available, a.held, a.deposited, a.charged, a.adjusted, a.budgets, a.last_charge,
	coalesce(l.deposits, 0), coalesce(l.charges, 0), coalesce(l.adjustments, 0), coalesce(d.total, 0),
	coalesce(c.total, 0), coalesce(c.unbilled, 0), coalesce(j.total, 0), coalesce(h.total, 0), coalesce(b.total, 0)
FROM accounts a LEFT JOIN l ON l.account = a.id LEFT JOIN d ON d.account = a.id LEFT JOIN c ON c.account = a.id
	LEFT JOIN j ON j.account = a.id LEFT JOIN h ON h.account = a.id LEFT JOIN b ON b.account = a.id`

// auditOrphans names rows of accounts that do not exist. Accounts' ids are 32
// bytes; the ledger's own books have shorter names.
const auditOrphans = `
SELECT 'a ' || kind || ' of an account that does not exist: ' || lower(hex(account)) FROM (
	SELECT 'transfer' AS kind, credit AS account FROM transfers UNION SELECT 'transfer', debit FROM transfers
	UNION SELECT 'deposit', account FROM deposits UNION SELECT 'charge', account FROM charges
	UNION SELECT 'adjustment', account FROM adjustments UNION SELECT 'hold', account FROM holds
	UNION SELECT 'budget', account FROM budgets
) WHERE account NOT IN (CAST('lightning' AS BLOB), CAST('revenue' AS BLOB), CAST('adjustments' AS BLOB))
	AND NOT EXISTS (SELECT 1 FROM accounts WHERE id = account)`

const auditBudgets = `
WITH l AS (SELECT budget, sum(amount) AS total FROM budget_lines GROUP BY budget)
SELECT b.id, b.account, b.max_spend, b.spent, b.held, b.parent, b.children, coalesce(l.total, 0), 1 FROM budgets b LEFT JOIN l ON l.budget = b.id
UNION ALL
SELECT l.budget, NULL, 0, 0, 0, NULL, 0, l.total, 0 FROM l WHERE NOT EXISTS (SELECT 1 FROM budgets WHERE id = l.budget)`

// auditLocks lists what each payment's lock covers and what was charged under
// it. A charge of another account stands alone.
const auditLocks = `
SELECT hash, account, sum(covered), sum(charged) FROM (
	SELECT hash, account, covered, 0 AS charged FROM deposits WHERE covered <> 0
	UNION ALL SELECT rate_lock, account, 0, charged FROM charges WHERE rate_lock IS NOT NULL
) GROUP BY hash, account`

const auditBooks = `
SELECT account, sum(amount) FROM (` + auditLines + `)
WHERE account IN (CAST('lightning' AS BLOB), CAST('revenue' AS BLOB), CAST('adjustments' AS BLOB)) GROUP BY account`

// Audit streams one snapshot.
func (d *DB) Audit(ctx context.Context, sink metering.AuditSink) error {
	return d.read(ctx, func(r *reader) error {
		for _, part := range []struct {
			sql string
			row func(*stmt) error
		}{
			{`SELECT ` + holdColumns + ` FROM holds`,
				func(s *stmt) error { return sink.Hold(readHoldRow(s)) }},
			{auditAccounts, func(s *stmt) error { return sink.Account(readAuditAccount(s)) }},
			{auditBudgets, func(s *stmt) error { return sink.Budget(readAuditBudget(s)) }},
			{auditLocks, func(s *stmt) error { return sink.Lock(readAuditLock(s)) }},
			{auditBooks, func(s *stmt) error { return sink.Book(s.colText(0), l402.Msat(s.colInt(1))) }},
			{auditOrphans, func(s *stmt) error { return sink.Orphan(s.colText(0)) }},
		} {
			if err := r.query(part.sql, nil, part.row); err != nil {
				return err
			}
		}
		return nil
	})
}

func readAuditAccount(s *stmt) metering.AuditAccount {
	var id l402.TokenID
	s.colID(0, id[:])
	return metering.AuditAccount{AccountRow: readAccount(s, 1, id), LineDeposits: l402.Msat(s.colInt(9)),
		LineCharges: l402.Msat(s.colInt(10)), LineAdjustments: l402.Msat(s.colInt(11)), DepositRows: l402.Msat(s.colInt(12)),
		ChargeRows: l402.Msat(s.colInt(13)), UnbilledRows: l402.Msat(s.colInt(14)), AdjustmentRows: l402.Msat(s.colInt(15)),
		HoldRows: l402.Msat(s.colInt(16)), BudgetRows: s.colInt(17)}
}

func readAuditBudget(s *stmt) metering.AuditBudget {
	b := metering.AuditBudget{BudgetRow: metering.BudgetRow{Limit: l402.Msat(s.colInt(2)), Spent: l402.Msat(s.colInt(3)),
		Held: l402.Msat(s.colInt(4)), Children: s.colInt(6)}, Lines: l402.Msat(s.colInt(7)), Found: s.colInt(8) != 0}
	s.colID(0, b.ID[:])
	s.colID(1, b.Account[:])
	s.colID(5, b.Parent[:])
	return b
}

func readAuditLock(s *stmt) metering.AuditLock {
	l := metering.AuditLock{Covered: l402.Msat(s.colInt(2)), Charges: l402.Msat(s.colInt(3))}
	s.colID(0, l.Hash[:])
	s.colID(1, l.Account[:])
	return l
}
