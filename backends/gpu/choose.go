package gpu

import (
	"slices"
	"time"

	"sluice.example/sluice/pricing"
)

// fewBackends is how many candidates are all compared. Of more, two are drawn
// and the better one taken: nearly as good, and several gateways that read the
// same old numbers do not all run to the same backend.
const fewBackends = 4

// nowhere says why no backend is left for a request that was to tried.
func (p *Pool) nowhere(tried []*Backend) error {
	if p.priced && !p.fleet.closed && p.best(tried, time.Now()) != out {
		return ErrTooDear
	}
	return ErrNoBackend
}

// anyOpen says whether a backend that may be used has a free slot, at whatever
// price.
func (p *Pool) anyOpen() bool {
	now := time.Now()
	for _, b := range p.backends {
		if s := b.standing(p, now); s != out && b.inFlight < b.room(s) {
			return true
		}
	}
	return false
}

// choose finds the backend with a free slot for t. Among the backends that can
// serve in time it takes the cheapest, and among equally cheap ones the one
// with the least expected wait. wait says that a backend outside t.tried may be
// used and asks no more than t pays, so that a slot may come. Where all usable
// backends are ejected, choose takes the one that returns soonest.
func (p *Pool) choose(t *Ticket) (best *Backend, wait bool) {
	now := time.Now()
	top := p.best(t.tried, now)
	open := p.open[:0]
	for i := range p.backends {
		b := p.backends[(p.turn+i)%len(p.backends)]
		s := b.standing(p, now)
		if !s.usable(top) || slices.Contains(t.tried, b) {
			continue
		}
		if p.priced {
			if b.asks = b.ask(&t.bid); !t.bid.pays(b.asks) {
				continue
			}
		}
		wait = true
		if b.inFlight < b.room(s) {
			open = append(open, b)
		}
	}
	p.open = open
	if top == spare {
		open = least(open, func(b *Backend) int64 { return b.health.until.UnixNano() })
	} else if p.priced && len(open) > 1 {
		open = p.cheapest(open, now)
	}
	if p.weighted && len(open) > 1 {
		return p.byWeight(open), wait
	}
	return p.leastWait(open, now), wait
}

// deal notes that b got a request of the pool. Each request moves a backend on by the
// inverse of its weight.
func (p *Pool) deal(b *Backend) {
	p.dealt = p.turnOf(b)
	b.dealt[slices.Index(b.pools, p)] = p.dealt
}

// turnOf is where another request of the pool would move b. A backend that was away
// is not far behind the others, because it does not make up for its absence.
func (p *Pool) turnOf(b *Backend) float64 {
	step := 1 / float64(b.set.Weight)
	return max(b.dealt[slices.Index(b.pools, p)], p.dealt-step) + step
}

// byWeight is the backend whose turn it is. Ties go to the first.
func (p *Pool) byWeight(open []*Backend) *Backend {
	best := open[0]
	turn := p.turnOf(best)
	for _, b := range open[1:] {
		if t := p.turnOf(b); t < turn {
			best, turn = b, t
		}
	}
	return best
}

// least keeps those of the list for which of is smallest, in place.
func least(list []*Backend, of func(*Backend) int64) []*Backend {
	kept, best := list[:0], int64(0)
	for _, b := range list {
		v := of(b)
		if len(kept) == 0 || v < best {
			kept, best = kept[:0], v
		}
		if v == best {
			kept = append(kept, b)
		}
	}
	return kept
}

// cheapest keeps those that ask the least of those that would begin with the
// request within the pool's patience. Where none would, all stay: then time is
// what counts.
func (p *Pool) cheapest(open []*Backend, now time.Time) []*Backend {
	late := func(b *Backend) bool {
		s := b.sense(now)
		return b.queueing(p, &s) > p.cfg.QueueTimeout.Seconds()
	}
	if !slices.ContainsFunc(open, func(b *Backend) bool { return !late(b) }) {
		return open
	}
	return least(slices.DeleteFunc(open, late), func(b *Backend) int64 { return int64(b.asks) })
}

// leastWait compares all of a few, or two of many. Ties go to the first.
func (p *Pool) leastWait(open []*Backend, now time.Time) *Backend {
	switch n := len(open); {
	case n == 0:
		return nil
	case n == 1:
		return open[0]
	case n > fewBackends:
		i, j := p.fleet.rand.IntN(n), p.fleet.rand.IntN(n-1)
		if j >= i {
			j++
		}
		open[0], open[1] = open[i], open[j]
		open = open[:2]
	}
	best := open[0]
	shortest := best.expected(p, now)
	for _, b := range open[1:] {
		if wait := b.expected(p, now); wait < shortest {
			best, shortest = b, wait
		}
	}
	return best
}

// The parts of the expected wait.
const (
	// kvFull is where a new request has to wait for another to end.
	kvFull = 0.95
	// halfLoad is the load from which a GPU's plain utilization is believed: below
	// it, utilization saturates long before the GPU does.
	halfLoad = 0.5
	// afterglow is how long utilization still tells of work that has ended.
	afterglow = time.Second
	// paceSpread bounds how far a backend's pace may be from its pool's, so
	// that few odd requests do not decide.
	paceSpread = 4
)

// queueing estimates how many seconds pass before b begins with a request given
// to it now: those in the engine's own queue go first, and where the KV cache
// is full another one must end.
func (b *Backend) queueing(p *Pool, s *sense) float64 {
	wait := b.paceIn(p) * known(s.Waiting) / float64(b.set.Slots)
	if s.KV >= kvFull {
		wait += b.paceIn(p) / max(1, known(s.Running), float64(b.inFlight))
	}
	return wait
}

// expected estimates how many seconds longer a request given to b now takes
// than on an idle server: what it queues, and what those beside it cost.
func (b *Backend) expected(p *Pool, now time.Time) float64 {
	s := b.sense(now)
	return b.queueing(p, &s) + b.paceIn(p)*b.pressure(&s)
}

// pressure is how loaded b is, 1 being full: by requests, by its KV cache, or
// by what its GPUs do.
func (b *Backend) pressure(s *sense) float64 {
	requests := max(float64(b.inFlight), known(s.Running)+known(s.Waiting))
	load := requests / float64(b.set.Slots)
	return max(load, known(s.KV)/pricing.FullKV, b.gpuPressure(s, requests, load))
}

// gpuPressure is what the GPUs say: SM utilization as it is; plain utilization
// in so far as the load bears it out. With nothing of ours in flight it is
// someone else's work, unless it is the end of our own.
func (b *Backend) gpuPressure(s *sense, requests, load float64) float64 {
	if requests == 0 {
		if s.gpuAt.Before(b.idleAt.Add(afterglow)) {
			return 0
		}
		return max(known(s.SM), known(s.Utilization))
	}
	if s.SM >= 0 {
		return s.SM
	}
	return known(s.Utilization) * min(1, load/halfLoad)
}

// paceIn is the seconds that b takes for a request of the pool; 1 where nothing
// is known, for the comparison does not need the unit.
func (b *Backend) paceIn(p *Pool) float64 {
	switch {
	case p.pace == 0:
		return 1
	case b.pace == 0:
		return p.pace.Seconds()
	}
	return min(max(b.pace, p.pace/paceSpread), p.pace*paceSpread).Seconds()
}

// observe folds one service time into the backend's pace.
func (b *Backend) observe(took time.Duration) {
	if b.pace == 0 {
		b.pace = took
		return
	}
	b.pace += (took - b.pace) / 10
}

// known is v, or 0 where it is NaN.
func known(v float64) float64 {
	if v != v {
		return 0
	}
	return v
}
