package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// durably runs fn in a transaction whose commit is durable.
func (d *DB) durably(ctx context.Context, fn func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, d.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, fn)
}

// Fingerprints calls update with all recorded key fingerprints, and records those that update returns.
func (d *DB) Fingerprints(ctx context.Context, update func([][32]byte) ([][32]byte, error)) error {
	return d.durably(ctx, func(tx pgx.Tx) error {
		// The lock of the row makes the gateways do this one after the other.
		if _, err := tx.Exec(ctx, "SELECT 1 FROM meta FOR UPDATE"); err != nil {
			return err
		}
		var known [][32]byte
		err := each(ctx, tx, func(r raw) error {
			var f [32]byte
			r.id(0, f[:])
			known = append(known, f)
			return nil
		}, "SELECT fingerprint FROM key_fingerprints")
		if err != nil {
			return err
		}
		add, err := update(known)
		if err != nil {
			return err
		}
		for i := range add {
			if _, err := tx.Exec(ctx, "INSERT INTO key_fingerprints (fingerprint) VALUES ($1)", add[i][:]); err != nil {
				return err
			}
		}
		return nil
	})
}

// ownersKept is how long the row of an owner that was taken for dead is kept. The process of that owner learns that it
// was taken for dead with its next heartbeat.
const ownersKept = 24 * time.Hour

// Clean deletes expired idempotency keys, past rate windows and dead owners without holds.
func (d *DB) Clean(ctx context.Context, limit int) (int, error) {
	return d.delete(ctx, limit,
		`DELETE FROM idempotency_keys WHERE (account, key) IN (
			SELECT account, key FROM idempotency_keys WHERE expires < `+clock+` LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM rate_windows WHERE id IN (
			SELECT id FROM rate_windows WHERE minute < `+clock+` / `+fmt.Sprint(time.Minute.Microseconds())+` - 1 LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM owners WHERE id IN (
			SELECT id FROM owners o WHERE fenced < `+clock+` - `+fmt.Sprint(ownersKept.Microseconds())+`
			AND NOT EXISTS (SELECT 1 FROM holds WHERE owner = o.id) LIMIT $1 FOR UPDATE SKIP LOCKED)`)
}

// delete runs statements that delete at most $1 rows each, one transaction each. It returns how many rows they deleted.
func (d *DB) delete(ctx context.Context, limit int, statements ...string) (n int, err error) {
	for _, sql := range statements {
		tag, err := d.pool.Exec(ctx, sql, limit)
		if err != nil {
			return n, err
		}
		n += int(tag.RowsAffected())
	}
	return n, nil
}
