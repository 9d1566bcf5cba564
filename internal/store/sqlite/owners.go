package sqlite

import (
	"context"
	"time"

	"sluice.example/sluice/metering"
)

// Generation is always 0, because no other process writes this file.
func (d *DB) Generation() uint64 { return 0 }

// Beat writes one heartbeat.
func (d *DB) Beat(ctx context.Context, owner metering.OwnerID, beat int64, progress []metering.Progress) (now int64, missing []metering.HoldID, fenced bool, err error) {
	err = d.write(ctx, false, func(w *writer) (bool, error) {
		fenced = true
		more, err := w.beat.blob(owner[:]).int(beat).step()
		if err != nil || !more {
			return false, err
		}
		now, fenced = w.beat.colInt(0), false
		w.beat.reset()
		for i := range progress {
			p := &progress[i]
			more, err := w.progress.blob(p.Usage).text(string(p.Source)).blob(p.ID[:]).blob(owner[:]).step()
			if err != nil {
				return false, err
			}
			if !more {
				missing = append(missing, p.ID)
			}
			w.progress.reset()
		}
		return true, nil
	})
	return now, missing, fenced, err
}

// Owners lists all owners.
func (d *DB) Owners(ctx context.Context) (list []metering.OwnerRow, err error) {
	err = d.read(ctx, func(r *reader) error {
		return r.query(`SELECT id, beat, fenced IS NOT NULL FROM owners`, nil, func(s *stmt) error {
			row := metering.OwnerRow{Beat: s.colInt(1), Fenced: s.colInt(2) != 0}
			s.colID(0, row.ID[:])
			list = append(list, row)
			return nil
		})
	})
	return list, err
}

// Fence fences an owner whose counter is still beat.
func (d *DB) Fence(ctx context.Context, owner metering.OwnerID, beat int64) (fenced bool, err error) {
	err = d.write(ctx, true, func(w *writer) (bool, error) {
		if err := w.fence.int(d.now()).blob(owner[:]).int(beat).run(); err != nil {
			return false, err
		}
		more, err := w.fenced.blob(owner[:]).step()
		if err != nil {
			return false, err
		}
		fenced = more
		w.fenced.reset()
		return true, nil
	})
	return fenced, err
}

const holdColumns = `id, account, amount, owner, context, usage, source`

// Abandoned lists the holds that have no living owner.
func (d *DB) Abandoned(ctx context.Context, after metering.HoldID, limit int) ([]metering.HoldRow, error) {
	return d.holds(ctx, `SELECT `+holdColumns+` FROM holds WHERE id > ?1 AND NOT EXISTS (
		SELECT 1 FROM owners o WHERE o.id = holds.owner AND o.fenced IS NULL) ORDER BY id LIMIT ?2`,
		func(s *stmt) { s.blob(after[:]).int(int64(limit)) })
}

// Owned lists the holds of one owner.
func (d *DB) Owned(ctx context.Context, owner metering.OwnerID, after metering.HoldID, limit int) ([]metering.HoldRow, error) {
	return d.holds(ctx, `SELECT `+holdColumns+` FROM holds WHERE id > ?1 AND owner = ?3 ORDER BY id LIMIT ?2`,
		func(s *stmt) { s.blob(after[:]).int(int64(limit)).blob(owner[:]) })
}

func (d *DB) holds(ctx context.Context, sql string, bind func(*stmt)) (list []metering.HoldRow, err error) {
	err = d.read(ctx, func(r *reader) error {
		return r.query(sql, bind, func(s *stmt) error {
			list = append(list, readHoldRow(s))
			return nil
		})
	})
	return list, err
}

// ownersKept is how long the row of an owner that was taken for dead is kept.
const ownersKept = 24 * time.Hour
