package metering

import (
	"context"
	"errors"
	"time"
)

// beatChunk is the most holds that one heartbeat reports.
const beatChunk = 256

// beatLoop calls Renew every RenewEvery until ctx ends. When a heartbeat fails, it calls Renew again after a tenth of
// that time.
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

// Renew shows the other processes that this ledger is alive, and records the last progress of its open holds. The
// ledger calls Renew by itself every RenewEvery. Renew makes anew the holds that the store has lost, if the account
// still has the money. When other processes have taken this ledger for dead, the ledger continues under a new name. Its
// earlier holds have been charged or will be charged, and the late settlements of those holds replace those charges.
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

// beat sends one heartbeat with the progress of some holds.
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

// rename gives a new name to a ledger that was taken for dead.
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

// retire fences this owner in the store, so that no other process has to wait for its lease.
func (l *Ledger) retire(ctx context.Context) error {
	l.mu.Lock()
	owner, beat := l.owner, l.beaten
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	// A store that cannot be reached does not keep a gateway from ending, because the lease then ends the owner.
	if _, err := l.store.Fence(ctx, owner, beat); err != nil {
		l.log.Warn("retire from the ledger", "error", err)
	}
	return nil
}
