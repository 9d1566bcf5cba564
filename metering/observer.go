package metering

import (
	"sync"
	"time"
)

// observer judges which owners are alive, by their counters and by its own clock. It takes an owner for dead when the
// owner's counter did not change for a whole lease in which the store answered every look. An owner whose store was
// away, frozen or restarting could not raise its counter, so an observer that could not reach the store either must not
// judge it. Safe for concurrent use.
type observer struct {
	mu    sync.Mutex
	lease time.Duration
	since time.Time            // the first look of the unbroken series; zero: there is no series
	last  time.Time            // the end of the last look
	seen  map[OwnerID]sighting // the owners that are not fenced
	era   uint64               // the store's generation at the last look
}

// sighting is an owner's counter, and when the observer first saw the owner with that counter.
type sighting struct {
	beat  int64
	since time.Time
}

func newObserver(lease time.Duration) *observer {
	return &observer{lease: lease, seen: make(map[OwnerID]sighting)}
}

// blind ends the series of looks, because the store did not answer.
func (o *observer) blind() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since = time.Time{}
	clear(o.seen)
}

// look notes the store's list of all owners. The read of the list ran from began to ended, in generation era of the
// store. look returns the owners whose counters did not change for a lease. ready reports whether the series of looks
// has lasted a lease.
func (o *observer) look(began, ended time.Time, era uint64, owners []OwnerRow) (dead []OwnerRow, ready bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	// A look that took long or came late may have missed a time in which the store did not answer.
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
