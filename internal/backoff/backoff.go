// Package backoff paces attempts at something that fails for a while: the pause
// before each attempt is twice the one before, up to a bound.
//
//	pause := backoff.New(100*time.Millisecond, time.Second)
//	for !try() {
//		if err := pause.Wait(ctx); err != nil {
//			return err // ctx has ended
//		}
//	}
//
// The writer of the ledger, the choice of backends and the gateway's reading of
// client connections pace themselves: their pauses are part of what they promise.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is one series of pauses. It is not safe for concurrent use.
type Backoff struct {
	next, first, most time.Duration
	jitter            bool
}

// New is a series of pauses that begins with first and does not exceed most.
func New(first, most time.Duration) *Backoff {
	return &Backoff{next: first, first: first, most: most}
}

// Jittered is New where each pause is drawn from its half to its whole, so that
// several processes that fail together do not come back in step.
func Jittered(first, most time.Duration) *Backoff {
	b := New(first, most)
	b.jitter = true
	return b
}

// Next is the pause before the next attempt; the one after it is longer.
func (b *Backoff) Next() time.Duration {
	d := b.next
	b.next = min(2*b.next, b.most)
	if b.jitter {
		d = d/2 + rand.N(d/2+1)
	}
	return d
}

// Reset begins the series anew, after a success.
func (b *Backoff) Reset() { b.next = b.first }

// Wait sleeps for Next. It returns early, with the error of ctx, when ctx ends.
func (b *Backoff) Wait(ctx context.Context) error {
	timer := time.NewTimer(b.Next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
