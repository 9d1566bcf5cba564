package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice/metering"
)

// rollbackLimit bounds the return to a clean connection after a failed batch.
const rollbackLimit = time.Second

// Apply runs one batch.
func (d *DB) Apply(ctx context.Context, b *metering.Batch, decide func()) error {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release() // closes it when a transaction is still open
	c := conn.Conn()
	err = load(ctx, c, b)
	if err == nil {
		decide()
		if err = save(ctx, c, b); err == nil {
			return nil
		}
	}
	err = classify(err)
	if errors.Is(err, metering.ErrConflict) || errors.Is(err, metering.ErrRejected) {
		undoing, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit)
		defer cancel()
		// Failing here costs the connection, nothing else.
		_, _ = c.Exec(undoing, "rollback")
	}
	return err
}

// pipeline sends statements in one round trip and reads their results in order.
type pipeline struct {
	pgx.Batch
	read []func(raw) // for the rows of each statement; nil: it has none
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
