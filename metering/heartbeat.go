package metering

import (
	"context"
	"errors"
	"time"
)

// beatChunk is how many holds one heartbeat carries.
const beatChunk = 256

// beatLoop shows that this ledger lives, and once more soon when the store did not
// answer.
func (l *Ledger) beatLoop(ctx context.Context) {
	pause := l.cfg.RenewEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = l.cfg.RenewEvery
		if err := l.Renew(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("heartbeat", "error", err)
			pause = l.cfg.RenewEvery / 10
		}
	}
}

// Renew shows that this ledger lives and records the last progress of its open
// holds, as happens by itself every RenewEvery. Holds that the store has lost are
// made anew while the money is still there. A ledger that was taken for dead goes on
// under a new name: its earlier holds have been charged, or will be, and their late
// settlements replace those charges.
func (l *Ledger) Renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	l.mu.Lock()
	holds := make([]*Hold, 0, len(l.open))
	for _, h := range l.open {
		holds = append(holds, h)
	}
	l.mu.Unlock()
	for first := true; first || len(holds) > 0; first = false {
		n := min(beatChunk, len(holds))
		if err := l.beat(ctx, holds[:n]); err != nil {
			return err
		}
		holds = holds[n:]
	}
	return nil
}

// beat is one heartbeat, with some of the holds.
func (l *Ledger) beat(ctx context.Context, holds []*Hold) error {
	progress := make([]Progress, 0, len(holds))
	byID := make(map[HoldID]*Hold, len(holds))
	for _, h := range holds {
		if p, open := h.progress(); open {
			progress = append(progress, p)
			byID[p.ID] = h
		}
	}
	l.mu.Lock()
	owner, at := l.owner, l.beaten
	l.mu.Unlock()
	now, missing, fenced, err := l.store.Beat(ctx, owner, at+1, progress)
	if err != nil {
		return unavailable("heartbeat", err)
	}
	if fenced {
		return l.rename(ctx, owner)
	}
	l.mu.Lock()
	if l.owner == owner {
		l.beaten = now
	}
	l.mu.Unlock()
	for _, id := range missing {
		h := byID[id]
		if _, _, err := h.extend(h.Amount(), true); err != nil && !errors.Is(err, ErrEnded) && !errors.Is(err, ErrClosed) {
			return err
		}
	}
	return nil
}

// rename gives a ledger that was taken for dead a new name.
func (l *Ledger) rename(ctx context.Context, old OwnerID) error {
	l.mu.Lock()
	if l.owner == old {
		l.owner, l.beaten = newOwnerID(), 0
		l.stats.fenced.Add(1)
	}
	owner := l.owner
	l.mu.Unlock()
	l.log.Warn("this gateway did not reach the ledger for a whole lease and was taken for dead; it goes on as a new owner",
		"old", old.String(), "new", owner.String())
	_, _, _, err := l.store.Beat(ctx, owner, 1, nil)
	return unavailable("heartbeat", err)
}

// retire ends this owner in the store, so that nobody has to wait for its lease.
func (l *Ledger) retire(ctx context.Context) error {
	l.mu.Lock()
	owner, beat := l.owner, l.beaten
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	// A store that is away does not keep a gateway from ending: the lease does the same.
	if _, err := l.store.Fence(ctx, owner, beat); err != nil {
		l.log.Warn("retire from the ledger", "error", err)
	}
	return nil
}
