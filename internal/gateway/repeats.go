package gateway

import (
	"crypto/sha256"
	"sync"
	"time"

	"sluice/l402"
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

	mu    sync.Mutex
	byKey map[[sha256.Size]byte]repeatable
	queue []queued // oldest first; may name entries that are gone
}

type repeatable struct {
	minted
	at time.Time
}

type queued struct {
	key [sha256.Size]byte
	at  time.Time
}

func newRepeats(credited func(l402.PaymentHash) bool) *repeats {
	return &repeats{credited: credited, byKey: map[[sha256.Size]byte]repeatable{}}
}

// get returns the challenge last given under key, if it may be given again.
func (c *repeats) get(key [sha256.Size]byte, now time.Time) (minted, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
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

// put remembers a challenge and forgets what is too old or too much.
func (c *repeats) put(key [sha256.Size]byte, m minted, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
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
