package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"sluice.example/sluice/metering"
)

// beatSQL raises an owner's counter and writes the changed usage of the owner's holds, if nobody has fenced the owner.
// The commit need not be durable, because another heartbeat follows a lost heartbeat.
const beatSQL = `WITH o AS (
		INSERT INTO owners AS o (id, beat) VALUES ($1, $2)
		ON CONFLICT (id) DO UPDATE SET beat = greatest(o.beat + 1, excluded.beat) WHERE o.fenced IS NULL RETURNING beat),
	u AS (SELECT * FROM unnest($3::uuid[], $4::bytea[], $5::text[]) AS u (id, usage, source)),
	w AS (UPDATE holds h SET usage = u.usage, source = u.source FROM u, o
		WHERE h.id = u.id AND h.owner = $1 AND (h.usage <> u.usage OR h.source <> u.source))
SELECT (SELECT beat FROM o), ARRAY(SELECT u.id FROM u WHERE NOT EXISTS (SELECT 1 FROM holds h WHERE h.id = u.id AND h.owner = $1)),
	set_config('synchronous_commit', 'off', true)`

// Beat writes one heartbeat.
func (d *DB) Beat(ctx context.Context, owner metering.OwnerID, beat int64, progress []metering.Progress) (now int64, missing []metering.HoldID, fenced bool, err error) {
	rows := pointers(progress)
	type row = metering.Progress
	var at pgtype.Int8
	var lost []pgtype.UUID
	var ignored string
	err = d.writers.QueryRow(ctx, beatSQL, pgtype.UUID{Bytes: owner, Valid: true}, beat,
		column(rows, func(r *row) pgtype.UUID { return uuid(r.ID) }), column(rows, func(r *row) []byte { return r.Usage }),
		column(rows, func(r *row) string { return string(r.Source) })).Scan(&at, &lost, &ignored)
	if err != nil {
		return 0, nil, false, err
	}
	if !at.Valid {
		return 0, nil, true, nil
	}
	for _, id := range lost {
		missing = append(missing, id.Bytes)
	}
	return at.Int64, missing, false, nil
}

// Owners lists all owners.
func (d *DB) Owners(ctx context.Context) (list []metering.OwnerRow, err error) {
	err = each(ctx, d.pool, func(r raw) error {
		row := metering.OwnerRow{Beat: r.int(1), Fenced: r.bool(2)}
		r.id(0, row.ID[:])
		list = append(list, row)
		return nil
	}, `SELECT id, beat, fenced IS NOT NULL FROM owners`)
	return list, err
}

// Fence fences an owner whose counter is still beat.
func (d *DB) Fence(ctx context.Context, owner metering.OwnerID, beat int64) (fenced bool, err error) {
	err = d.durably(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `WITH f AS (
				UPDATE owners SET fenced = `+clock+` WHERE id = $1 AND beat = $2 AND fenced IS NULL RETURNING 1)
			SELECT EXISTS (SELECT 1 FROM f) OR EXISTS (SELECT 1 FROM owners WHERE id = $1 AND fenced IS NOT NULL)`,
			pgtype.UUID{Bytes: owner, Valid: true}, beat).Scan(&fenced)
	})
	return fenced, err
}

// Abandoned lists the holds that have no living owner.
func (d *DB) Abandoned(ctx context.Context, after metering.HoldID, limit int) ([]metering.HoldRow, error) {
	return d.holds(ctx, `id > $1 AND CASE WHEN owner IS NULL THEN expires <= `+clock+`
		ELSE NOT EXISTS (SELECT 1 FROM owners o WHERE o.id = holds.owner AND o.fenced IS NULL) END ORDER BY id LIMIT $2`,
		uuid(after), limit)
}

// Owned lists the holds of one owner.
func (d *DB) Owned(ctx context.Context, owner metering.OwnerID, after metering.HoldID, limit int) ([]metering.HoldRow, error) {
	return d.holds(ctx, `id > $1 AND owner = $3 ORDER BY id LIMIT $2`, uuid(after), limit, pgtype.UUID{Bytes: owner, Valid: true})
}

func (d *DB) holds(ctx context.Context, where string, args ...any) (list []metering.HoldRow, err error) {
	err = each(ctx, d.pool, func(r raw) error {
		list = append(list, readHold(r))
		return nil
	}, `SELECT `+holdColumns+` FROM holds WHERE `+where, args...)
	return list, err
}

// How the table of open holds is kept small. A row lives for seconds, and the server's autovacuum looks once a minute.
// At 6,000 requests per second this leaves 100 MiB of dead rows. So each gateway runs VACUUM itself after it has ended
// vacuumEvery holds.
const (
	vacuumEvery = 20_000 // holds ended by this gateway
	vacuumLimit = time.Minute
)

// ended counts the holds that a batch ended, and starts a VACUUM after every vacuumEvery holds.
func (d *DB) ended(b *metering.Batch) {
	n := int64(0)
	b.Holds.Deleted(func(*metering.HoldRow) bool { n++; return true })
	if n == 0 || d.dead.Add(n) < vacuumEvery || !d.vacuuming.CompareAndSwap(false, true) {
		return
	}
	d.dead.Store(0)
	go func() {
		defer d.vacuuming.Store(false)
		ctx, cancel := context.WithTimeout(d.life, vacuumLimit)
		defer cancel()
		// VACUUM fails when the gateway's role does not own its tables. Then only autovacuum removes the dead rows.
		_, _ = d.pool.Exec(ctx, "VACUUM (SKIP_LOCKED, TRUNCATE FALSE) holds")
	}()
}
