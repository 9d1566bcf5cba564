package gpu

import (
	"slices"
	"time"
)

// standing is how far a backend may be used for a model.
type standing uint8

const (
	// out means that the backend is not used at all.
	out standing = iota
	// trial means that the backend fails its health check by not answering, and has not shown that it
	// serves requests nevertheless. It gets one request at a time.
	trial
	// unchecked means that the backend fails its health check and yet serves requests.
	unchecked
	// spare means that the backend passes its health check, but its requests fail.
	spare
	// well means that nothing speaks against the backend.
	well
)

// servesFor is how long a request that went well counts as proof that a backend serves.
const servesFor = 2 * time.Minute

// trialAgain is how long a backend whose trial failed waits for the next trial.
const trialAgain = 30 * time.Second

// standing judges b for a pool. Failing health checks are believed unless requests went well meanwhile.
// In that case b is used if no other backend passes its check. A backend that cannot be reached, or
// does not take the key, is never used.
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

// room returns how many requests may run on b at once.
func (b *Backend) room(s standing) int {
	if s == trial {
		return 1
	}
	return b.set.Slots
}

// best returns the best standing among the pool's backends that are not in tried. Only backends of that
// standing are used. If the best standing is unchecked, backends on trial are used too.
func (p *Pool) best(tried []*Backend, now time.Time) standing {
	top := out
	for _, b := range p.backends {
		if !slices.Contains(tried, b) {
			top = max(top, b.standing(p, now))
		}
	}
	return top
}

// usable says whether a backend of standing s is used if top is the best standing.
func (s standing) usable(top standing) bool {
	return s != out && (s == top || s == trial && top == unchecked)
}

// serves says whether the pool can be sold. That needs a backend which may be used, which has not
// merely to be tried, and which serves the gateway's own request if the requests of clients failed.
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

// Serves says whether a request of the pool's model can be served, because some backend may be used. It
// is true before the first health check. It is false if each backend is in one of these states: it
// fails its check and serves nothing, it fails both the clients' requests and the gateway's own, it
// cannot be reached, it refuses the gateway's key, or it does not know the model.
func (p *Pool) Serves() bool {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	return p.serves(time.Now())
}

// Tries says whether a request of a caller with money may be tried although nobody knows whether it can
// be served. That is so if a backend's health check hangs, or if requests failed while the check
// passes.
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

// calm ends the panic of each pool of b that has a backend which passes its health check again.
func (f *Fleet) calm(b *Backend) {
	for _, p := range b.pools {
		if p.panic && p.best(nil, time.Now()) >= spare {
			p.panic = false
			f.log.Info("a backend of the model passes its health check again", "model", p.cfg.Model)
		}
	}
}
