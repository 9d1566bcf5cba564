package sqlite

import (
	"context"
	"fmt"
	"time"

	"sluice.example/sluice/metering"
)

// Fingerprints calls update with all recorded key fingerprints, and records those that update returns.
func (d *DB) Fingerprints(ctx context.Context, update func([][32]byte) ([][32]byte, error)) error {
	return d.write(ctx, true, func(w *writer) (bool, error) {
		var known [][32]byte
		for {
			more, err := w.loadFingerprints.step()
			if err != nil {
				return false, err
			}
			if !more {
				break
			}
			var f [32]byte
			w.loadFingerprints.colID(0, f[:])
			known = append(known, f)
		}
		add, err := update(known)
		if err != nil {
			// update refused, and the store did not fail. ErrRejected makes write keep the connection.
			return false, fmt.Errorf("%w: %w", metering.ErrRejected, err)
		}
		for i := range add {
			if err := w.insertFingerprint.blob(add[i][:]).run(); err != nil {
				return false, err
			}
		}
		return len(add) > 0, nil
	})
}

// Clean deletes expired idempotency keys, past rate windows and dead owners without holds.
func (d *DB) Clean(ctx context.Context, limit int) (n int, err error) {
	err = d.write(ctx, false, func(w *writer) (bool, error) {
		now := d.now()
		for s, before := range map[*stmt]int64{w.cleanKeys: now, w.cleanRates: now/time.Minute.Microseconds() - 1,
			w.cleanOwners: now - ownersKept.Microseconds()} {
			went, err := s.int(before).int(int64(limit)).count()
			if err != nil {
				return false, err
			}
			n += went
		}
		return n > 0, nil
	})
	return n, err
}
