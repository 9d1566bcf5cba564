package metering

import (
	"context"
	"errors"
	"fmt"
)

// sweepLoop charges holds whose owner shows no life.
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

// Sweep looks whether the owners of all holds live, fences those that have shown
// no life for a lease, and charges their holds, provisionally, at their last running
// usage. It returns how many holds it took up. It happens by itself every
// SweepEvery; looks that are further apart than half a lease judge nobody.
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

// lookAround is one look at all owners.
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
		if o.ID != own { // late with its own heartbeat, but alive
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

// sweepAbandoned charges the holds of all owners that are gone. Holds that this
// version cannot read are passed over and counted: they must not hide the others.
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

// sweepRows queues a sweep of each hold that can be read and waits for all.
func (l *Ledger) sweepRows(ctx context.Context, rows []HoldRow) (swept int, unreadable int64, err error) {
	var tasks []*task
	for i := range rows {
		if l.owns(rows[i].ID) {
			continue // of this process under an earlier name: it settles by itself
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
		// Only candidates: the decision is made again over the rows as they are then.
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

// newerUsage fails where only a later version can tell what a hold has consumed. A
// usage that is damaged does not keep a hold from its end.
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

// sweepStrays charges holds that stand under this ledger's own name and belong to
// no request of it, at two looks half a lease apart. They are what a database that
// failed over brings back after it has lost the end of a hold: no lease ends them,
// because their owner lives. It returns how many it took up.
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
