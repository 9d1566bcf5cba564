package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"sluice.example/sluice/l402"
)

// A challenge is repeated for repeatFor after it was made, to at most
// maxRepeats callers at a time (about 1 KiB each).
const (
	repeatFor  = time.Minute
	maxRepeats = 8192
)

// repeats remembers the last challenges of callers that proved themselves, so
// that a retry does not cost the node another invoice. Entries all live equally
// long, so the oldest is always the next to go.
type repeats struct {
	credited func(l402.PaymentHash) bool // whether it was paid: then it is spent

	mu     sync.Mutex
	byKey  map[[sha256.Size]byte]repeatable
	queue  []queued // oldest first; may name entries that are gone
	making map[[sha256.Size]byte]*making
}

type repeatable struct {
	minted
	at time.Time
}

type queued struct {
	key [sha256.Size]byte
	at  time.Time
}

// making is a challenge that is being made. m and err are set before done is
// closed.
type making struct {
	done chan struct{}
	m    minted
	err  error
}

func newRepeats(credited func(l402.PaymentHash) bool) *repeats {
	return &repeats{credited: credited, byKey: map[[sha256.Size]byte]repeatable{}, making: map[[sha256.Size]byte]*making{}}
}

// once returns the challenge last given under key, if it may be given again, or
// else the one that mint makes. Callers who come while it is being made wait
// for it: two hundred requests of one account at once cost the node one
// invoice.
func (c *repeats) once(ctx context.Context, key [sha256.Size]byte, now time.Time, mint func() (minted, error)) (m minted, repeated bool, err error) {
	for {
		c.mu.Lock()
		if m, ok := c.get(key, now); ok {
			c.mu.Unlock()
			return m, true, nil
		}
		made := c.making[key]
		if made == nil {
			made = &making{done: make(chan struct{}), err: errNotMade}
			c.making[key] = made
			c.mu.Unlock()
			c.make(key, now, made, mint)
			return made.m, false, made.err
		}
		c.mu.Unlock()
		select {
		case <-made.done:
			if made.err == nil {
				return made.m, true, nil
			}
			// Its caller may have hung up, which is no reason for this one.
			if !errors.Is(made.err, context.Canceled) && !errors.Is(made.err, errNotMade) {
				return made.m, false, made.err
			}
		case <-ctx.Done():
			return minted{}, false, context.Cause(ctx)
		}
	}
}

// errNotMade is left behind by a mint that panicked.
var errNotMade = errors.New("challenge was not made")

// make makes a challenge for everybody who waits for it.
func (c *repeats) make(key [sha256.Size]byte, now time.Time, made *making, mint func() (minted, error)) {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.making, key)
		if made.err == nil {
			c.put(key, made.m, now)
		}
		close(made.done)
	}()
	made.m, made.err = mint()
}

// get returns what is remembered under key. The caller holds mu.
func (c *repeats) get(key [sha256.Size]byte, now time.Time) (minted, bool) {
	r, ok := c.byKey[key]
	if !ok {
		return minted{}, false
	}
	if now.Sub(r.at) >= repeatFor || c.credited(r.hash) {
		delete(c.byKey, key)
		return minted{}, false
	}
	return r.minted, true
}

// put remembers a challenge and forgets what is too old or too much. The caller
// holds mu.
func (c *repeats) put(key [sha256.Size]byte, m minted, now time.Time) {
	for len(c.queue) > 0 && (now.Sub(c.queue[0].at) >= repeatFor || len(c.queue) >= maxRepeats) {
		oldest := c.queue[0]
		c.queue = c.queue[1:]
		if r, ok := c.byKey[oldest.key]; ok && r.at.Equal(oldest.at) {
			delete(c.byKey, oldest.key)
		}
	}
	c.byKey[key] = repeatable{m, now}
	c.queue = append(c.queue, queued{key, now})
}
