package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/pricing"
)

// PublishEpoch appends a price.
func (d *DB) PublishEpoch(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error) {
	rates, err := json.Marshal(e.Rates)
	if err != nil {
		return e, fmt.Errorf("encode rates: %w", err)
	}
	err = d.durably(ctx, func(tx pgx.Tx) error { return insertEpoch(ctx, tx, &e, rates) })
	return e, err
}

// insertEpoch appends a price under the next id.
func insertEpoch(ctx context.Context, tx pgx.Tx, e *pricing.Epoch, rates []byte) error {
	// The lock keeps other sessions from appending meanwhile, so that ids ascend in the order of commits and have no
	// gaps. It does not keep them from reading.
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '10s'; LOCK TABLE price_epochs IN EXCLUSIVE MODE"); err != nil {
		return err
	}
	err := tx.QueryRow(ctx, `INSERT INTO price_epochs (id, model, rates, multiplier, signal, bound_by, at)
		SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4, $5, $6 FROM price_epochs RETURNING id`,
		e.Model, rates, e.Multiplier, e.Signal, e.BoundBy, e.At.UnixMicro()).Scan(&e.ID)
	if err != nil {
		return err
	}
	return notify(ctx, tx)
}

// SetOverride fixes the multiplier of a model. A multiplier of 0 removes the override.
func (d *DB) SetOverride(ctx context.Context, model string, multiplier float64) error {
	return d.durably(ctx, func(tx pgx.Tx) (err error) {
		if multiplier == 0 {
			_, err = tx.Exec(ctx, "DELETE FROM price_overrides WHERE model = $1", model)
		} else {
			_, err = tx.Exec(ctx, `INSERT INTO price_overrides (model, multiplier, at) VALUES ($1, $2, `+clock+`)
				ON CONFLICT (model) DO UPDATE SET multiplier = excluded.multiplier, at = excluded.at`, model, multiplier)
		}
		if err != nil {
			return err
		}
		return notify(ctx, tx)
	})
}

// Overrides returns the fixed multipliers by model.
func (d *DB) Overrides(ctx context.Context) (map[string]float64, error) {
	m := make(map[string]float64)
	rows, err := d.pool.Query(ctx, "SELECT model, multiplier FROM price_overrides")
	if err != nil {
		return nil, err
	}
	var model string
	var multiplier float64
	_, err = pgx.ForEachRow(rows, []any{&model, &multiplier}, func() error {
		m[model] = multiplier
		return nil
	})
	return m, err
}

func (d *DB) epochs(ctx context.Context, sql string, args ...any) ([]pricing.Epoch, error) {
	rows, err := d.pool.Query(ctx, `SELECT id, model, rates, multiplier, signal, bound_by, at FROM price_epochs `+sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e pricing.Epoch, err error) {
		var rates []byte
		var at int64
		if err := row.Scan(&e.ID, &e.Model, &rates, &e.Multiplier, &e.Signal, &e.BoundBy, &at); err != nil {
			return e, err
		}
		e.At = time.UnixMicro(at).UTC()
		if err := json.Unmarshal(rates, &e.Rates); err != nil {
			return e, fmt.Errorf("rates of price epoch %d: %w", e.ID, err)
		}
		return e, nil
	})
}

// LatestEpochs returns the newest price of each model. It steps from model to model through the index, so its cost does
// not grow with the number of epochs.
func (d *DB) LatestEpochs(ctx context.Context) ([]pricing.Epoch, error) {
	return d.epochs(ctx, `WHERE id = ANY (ARRAY(
		WITH RECURSIVE m (model) AS (SELECT min(model) FROM price_epochs
			UNION ALL SELECT (SELECT min(model) FROM price_epochs WHERE model > m.model) FROM m WHERE m.model IS NOT NULL)
		SELECT (SELECT max(id) FROM price_epochs WHERE model = m.model) FROM m)) ORDER BY id`)
}

// Epochs returns the published prices that q selects.
func (d *DB) Epochs(ctx context.Context, q pricing.EpochQuery) ([]pricing.Epoch, error) {
	sql, args := `WHERE id > $1`, []any{q.After, q.Limit}
	if q.Model != "" {
		args = append(args, q.Model)
		sql += fmt.Sprintf(` AND model = $%d`, len(args))
	}
	if !q.Since.IsZero() {
		args = append(args, q.Since.UnixMicro())
		sql += fmt.Sprintf(` AND at >= $%d`, len(args))
	}
	return d.epochs(ctx, sql+` ORDER BY id LIMIT $2`, args...)
}

// Epoch returns one published price.
func (d *DB) Epoch(ctx context.Context, id int64) (e pricing.Epoch, found bool, err error) {
	list, err := d.epochs(ctx, `WHERE id = $1`, id)
	if len(list) == 0 {
		return e, false, err
	}
	return list[0], true, err
}

// loadsKept is how long a load is kept that its replica does not replace.
const loadsKept = time.Hour

// ReportLoad writes the loads that a replica reports. The commit is not durable, because the replica reports again.
func (d *DB) ReportLoad(ctx context.Context, replica string, loads []pricer.Report) error {
	type row = pricer.Report
	rows := make([]*row, len(loads))
	for i := range rows {
		rows[i] = &loads[i]
	}
	return d.durably(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO replica_loads (replica, model, running, waiting, work, at)
			SELECT $1, model, running, waiting, work, `+clock+`
			FROM unnest($2::text[], $3::float8[], $4::float8[], $5::float8[]) AS u (model, running, waiting, work)
			ON CONFLICT (replica, model) DO UPDATE SET running = excluded.running, waiting = excluded.waiting,
				work = excluded.work, at = excluded.at`,
			replica, column(rows, func(r *row) string { return r.Model }), column(rows, func(r *row) float64 { return r.Running }),
			column(rows, func(r *row) float64 { return r.Waiting }), column(rows, func(r *row) float64 { return r.Work }))
		return err
	})
}

// Loads returns the loads that are at most maxAge old by the server's clock.
func (d *DB) Loads(ctx context.Context, maxAge time.Duration) ([]pricer.Report, error) {
	rows, err := d.pool.Query(ctx, `SELECT replica, model, running, waiting, work, at FROM replica_loads
		WHERE at >= `+clock+` - $1`, maxAge.Microseconds())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (m pricer.Report, err error) {
		var at int64
		err = row.Scan(&m.Replica, &m.Model, &m.Running, &m.Waiting, &m.Work, &at)
		m.At = time.UnixMicro(at).UTC()
		return m, err
	})
}

// CleanPrices deletes old loads and old epochs.
func (d *DB) CleanPrices(ctx context.Context, limit int) (int, error) {
	return d.delete(ctx, limit,
		`DELETE FROM replica_loads WHERE (replica, model) IN (
			SELECT replica, model FROM replica_loads WHERE at < `+clock+` - `+fmt.Sprint(loadsKept.Microseconds())+` LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		// The statement looks only at the oldest epochs, so that it stays cheap when it deletes nothing.
		`DELETE FROM price_epochs WHERE id IN (
			SELECT e.id FROM (SELECT id, model FROM price_epochs ORDER BY id LIMIT $1) e
			WHERE (SELECT at FROM price_epochs WHERE model = e.model AND id > e.id ORDER BY id LIMIT 1)
				< `+clock+` - `+fmt.Sprint(pricer.EpochsKept.Microseconds())+`)`)
}
