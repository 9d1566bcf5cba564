package gpu

import (
	"slices"
	"time"
)

// standing is how far a backend may be used for a model.
type standing uint8

const (
	// out: not at all.
	out standing = iota
	// trial: it fails its health check by saying nothing, and has not shown that
	// it serves all the same: one request at a time may.
	trial
	// unchecked: it fails its health check and yet serves.
	unchecked
	// spare: it passes its health check, and its requests fail.
	spare
	// well: nothing speaks against it.
	well
)

// servesFor is how long a request that went well shows that a backend serves.
const servesFor = 2 * time.Minute

// trialAgain is how long a backend whose trial failed waits for the next.
const trialAgain = 30 * time.Second

// standing judges b for a pool. Health checks that fail are believed unless
// requests show better: then b is used where no other one passes its check. A
// backend that cannot be reached, or does not take the key, is never used.
func (b *Backend) standing(p *Pool, now time.Time) standing {
	h := &b.health
	switch {
	case b.leaving, b.fleet.drained[b.cfg.Name]:
		return out
	case h.ejected && h.cause != byFailures, b.lacking(p, now), p.cfg.NeedGPUTime && !b.gpuKnown(now):
		return out
	case h.up && h.ejected:
		return spare
	case h.up:
		return well
	case h.ejected, h.sickness == unreachable:
		return out
	case h.servedAt.After(h.sickAt) && now.Sub(h.servedAt) <= servesFor:
		return unchecked
	case h.sickness == silent && (h.fails == 0 || now.Sub(h.failedAt) > trialAgain):
		return trial
	}
	return out
}

// room is how many requests may run on b at once.
func (b *Backend) room(s standing) int {
	if s == trial {
		return 1
	}
	return b.set.Slots
}

// best is the best standing among the pool's backends that are not in tried:
// only backends of that standing are used, where trial counts as unchecked.
func (p *Pool) best(tried []*Backend, now time.Time) standing {
	top := out
	for _, b := range p.backends {
		if !slices.Contains(tried, b) {
			top = max(top, b.standing(p, now))
		}
	}
	return top
}

// usable says whether a backend of standing s is used where top is the best.
func (s standing) usable(top standing) bool {
	return s != out && (s == top || s == trial && top == unchecked)
}

// serves says whether the pool can be sold: a backend of it may be used, has not
// merely to be tried, and serves the gateway's own request where those of clients
// failed.
func (p *Pool) serves(now time.Time) bool {
	if p.fleet.closed {
		return false
	}
	for _, b := range p.backends {
		switch b.standing(p, now) {
		case out:
		case spare:
			if !b.health.unproven {
				return true
			}
		case trial:
			if !b.health.servedAt.IsZero() && now.Sub(b.health.servedAt) <= servesFor {
				return true
			}
		default:
			return true
		}
	}
	return false
}

// Serves says whether a request of the pool's model can be served: some backend may be used. It is
// true before the first health check. It is false where each backend fails its check and serves
// nothing, fails both the clients' requests and the gateway's own, cannot be reached, refuses the
// gateway's key, or does not know the model.
func (p *Pool) Serves() bool {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	return p.serves(time.Now())
}

// Tries says whether a request of a caller with money may be tried, although it
// is not known whether it can be served: a backend's health check hangs, which
// leaves that open, or requests failed while the check goes well.
func (p *Pool) Tries() bool {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	best := p.best(nil, time.Now())
	return (best == trial || best == spare) && !p.fleet.closed
}

// panicked counts a request that goes to a backend which fails its check.
func (p *Pool) panicked() {
	p.unchecked++
	if !p.panic {
		p.panic = true
		p.fleet.log.Warn("every backend of the model fails its health check; those that serve all the same are used",
			"model", p.cfg.Model)
	}
}

// calm says that a pool goes by health checks again.
func (f *Fleet) calm(b *Backend) {
	for _, p := range b.pools {
		if p.panic && p.best(nil, time.Now()) >= spare {
			p.panic = false
			f.log.Info("a backend of the model passes its health check again", "model", p.cfg.Model)
		}
	}
}
