package metering

import (
	"sync"
	"time"
)

// observer judges which owners live, by their counters and by its own clock. An
// owner is taken for dead when its counter stood still for a whole lease during
// which the store answered every look: an owner that could not reach a store that
// was away, frozen or restarted must not be judged by those who could not either.
// Safe for concurrent use.
type observer struct {
	mu    sync.Mutex
	lease time.Duration
	since time.Time            // the first look of the unbroken series; zero: none yet
	last  time.Time            // the end of the last look
	seen  map[OwnerID]sighting // of owners that are not fenced
	era   uint64               // generation of the store at the last look
}

// sighting is when an owner was first seen with the counter that it has.
type sighting struct {
	beat  int64
	since time.Time
}

func newObserver(lease time.Duration) *observer {
	return &observer{lease: lease, seen: make(map[OwnerID]sighting)}
}

// blind ends the series of looks: the store did not answer.
func (o *observer) blind() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since = time.Time{}
	clear(o.seen)
}

// look notes what the store said of all owners, between two moments, in one
// generation of the store. It returns the owners whose counters stood still for a
// lease, and whether the series of looks is as long as a lease.
func (o *observer) look(began, ended time.Time, era uint64, owners []OwnerRow) (dead []OwnerRow, ready bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	// A look that took long, or came late, may have missed an absence of the store.
	gap := o.lease / 2
	if ended.Sub(o.last) > gap || ended.Sub(began) > gap || era != o.era {
		o.since = time.Time{}
		clear(o.seen)
	}
	if o.since.IsZero() {
		o.since = ended
	}
	o.last, o.era = ended, era
	seen := make(map[OwnerID]sighting, len(owners))
	for _, r := range owners {
		s, known := o.seen[r.ID]
		if !known || s.beat != r.Beat {
			s = sighting{beat: r.Beat, since: ended}
		}
		if r.Fenced {
			continue
		}
		seen[r.ID] = s
		if ended.Sub(s.since) >= o.lease {
			dead = append(dead, r)
		}
	}
	o.seen = seen
	return dead, ended.Sub(o.since) >= o.lease
}
