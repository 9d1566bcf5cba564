package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/metering"
)

// Apply runs one batch in at most two round trips: the first loads the rows that this process does not remember, the
// second writes. It loads the rows once more when the remembered rows did not suffice.
func (d *DB) Apply(ctx context.Context, b *metering.Batch, decide func()) error {
	err := d.apply(ctx, b, decide)
	if err != nil {
		d.recent.forget()
	}
	return classify(err)
}

func (d *DB) apply(ctx context.Context, b *metering.Batch, decide func()) error {
	conn, err := d.writers.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release() // closes the connection when a transaction is still open
	c := conn.Conn()
	d.recent.fill(c, b)
	if err := d.load(ctx, c, b); err != nil {
		return err
	}
	decide()
	if !d.recent.rows.Stands(b) {
		b.Rewind()
		if err := d.load(ctx, c, b); err != nil {
			return err
		}
		decide()
	}
	if !b.Changed() {
		return nil
	}
	w, err := save(ctx, c, b)
	if err != nil {
		return err
	}
	d.recent.wrote(c, b, w)
	d.ended(b)
	return nil
}

// pipeline sends statements in one round trip, and reads their results in order.
type pipeline struct {
	pgx.Batch
	read []func(raw) // called with each row of a statement's result; nil: the rows are dropped
}

func (p *pipeline) add(read func(raw), sql string, args ...any) {
	p.Queue(sql, args...)
	p.read = append(p.read, read)
}

func (p *pipeline) run(ctx context.Context, c *pgx.Conn) error {
	results := c.SendBatch(ctx, &p.Batch)
	for _, read := range p.read {
		rows, err := results.Query()
		if err != nil {
			results.Close()
			return err
		}
		for rows.Next() {
			if read != nil {
				read(rows.RawValues())
			}
		}
		if err := rows.Err(); err != nil {
			results.Close()
			return err
		}
	}
	return results.Close()
}
