// Package backoff makes pauses between attempts at something that fails for a while. Each pause is
// twice the pause before, up to a bound.
//
//	pause := backoff.New(100*time.Millisecond, time.Second)
//	for !try() {
//		if err := pause.Wait(ctx); err != nil {
//			return err // ctx has ended
//		}
//	}
//
// The writer of the ledger, the choice of backends and the gateway's reading of client connections
// do not use this package, because their pauses are part of what they promise.
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

// New returns a series of pauses that begins with first and never exceeds most.
func New(first, most time.Duration) *Backoff {
	first = min(first, most)
	return &Backoff{next: first, first: first, most: most}
}

// Jittered is like New, but draws each pause at random between half of it and all of it. Several
// processes that fail at the same time then do not try again at the same time.
func Jittered(first, most time.Duration) *Backoff {
	b := New(first, most)
	b.jitter = true
	return b
}

// Next returns the pause before the next attempt. Each call doubles the pause, up to the bound.
func (b *Backoff) Next() time.Duration {
	d := b.next
	b.next = min(2*b.next, b.most)
	if b.jitter {
		d = d/2 + rand.N(d/2+1)
	}
	return d
}

// Reset begins the series again. The caller uses it after a success.
func (b *Backoff) Reset() { b.next = b.first }

// Wait sleeps for the time that Next returns. When ctx ends, Wait returns early with the error of
// ctx.
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
