package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"sluice/l402"
	"sluice/metering"
)

// save writes what the batch changed, a statement per table whatever the number
// of rows, and commits.
func save(ctx context.Context, c *pgx.Conn, b *metering.Batch) error {
	var p pipeline
	if b.Changed() {
		saveAccounts(&p, b)
		saveBudgets(&p, b)
		saveHolds(&p, b)
		insertCharges(&p, b)
		updateCharges(&p, b)
		saveLines(&p, b)
		saveDeposits(&p, b)
		saveLimits(&p, b)
		saveAdjustments(&p, b)
		saveCursors(&p, b)
	}
	p.add(nil, "commit")
	return p.run(ctx, c)
}

// column collects one field of rows.
func column[R, V any](rows []*R, field func(*R) V) []V {
	list := make([]V, len(rows))
	for i, r := range rows {
		list[i] = field(r)
	}
	return list
}

func collect[R any](rows func(func(*R) bool)) (list []*R) {
	rows(func(r *R) bool { list = append(list, r); return true })
	return list
}

// amounts collects a field of money.
func amounts[R any](rows []*R, field func(*R) l402.Msat) []int64 {
	return column(rows, func(r *R) int64 { return int64(field(r)) })
}

// optional is NULL for an identifier of zeros.
func optional(id []byte) []byte {
	for _, b := range id {
		if b != 0 {
			return id
		}
	}
	return nil
}

// moment is NULL for a time that never was.
func moment(v int64) pgtype.Int8 { return pgtype.Int8{Int64: v, Valid: v != 0} }

func saveAccounts(p *pipeline, b *metering.Batch) {
	type row = metering.AccountRow
	rows := collect(b.Accounts.Upserted)
	if len(rows) == 0 {
		return
	}
	p.add(nil, `UPDATE accounts a SET status = u.status, available = u.available, held = u.held, deposited = u.deposited,
		charged = u.charged, adjusted = u.adjusted, budgets = u.budgets, last_charge = u.last_charge
		FROM unnest($1::bytea[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::uuid[])
			AS u (id, status, available, held, deposited, charged, adjusted, budgets, last_charge) WHERE a.id = u.id`,
		column(rows, func(r *row) []byte { return r.ID[:] }), column(rows, func(r *row) int16 { return int16(r.Status) }),
		amounts(rows, func(r *row) l402.Msat { return r.Available }), amounts(rows, func(r *row) l402.Msat { return r.Held }),
		amounts(rows, func(r *row) l402.Msat { return r.Deposited }), amounts(rows, func(r *row) l402.Msat { return r.Charged }),
		amounts(rows, func(r *row) l402.Msat { return r.Adjusted }), column(rows, func(r *row) int64 { return r.Budgets }),
		column(rows, func(r *row) pgtype.UUID { return optionalUUID(r.Last) }))
}

func saveBudgets(p *pipeline, b *metering.Batch) {
	type row = metering.BudgetRow
	if rows := collect(b.Budgets.Upserted); len(rows) > 0 {
		p.add(nil, `INSERT INTO budgets (id, account, max_spend, spent, held)
			SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[])
			ON CONFLICT (id) DO UPDATE SET spent = excluded.spent, held = excluded.held`,
			column(rows, func(r *row) []byte { return r.ID[:] }), column(rows, func(r *row) []byte { return r.Account[:] }),
			amounts(rows, func(r *row) l402.Msat { return r.Limit }), amounts(rows, func(r *row) l402.Msat { return r.Spent }),
			amounts(rows, func(r *row) l402.Msat { return r.Held }))
	}
	var gone [][]byte
	b.Budgets.Deleted(func(id [32]byte) bool { gone = append(gone, id[:]); return true })
	if len(gone) > 0 {
		p.add(nil, `DELETE FROM budgets WHERE id = ANY($1)`, gone)
	}
}

func saveHolds(p *pipeline, b *metering.Batch) {
	type row = metering.HoldRow
	id := func(r *row) pgtype.UUID { return uuid(r.ID) }
	amount := func(r *row) l402.Msat { return r.Amount }
	expires := func(r *row) int64 { return r.Expires }
	usage := func(r *row) []byte { return r.Usage }
	source := func(r *row) string { return string(r.Source) }
	if rows := collect(b.Holds.Inserted); len(rows) > 0 {
		p.add(nil, `INSERT INTO holds (id, account, amount, expires, context, usage, source)
			SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[], $7::text[])`,
			column(rows, id), column(rows, func(r *row) []byte { return r.Account[:] }), amounts(rows, amount),
			column(rows, expires), column(rows, func(r *row) []byte { return r.Context }), column(rows, usage), column(rows, source))
	}
	if rows := collect(b.Holds.Updated); len(rows) > 0 {
		p.add(nil, `UPDATE holds h SET amount = u.amount, expires = u.expires, usage = u.usage, source = u.source
			FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bytea[], $5::text[])
				AS u (id, amount, expires, usage, source) WHERE h.id = u.id`,
			column(rows, id), amounts(rows, amount), column(rows, expires), column(rows, usage), column(rows, source))
	}
	var gone []pgtype.UUID
	b.Holds.Deleted(func(id metering.HoldID) bool { gone = append(gone, uuid(id)); return true })
	if len(gone) > 0 {
		p.add(nil, `DELETE FROM holds WHERE id = ANY($1)`, gone)
	}
}

func insertCharges(p *pipeline, b *metering.Batch) {
	type row = metering.ChargeRow
	rows := collect(b.Charges.Inserted)
	if len(rows) == 0 {
		return
	}
	p.add(nil, `INSERT INTO charges (`+chargeColumns+`)
		SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::bytea[],
			$8::text[], $9::text[], $10::text[], $11::bytea[], $12::boolean[], $13::bigint[], $14::bigint[], $15::bigint[],
			$16::bigint[], $17::bigint[], $18::bytea[], $19::boolean[], $20::bytea[])`,
		column(rows, func(r *row) pgtype.UUID { return uuid(r.Hold) }), column(rows, func(r *row) []byte { return r.Account[:] }),
		column(rows, func(r *row) pgtype.UUID { return optionalUUID(r.Prev) }), column(rows, func(r *row) int64 { return r.At }),
		column(rows, func(r *row) string { return r.Service }), column(rows, func(r *row) string { return r.Model }),
		column(rows, func(r *row) []byte { return optional(r.Chain[:]) }), column(rows, func(r *row) string { return string(r.Source) }),
		column(rows, func(r *row) string { return string(r.Outcome) }), column(rows, func(r *row) string { return r.Backend }),
		column(rows, func(r *row) []byte { return r.Usage }), column(rows, func(r *row) bool { return r.Clamped }),
		column(rows, func(r *row) int64 { return r.Delivered }), amounts(rows, func(r *row) l402.Msat { return r.Amount }),
		amounts(rows, func(r *row) l402.Msat { return r.Charged }), amounts(rows, func(r *row) l402.Msat { return r.Unbilled }),
		column(rows, func(r *row) int64 { return r.Epoch }), column(rows, func(r *row) []byte { return r.Rates }),
		column(rows, func(r *row) bool { return r.Provisional }), column(rows, func(r *row) []byte { return optional(r.Lock[:]) }))
}

// updateCharges writes provisional charges that their owners replaced.
func updateCharges(p *pipeline, b *metering.Batch) {
	b.Charges.Updated(func(r *metering.ChargeRow) bool {
		p.add(nil, `UPDATE charges SET at = $2, source = $3, outcome = $4, backend = $5, usage = $6, clamped = $7,
			delivered = $8, charged = $9, unbilled = $10, provisional = $11 WHERE hold = $1`,
			uuid(r.Hold), r.At, string(r.Source), string(r.Outcome), r.Backend, r.Usage, r.Clamped, r.Delivered,
			int64(r.Charged), int64(r.Unbilled), r.Provisional)
		return true
	})
}

// saveLines appends what may only be appended.
func saveLines(p *pipeline, b *metering.Batch) {
	if n := len(b.Transfers); n > 0 {
		type row = metering.TransferRow
		rows := make([]*row, n)
		for i := range rows {
			rows[i] = &b.Transfers[i]
		}
		p.add(nil, `INSERT INTO transfers (kind, debit, credit, amount, ref, at)
			SELECT * FROM unnest($1::smallint[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bytea[], $6::bigint[])`,
			column(rows, func(r *row) int16 { return int16(r.Kind) }), column(rows, func(r *row) []byte { return r.Debit }),
			column(rows, func(r *row) []byte { return r.Credit }), amounts(rows, func(r *row) l402.Msat { return r.Amount }),
			column(rows, func(r *row) []byte { return r.Ref }), column(rows, func(r *row) int64 { return r.At }))
	}
	if n := len(b.BudgetLines); n > 0 {
		type row = metering.BudgetLine
		rows := make([]*row, n)
		for i := range rows {
			rows[i] = &b.BudgetLines[i]
		}
		p.add(nil, `INSERT INTO budget_lines (budget, hold, amount, at)
			SELECT * FROM unnest($1::bytea[], $2::uuid[], $3::bigint[], $4::bigint[])`,
			column(rows, func(r *row) []byte { return r.Budget[:] }), column(rows, func(r *row) pgtype.UUID { return uuid(r.Hold) }),
			amounts(rows, func(r *row) l402.Msat { return r.Amount }), column(rows, func(r *row) int64 { return r.At }))
	}
}

func saveDeposits(p *pipeline, b *metering.Batch) {
	type row = metering.DepositRow
	save := func(rows []*row, sql string) {
		if len(rows) == 0 {
			return
		}
		p.add(nil, sql, column(rows, func(r *row) []byte { return r.Hash[:] }), column(rows, func(r *row) []byte { return r.Account[:] }),
			amounts(rows, func(r *row) l402.Msat { return r.Credited }), column(rows, func(r *row) pgtype.Int8 { return moment(r.Presented) }),
			column(rows, func(r *row) pgtype.Int8 { return moment(r.Settled) }), column(rows, func(r *row) string { return r.Node }),
			column(rows, func(r *row) int64 { return int64(r.Index) }), amounts(rows, func(r *row) l402.Msat { return r.Covered }))
	}
	const source = ` FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[])`
	// Without ON CONFLICT: another gateway may be crediting the same payment to
	// another account, which no lock of ours excludes. The batch runs again then.
	save(collect(b.Deposits.Inserted), `INSERT INTO deposits (`+depositColumns+`) SELECT *`+source)
	save(collect(b.Deposits.Updated), `UPDATE deposits d SET credited = u.credited, presented = u.presented, settled = u.settled,
		node = u.node, settle_index = u.settle_index, covered = u.covered`+source+` AS u (`+depositColumns+`) WHERE d.hash = u.hash`)
}

// saveLimits writes rate windows and idempotency keys.
func saveLimits(p *pipeline, b *metering.Batch) {
	if rows := collect(b.Rates.Upserted); len(rows) > 0 {
		type row = metering.RateRow
		p.add(nil, `INSERT INTO rate_windows (id, minute, count, previous)
			SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[])
			ON CONFLICT (id) DO UPDATE SET minute = excluded.minute, count = excluded.count, previous = excluded.previous`,
			column(rows, func(r *row) []byte { return r.ID[:] }), column(rows, func(r *row) int64 { return r.Window }),
			column(rows, func(r *row) int64 { return r.Count }), column(rows, func(r *row) int64 { return r.Previous }))
	}
	if rows := collect(b.Keys.Upserted); len(rows) > 0 {
		type row = metering.KeyRow
		p.add(nil, `INSERT INTO idempotency_keys (account, key, body, hold, charged, expires)
			SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::uuid[], $5::boolean[], $6::bigint[])
			ON CONFLICT (account, key) DO UPDATE SET body = excluded.body, hold = excluded.hold,
				charged = excluded.charged, expires = excluded.expires`,
			column(rows, func(r *row) []byte { return r.Account[:] }), column(rows, func(r *row) []byte { return r.Key[:] }),
			column(rows, func(r *row) []byte { return r.Body[:] }), column(rows, func(r *row) pgtype.UUID { return uuid(r.Hold) }),
			column(rows, func(r *row) bool { return r.Charged }), column(rows, func(r *row) int64 { return r.Expires }))
	}
	b.Keys.Deleted(func(k metering.KeyID) bool {
		p.add(nil, `DELETE FROM idempotency_keys WHERE account = $1 AND key = $2`, k.Account[:], k.Key[:])
		return true
	})
}

func saveAdjustments(p *pipeline, b *metering.Batch) {
	b.Adjustments.Inserted(func(r *metering.AdjustmentRow) bool {
		p.add(nil, `INSERT INTO adjustments (id, account, delta, reason, at) VALUES ($1, $2, $3, $4, $5)`,
			uuid(r.ID), r.Account[:], int64(r.Delta), r.Reason, r.At)
		return true
	})
}

// saveCursors comes last: gateways that follow one Lightning node meet in one
// row, and hold its lock for the commit only.
func saveCursors(p *pipeline, b *metering.Batch) {
	b.Cursors.Upserted(func(r *metering.CursorRow) bool {
		p.add(nil, `INSERT INTO settle_cursors (node, settle_index) VALUES ($1, $2)
			ON CONFLICT (node) DO UPDATE SET settle_index = greatest(settle_cursors.settle_index, excluded.settle_index)`,
			r.Node, int64(r.Index))
		return true
	})
}
