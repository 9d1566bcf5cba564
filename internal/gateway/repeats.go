package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"sluice.example/sluice/l402"
)

// A challenge is repeated for repeatFor after it was made. The gateway remembers at most
// maxRepeats challenges, of about 1 KiB each.
const (
	repeatFor  = time.Minute
	maxRepeats = 8192
)

// repeats remembers the last challenges of callers that proved themselves, so that a retry does
// not cost the node another invoice. All challenges are remembered equally long, so that the
// oldest is always forgotten first.
type repeats struct {
	credited func(l402.PaymentHash) bool // reports whether a challenge was paid; then it is not repeated

	mu     sync.Mutex
	given  *simplelru.LRU[[sha256.Size]byte, repeatable] // read with Peek, so that the order remains that of making
	making map[[sha256.Size]byte]*making
}

type repeatable struct {
	minted
	at time.Time
}

// making is a challenge that is being made. m and err are set before done is closed.
type making struct {
	done chan struct{}
	m    minted
	err  error
}

func newRepeats(credited func(l402.PaymentHash) bool) *repeats {
	given, err := simplelru.NewLRU[[sha256.Size]byte, repeatable](maxRepeats, nil)
	if err != nil {
		panic(err) // cannot happen, because maxRepeats is above 0
	}
	return &repeats{credited: credited, given: given, making: map[[sha256.Size]byte]*making{}}
}

// once returns the last challenge under key, if it may be repeated, or else makes one with mint.
// Callers who come while a challenge is being made wait for that challenge: two hundred requests
// of one account at once cost the node one invoice. repeated says that the challenge was made
// for an earlier caller.
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
			// If the caller that made the challenge hung up, this caller tries again.
			if !errors.Is(made.err, context.Canceled) && !errors.Is(made.err, errNotMade) {
				return made.m, false, made.err
			}
		case <-ctx.Done():
			return minted{}, false, context.Cause(ctx)
		}
	}
}

// errNotMade is the error of a challenge whose mint panicked.
var errNotMade = errors.New("challenge was not made")

// make makes the challenge for all callers who wait for it.
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

// get returns the challenge under key, if it may be repeated. The caller holds mu.
func (c *repeats) get(key [sha256.Size]byte, now time.Time) (minted, bool) {
	r, ok := c.given.Peek(key)
	if !ok {
		return minted{}, false
	}
	if now.Sub(r.at) >= repeatFor || c.credited(r.hash) {
		c.given.Remove(key)
		return minted{}, false
	}
	return r.minted, true
}

// put remembers a challenge, and forgets challenges that are too old or too many. The caller
// holds mu.
func (c *repeats) put(key [sha256.Size]byte, m minted, now time.Time) {
	for {
		_, oldest, ok := c.given.GetOldest()
		if !ok || now.Sub(oldest.at) < repeatFor {
			break
		}
		c.given.RemoveOldest()
	}
	c.given.Add(key, repeatable{m, now})
}
