package postgres

import (
	"bytes"
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// AuditState returns how far audits have come.
func (d *DB) AuditState(ctx context.Context) (a metering.AuditState, err error) {
	err = each(ctx, d.pool, func(r raw) error {
		a = metering.AuditState{Version: r.int(0), Scanned: metering.Position{Transfers: r.int(1), Budgets: r.int(2)},
			Checked: metering.Position{Transfers: r.int(3), Budgets: r.int(4)}, At: r.int(5), Mismatched: r.int(6), Suspects: r.bytes(7)}
		return nil
	}, `SELECT version, scanned_transfers, scanned_budgets, checked_transfers, checked_budgets, at, mismatched, suspects FROM audit_state`)
	return a, err
}

// Seals returns the seals of all closed periods in order.
func (d *DB) Seals(ctx context.Context) (list []metering.SealRow, err error) {
	err = each(ctx, d.pool, func(r raw) error {
		row := metering.SealRow{Period: r.int(0), Body: r.bytes(1)}
		r.id(2, row.Hash[:])
		list = append(list, row)
		return nil
	}, `SELECT period, body, hash FROM seals ORDER BY period`)
	return list, err
}

// lazily runs fn in a transaction whose commit is not durable: a crash of the server may lose the last such
// transactions, in order.
func (d *DB) lazily(ctx context.Context, fn func(pgx.Tx) error) error {
	return d.durably(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
			return err
		}
		return fn(tx)
	})
}

// SaveTallies writes sums in the order of their ids. The fixed order keeps two audits at once from waiting for each
// other in a circle.
func (d *DB) SaveTallies(ctx context.Context, period int64, tallies []metering.Tally) error {
	rows := make([]*metering.Tally, len(tallies))
	for i := range rows {
		rows[i] = &tallies[i]
	}
	slices.SortFunc(rows, func(a, b *metering.Tally) int {
		x, y := a.Key(), b.Key()
		return bytes.Compare(x[:], y[:])
	})
	sum := func(i int) []int64 {
		return amounts(rows, func(t *metering.Tally) l402.Msat { return t.Sums[i] })
	}
	args := []any{column(rows, func(t *metering.Tally) []byte { k := t.Key(); return k[:] }), sum(0), sum(1), sum(2),
		column(rows, func(t *metering.Tally) int64 { return t.Upto })}
	const source = ` FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) AS u (id, a, b, c, upto)`
	sql := `INSERT INTO audited (id, a, b, c, upto) SELECT id, a, b, c, upto` + source + `
		ON CONFLICT (id) DO UPDATE SET a = excluded.a, b = excluded.b, c = excluded.c, upto = excluded.upto WHERE audited.upto < excluded.upto`
	if period > 0 {
		args = append(args, period)
		sql = `INSERT INTO sealed (id, a, b, c, upto, period) SELECT id, a, b, c, upto, $6::bigint` + source + `
			ON CONFLICT (id, period) DO UPDATE SET a = excluded.a, b = excluded.b, c = excluded.c, upto = excluded.upto`
	}
	return classify(d.lazily(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	}))
}

// SaveAuditState replaces the state if the stored state has the version a.Version.
func (d *DB) SaveAuditState(ctx context.Context, a metering.AuditState) (saved bool, err error) {
	suspects := a.Suspects
	if suspects == nil {
		suspects = []byte{}
	}
	err = d.lazily(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE audit_state SET version = version + 1, scanned_transfers = $1, scanned_budgets = $2,
			checked_transfers = $3, checked_budgets = $4, at = $5, mismatched = $6, suspects = $7 WHERE version = $8`,
			a.Scanned.Transfers, a.Scanned.Budgets, a.Checked.Transfers, a.Checked.Budgets, a.At, a.Mismatched, suspects, a.Version)
		saved = err == nil && tag.RowsAffected() == 1
		return err
	})
	return saved && err == nil, classify(err)
}

// AddSeal appends a closed period.
func (d *DB) AddSeal(ctx context.Context, s metering.SealRow) error {
	_, err := d.pool.Exec(ctx, `INSERT INTO seals (period, body, hash) VALUES ($1, $2, $3)`, s.Period, s.Body, s.Hash[:])
	return classify(err)
}

// LeadAudit takes the advisory lock of audits, as LeadPrices takes the lock of prices.
func (d *DB) LeadAudit(ctx context.Context) (metering.AuditLead, error) {
	l, err := d.takeLead(ctx, "audits", metering.ErrNotLeader)
	if err != nil {
		return nil, err
	}
	return l, nil
}
