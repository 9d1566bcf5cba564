package metering

import (
	"context"
	"errors"
	"fmt"
)

// sweepLoop sweeps every SweepEvery until ctx ends. While the store does not answer, it tells the observer so.
func (l *Ledger) sweepLoop(ctx context.Context) {
	every(ctx, l.cfg.SweepEvery, func() {
		if l.writer.failing() {
			l.watch.blind()
			return
		}
		if _, err := l.Sweep(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("sweep", "error", err)
		}
	})
}

// Sweep checks whether the owners of all holds are alive. It fences the owners that have shown no life for a lease, and
// charges their holds provisionally at the last running usage. It returns how many holds it swept. The ledger calls
// Sweep by itself every SweepEvery. When the looks are further apart than half a lease, Sweep takes no owner for dead.
func (l *Ledger) Sweep(ctx context.Context) (int, error) {
	dead, ready, err := l.lookAround(ctx)
	if err != nil {
		l.watch.blind()
		return 0, err
	}
	for _, o := range dead {
		fenced, err := l.fence(ctx, o)
		if err != nil {
			l.watch.blind()
			return 0, err
		}
		if fenced {
			l.log.Warn("an owner of holds shows no life; its holds are charged", "owner", o.ID.String())
		}
	}
	strays, err := l.sweepStrays(ctx)
	if err != nil || !ready {
		return strays, err
	}
	n, err := l.sweepAbandoned(ctx)
	return strays + n, err
}

// lookAround reads all owners once, and returns those that are dead, without this ledger's own name.
func (l *Ledger) lookAround(ctx context.Context) (dead []OwnerRow, ready bool, err error) {
	reading, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	began := l.cfg.Now()
	owners, err := l.store.Owners(reading)
	if err != nil {
		return nil, false, unavailable("look for owners", err)
	}
	dead, ready = l.watch.look(began, l.cfg.Now(), l.store.Generation(), owners)
	l.mu.Lock()
	own := l.owner
	l.mu.Unlock()
	others := dead[:0]
	for _, o := range dead {
		if o.ID != own { // this ledger is late with its own heartbeat, but alive
			others = append(others, o)
		}
	}
	return others, ready, nil
}

func (l *Ledger) fence(ctx context.Context, o OwnerRow) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	fenced, err := l.store.Fence(ctx, o.ID, o.Beat)
	return fenced, unavailable("fence an owner", err)
}

// sweepAbandoned charges the holds of all dead owners. It passes over holds that this version cannot read, and counts
// them, so that they do not hide the other holds.
func (l *Ledger) sweepAbandoned(ctx context.Context) (int, error) {
	swept, unreadable := 0, int64(0)
	for after := (HoldID{}); ; {
		reading, cancel := context.WithTimeout(ctx, readLimit)
		rows, err := l.store.Abandoned(reading, after, sweepChunk)
		cancel()
		if err != nil {
			return swept, unavailable("look for abandoned holds", err)
		}
		n, bad, err := l.sweepRows(ctx, rows)
		swept, unreadable = swept+n, unreadable+bad
		if err != nil {
			return swept, err
		}
		if len(rows) < sweepChunk {
			break
		}
		after = rows[len(rows)-1].ID
	}
	if before := l.stats.unreadable.Swap(unreadable); unreadable > before {
		l.log.Error("abandoned holds cannot be read: a newer version made them, or they are damaged", "holds", unreadable)
	}
	return swept, nil
}

// sweepRows queues a sweep of each hold that this version can read, and waits for all of these sweeps.
func (l *Ledger) sweepRows(ctx context.Context, rows []HoldRow) (swept int, unreadable int64, err error) {
	var tasks []*task
	for i := range rows {
		if l.owns(rows[i].ID) {
			continue // this process made the hold under an earlier name, and settles it by itself
		}
		c, err := readContext(rows[i].Context)
		if err == nil {
			err = newerUsage(&rows[i])
		}
		if err != nil {
			unreadable++
			l.log.Debug("abandoned hold cannot be read", "request_id", rows[i].ID.String(), "error", err)
			continue
		}
		// These rows are only candidates: the sweep decides again over the rows as they are then.
		op := &settleOp{id: rows[i].ID, who: rows[i].Account, ctx: c, sweep: true, owner: rows[i].Owner}
		t, err := l.submit("sweep", op, true)
		if err != nil {
			return len(tasks), unreadable, err
		}
		tasks = append(tasks, t)
	}
	for _, t := range tasks {
		if err := l.wait(ctx, t); err != nil {
			return len(tasks), unreadable, err
		}
	}
	return len(tasks), unreadable, nil
}

// newerUsage fails when only a later version can read the usage of a hold. It does not fail for damaged usage, which
// must not keep a hold from its end.
func newerUsage(h *HoldRow) error {
	if _, err := readUsage(h.Usage); errors.Is(err, errNewer) {
		return fmt.Errorf("usage: %w", err)
	}
	return nil
}

func (l *Ledger) owns(id HoldID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[id] != nil
}

// sweepStrays charges holds that have this ledger's own name but belong to none of its requests, at two looks at least
// half a lease apart. A database that failed over brings such a hold back when it has lost the hold's end. No lease
// ends the hold, because its owner is alive. sweepStrays returns how many holds it swept.
func (l *Ledger) sweepStrays(ctx context.Context) (swept int, err error) {
	now := l.cfg.Now()
	l.mu.Lock()
	owner, before, due := l.owner, l.strays, now.Sub(l.strayed) >= l.cfg.Lease/2
	l.mu.Unlock()
	if !due {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	strays := make(map[HoldID]bool)
	for after := (HoldID{}); ; {
		rows, err := l.store.Owned(ctx, owner, after, sweepChunk)
		if err != nil {
			return swept, unavailable("look for own holds", err)
		}
		var again []HoldRow
		for i := range rows {
			if l.owns(rows[i].ID) {
				continue
			}
			strays[rows[i].ID] = true
			if before[rows[i].ID] {
				again = append(again, rows[i])
			}
		}
		n, _, err := l.sweepRows(ctx, again)
		if swept += n; err != nil {
			return swept, err
		}
		if len(rows) < sweepChunk {
			break
		}
		after = rows[len(rows)-1].ID
	}
	l.mu.Lock()
	l.strays, l.strayed = strays, now
	l.mu.Unlock()
	return swept, nil
}
