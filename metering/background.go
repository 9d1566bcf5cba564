package metering

import (
	"context"
	"errors"
	"time"
)

// Sizes of background work, small enough not to delay a paying request.
const (
	renewChunk = 256 // holds renewed by one operation
	sweepChunk = 256 // expired holds taken up at once
	tidyChunk  = 1000
	tidyEvery  = 30 * time.Second
	readLimit  = 10 * time.Second
)

// every calls fn each period until ctx ends.
func every(ctx context.Context, period time.Duration, fn func()) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			fn()
		}
	}
}

// renewLoop renews all open holds of this process.
func (l *Ledger) renewLoop(ctx context.Context) {
	every(ctx, l.cfg.RenewEvery, func() {
		// An error means closing, or a refusal that the writer has logged.
		_ = l.Renew(ctx)
	})
}

// Renew renews the leases of all open holds of this process, with their last
// progress, as happens by itself every RenewEvery.
func (l *Ledger) Renew(ctx context.Context) error {
	l.mu.Lock()
	holds := make([]*Hold, 0, len(l.open))
	for _, h := range l.open {
		holds = append(holds, h)
	}
	l.mu.Unlock()
	for len(holds) > 0 {
		n := min(renewChunk, len(holds))
		if err := l.renewSome(ctx, holds[:n]); err != nil {
			return err
		}
		holds = holds[n:]
	}
	return nil
}

// renewSome renews some holds. Those that the store has lost are made anew
// while the money is still there.
func (l *Ledger) renewSome(ctx context.Context, holds []*Hold) error {
	op := &renewOp{items: make([]renewal, 0, len(holds))}
	byID := make(map[HoldID]*Hold, len(holds))
	for _, h := range holds {
		if item, open := h.renewal(); open {
			op.items = append(op.items, item)
			byID[item.id] = h
		}
	}
	if len(op.items) == 0 {
		return nil
	}
	if err := l.do(ctx, "renew", op, true); err != nil {
		return err
	}
	for _, id := range op.missing {
		h := byID[id]
		if _, _, err := h.extend(h.Amount(), true); err != nil && !errors.Is(err, ErrEnded) && !errors.Is(err, ErrClosed) {
			return err
		}
	}
	return nil
}

// sweepLoop charges holds whose owner stopped renewing them. Whoever was cut off
// from the store, or stood still, cannot know who lives: it waits one full lease
// first, in which every living owner renews.
func (l *Ledger) sweepLoop(ctx context.Context) {
	last := time.Now()
	quietUntil := last.Add(l.cfg.Lease)
	every(ctx, l.cfg.SweepEvery, func() {
		now := time.Now()
		if now.Sub(last) > l.cfg.Lease {
			quietUntil = now.Add(l.cfg.Lease)
		}
		last = now
		reached := time.Unix(0, l.writer.reachedAt.Load()).Add(l.cfg.Lease)
		if l.writer.failing() || now.Before(quietUntil) || now.Before(reached) {
			return
		}
		for n, err := sweepChunk, error(nil); n == sweepChunk; {
			if n, err = l.Sweep(ctx); err != nil && ctx.Err() == nil {
				l.log.Warn("sweep", "error", err)
			}
		}
	})
}

// Sweep charges, provisionally, the holds whose lease ran out, at their last
// running usage, and returns how many it took up. It happens by itself every
// SweepEvery, except while living owners may not have had time to renew; who
// calls it takes that care over.
func (l *Ledger) Sweep(ctx context.Context) (int, error) {
	reading, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	rows, err := l.store.Expired(reading, sweepChunk)
	if err != nil {
		return 0, unavailable("look for expired holds", err)
	}
	var tasks []*task
	for i := range rows {
		if l.owns(rows[i].ID) {
			continue // late with its renewal, but alive
		}
		c, err := readContext(rows[i].Context)
		if err != nil {
			l.log.Error("expired hold cannot be read", "request_id", rows[i].ID.String(), "error", err)
			continue
		}
		// Only candidates: the decision is made again once the rows are locked.
		t, err := l.submit("sweep", &settleOp{id: rows[i].ID, who: rows[i].Account, ctx: c, sweep: true}, true)
		if err != nil {
			return len(tasks), err
		}
		tasks = append(tasks, t)
	}
	for _, t := range tasks {
		if err := l.wait(ctx, t); err != nil {
			return len(tasks), err
		}
	}
	return len(tasks), nil
}

func (l *Ledger) owns(id HoldID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[id] != nil
}

// tidyLoop removes what has run out and counts what an operator should know.
func (l *Ledger) tidyLoop(ctx context.Context) {
	every(ctx, tidyEvery, func() {
		reading, cancel := context.WithTimeout(ctx, readLimit)
		defer cancel()
		for {
			n, err := l.store.Clean(reading, tidyChunk)
			if err != nil && ctx.Err() == nil {
				l.log.Warn("remove expired rows", "error", err)
			}
			if n < tidyChunk || err != nil {
				break
			}
		}
		var unconfirmed int64
		filter := DepositFilter{Unconfirmed: time.Now().Add(-l.cfg.ConfirmWithin), Limit: maxAlarm}
		err := l.store.Deposits(reading, filter, func(DepositRow) error { unconfirmed++; return nil })
		if err == nil {
			l.stats.unconfirmed.Store(unconfirmed)
		}
	})
}

// maxAlarm is where counting alarms ends: it is bad enough.
const maxAlarm = 1000
