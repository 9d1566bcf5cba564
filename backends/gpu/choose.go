package gpu

import (
	"slices"
	"time"

	"sluice.example/sluice/pricing"
)

// fewBackends is the largest number of candidates that are all compared. Of more candidates, two are
// drawn at random and the better of the two is taken. The result is nearly as good, and several
// gateways that read the same old numbers do not all choose the same backend.
const fewBackends = 4

// nowhere returns why no backend is left for a request that has already been to the backends in tried.
func (p *Pool) nowhere(tried []*Backend) error {
	if p.priced && !p.fleet.closed && p.best(tried, time.Now()) != out {
		return ErrTooDear
	}
	return ErrNoBackend
}

// anyOpen says whether any usable backend has a free slot, whatever it asks.
func (p *Pool) anyOpen() bool {
	now := time.Now()
	for _, b := range p.backends {
		if s := b.standing(p, now); s != out && b.inFlight < b.room(s) {
			return true
		}
	}
	return false
}

// choose returns a backend with a free slot for t, or nil. If backends of the pool ask prices, choose
// takes the cheapest of the backends that can serve in time. Among equally cheap backends choose takes
// the backend with the least expected wait, or, in a pool with weights, the backend whose turn it is.
// wait is true if a usable backend outside t.tried asks no more than t pays, so that t may wait for a
// slot. If all usable backends are ejected, choose takes the backend that returns soonest.
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

// deal notes that b got a request of the pool. Each request moves its backend on by the inverse of the
// backend's weight.
func (p *Pool) deal(b *Backend) {
	p.dealt = p.turnOf(b)
	b.dealt[slices.Index(b.pools, p)] = p.dealt
}

// turnOf returns where another request of the pool would move b. A backend that was away begins at most
// a step behind the last request dealt, because a backend does not make up for its absence.
func (p *Pool) turnOf(b *Backend) float64 {
	step := 1 / float64(b.set.Weight)
	return max(b.dealt[slices.Index(b.pools, p)], p.dealt-step) + step
}

// byWeight returns the backend whose turn it is. Of equals it takes the first.
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

// least keeps the backends for which the function of returns the smallest value. It reuses the list's
// memory.
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

// cheapest keeps, of the backends that would begin with the request within the pool's QueueTimeout,
// those that ask the least. If no backend would begin in time, cheapest keeps all, so that the wait
// decides.
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

// leastWait returns the backend with the least expected wait. It compares all candidates if they are
// few, else two drawn at random. Of equals it takes the first.
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

// Constants of the expected wait.
const (
	// kvFull is the fill of the KV cache from which a new request has to wait until another request
	// ends.
	kvFull = 0.95
	// halfLoad is the load from which a GPU's plain utilization is fully believed. Below halfLoad
	// utilization counts less, because it is high long before the GPU is full.
	halfLoad = 0.5
	// afterglow is how long utilization still reflects work that has ended.
	afterglow = time.Second
	// paceSpread is the factor by which a backend's pace may differ at most from its pool's pace, so
	// that a few odd requests do not decide.
	paceSpread = 4
)

// queueing estimates how many seconds pass before b begins with a request that b gets now. The requests
// in the engine's own queue are served first. If the KV cache is full, another request must also end
// first.
func (b *Backend) queueing(p *Pool, s *sense) float64 {
	wait := b.paceIn(p) * known(s.Waiting) / float64(b.set.Slots)
	if s.KV >= kvFull {
		wait += b.paceIn(p) / max(1, known(s.Running), float64(b.inFlight))
	}
	return wait
}

// expected estimates how many seconds longer a request takes that b gets now than it takes on an idle
// server. The estimate is the time in the queue plus the delay that the requests beside it cause.
func (b *Backend) expected(p *Pool, now time.Time) float64 {
	s := b.sense(now)
	return b.queueing(p, &s) + b.paceIn(p)*b.pressure(&s)
}

// pressure returns how loaded b is, where 1 means full. It is the highest of the load by requests, by
// the KV cache, and by the work of the GPUs.
func (b *Backend) pressure(s *sense) float64 {
	requests := max(float64(b.inFlight), known(s.Running)+known(s.Waiting))
	load := requests / float64(b.set.Slots)
	return max(load, known(s.KV)/pricing.FullKV, b.gpuPressure(s, requests, load))
}

// gpuPressure returns how loaded the GPUs say that b is. SM utilization counts as it is. Plain
// utilization counts in proportion to the load, and fully from halfLoad on. If no request is known on
// b, the GPUs do the work of others, unless the reading may still show the end of this gateway's last
// request.
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

// paceIn returns how many seconds b takes for a request of the pool. It returns 1 if the pool has no
// pace yet, because a comparison of backends needs no unit.
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

// known returns v, or 0 if v is NaN.
func known(v float64) float64 {
	if v != v {
		return 0
	}
	return v
}
