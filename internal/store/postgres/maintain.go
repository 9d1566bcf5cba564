package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/metering"
)

// durably runs fn in a transaction whose commit is durable.
func (d *DB) durably(ctx context.Context, fn func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, d.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, fn)
}

// Fingerprints runs update over the key fingerprints on record.
func (d *DB) Fingerprints(ctx context.Context, update func([][32]byte) ([][32]byte, error)) error {
	return d.durably(ctx, func(tx pgx.Tx) error {
		// One gateway after the other.
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

// ownersKept is how long an owner that was taken for dead stays on record: its
// process learns of it with its next heartbeat.
const ownersKept = 24 * time.Hour

// Clean deletes what has run out.
func (d *DB) Clean(ctx context.Context, limit int) (int, error) {
	n := int64(0)
	for _, sql := range []string{
		`DELETE FROM idempotency_keys WHERE (account, key) IN (
			SELECT account, key FROM idempotency_keys WHERE expires < ` + clock + ` LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM rate_windows WHERE id IN (
			SELECT id FROM rate_windows WHERE minute < ` + clock + ` / ` + fmt.Sprint(time.Minute.Microseconds()) + ` - 1 LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM replica_loads WHERE (replica, model) IN (
			SELECT replica, model FROM replica_loads WHERE at < ` + clock + ` - ` + fmt.Sprint(loadsKept.Microseconds()) + ` LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM owners WHERE id IN (
			SELECT id FROM owners o WHERE fenced < ` + clock + ` - ` + fmt.Sprint(ownersKept.Microseconds()) + `
			AND NOT EXISTS (SELECT 1 FROM holds WHERE owner = o.id) LIMIT $1 FOR UPDATE SKIP LOCKED)`,
		// Only the oldest are looked at, so that a look without a find stays cheap.
		`DELETE FROM price_epochs WHERE id IN (
			SELECT e.id FROM (SELECT id, model FROM price_epochs ORDER BY id LIMIT $1) e
			WHERE (SELECT at FROM price_epochs WHERE model = e.model AND id > e.id ORDER BY id LIMIT 1)
				< ` + clock + ` - ` + fmt.Sprint(metering.EpochsKept.Microseconds()) + `)`,
	} {
		tag, err := d.pool.Exec(ctx, sql, limit)
		if err != nil {
			return int(n), err
		}
		n += tag.RowsAffected()
	}
	return int(n), nil
}
