package gpu

import (
	"math"
	"time"

	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/pricing"
)

// sense is what a backend's telemetry says at a moment. Stale readings say nothing.
type sense struct {
	// Load holds Running, Waiting and KV of the engine, and SM and Utilization of the GPUs. Its Stale
	// means that no reading tells how busy the backend is.
	pricing.Load
	gpuAt  time.Time // of the oldest fresh reading of a GPU
	newest time.Time // of the newest reading, even if it is stale; zero means there is none
	untold bool      // the engine's reading is fresh and does not say how many requests run
}

// engine returns the feed of the server's own metrics, or nil if the server offers none.
func (b *Backend) engine() *telemetry.Feed {
	if e := b.set.Engine; e != nil && !(b.set.EngineMayLack && e.Latest().At.IsZero()) {
		return e
	}
	return nil
}

func (b *Backend) sense(now time.Time) sense {
	s := sense{Load: pricing.UnknownLoad()}
	s.Stale = true
	if e := b.engine(); e != nil {
		snapshot := e.Latest()
		s.newest = snapshot.At
		if e := snapshot.Engine; e != nil && snapshot.Fresh(now, b.set.StaleAfter) {
			s.Running, s.Waiting, s.KV = e.Running, e.Waiting, e.KV
			s.untold = math.IsNaN(e.Running)
			s.Stale = s.untold // nothing else on the page tells how busy the engine is
		}
	}
	var sm, utilization mean
	for _, g := range b.gpus {
		b.look(g, now)
		if g.snapshot.At.After(s.newest) {
			s.newest = g.snapshot.At
		}
		if g.device == nil || !g.snapshot.Fresh(now, b.set.StaleAfter) {
			continue
		}
		s.Stale = false
		if s.gpuAt.IsZero() || g.snapshot.At.Before(s.gpuAt) {
			s.gpuAt = g.snapshot.At
		}
		sm.add(g.device.SM)
		utilization.add(g.device.Utilization)
	}
	s.SM, s.Utilization = sm.value(), utilization.value()
	return s
}

// mean is the mean of the values that are known.
type mean struct{ sum, n float64 }

func (m *mean) add(v float64) {
	if !math.IsNaN(v) {
		m.sum, m.n = m.sum+v, m.n+1
	}
}

func (m *mean) value() float64 { return m.sum / m.n } // 0/0 is NaN, which means not known

// joined adds up the load of several backends.
type joined struct {
	pricing.Load
	fleet           *Fleet
	sm, utilization mean
	telemetry       bool
	newest          time.Time
	fresh           bool
	untold          bool // of some backend
}

func newJoined(f *Fleet) *joined {
	f.mark++
	return &joined{fleet: f, Load: pricing.Load{KV: math.NaN(), Energy: math.NaN()}}
}

func (j *joined) add(b *Backend, now time.Time) {
	s := b.sense(now)
	own, running, waiting := float64(b.inFlight), known(s.Running), known(s.Waiting)
	j.InFlight += own
	j.Waiting += waiting
	j.Running += max(own-waiting, running)
	j.Capacity += float64(b.set.Slots)
	if !math.IsNaN(s.KV) && !(j.KV >= s.KV) {
		j.KV = s.KV
	}
	for _, g := range b.gpus {
		if g.divider == nil || g.divider.mark == j.fleet.mark {
			continue
		}
		g.divider.mark = j.fleet.mark
		g.divider.advance(now)
		if g.device != nil && g.snapshot.Fresh(now, b.set.StaleAfter) {
			j.sm.add(g.device.SM)
			j.utilization.add(g.device.Utilization)
		}
	}
	j.telemetry = j.telemetry || b.engine() != nil || len(b.gpus) > 0
	j.fresh = j.fresh || !s.Stale
	j.untold = j.untold || s.untold
	if s.newest.After(j.newest) {
		j.newest = s.newest
	}
}

func (j *joined) load(now time.Time) pricing.Load {
	j.SM, j.Utilization = j.sm.value(), j.utilization.value()
	if j.telemetry {
		j.Stale = !j.fresh
		if j.newest.IsZero() {
			j.newest = j.fleet.born
		}
		j.Age = max(0, now.Sub(j.newest))
	}
	return j.Load
}

// Load returns how busy the pool is now.
func (p *Pool) Load(now time.Time) pricing.Load {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	return p.load(now)
}

func (p *Pool) load(now time.Time) pricing.Load {
	top := p.best(nil, now)
	j := newJoined(p.fleet)
	for _, b := range p.backends {
		if s := b.standing(p, now); top == out || s.usable(top) || top == well && s == spare {
			j.add(b, now)
		}
	}
	if top <= trial {
		j.Capacity = 0
	}
	j.Queued = float64(p.queue.n)
	j.Waiting += j.Queued
	l := j.load(now)
	if p.counts {
		l.Energy = p.joules
	}
	return l
}

// Load returns how busy the backend is now. It leaves out energy, because energy is shared out among
// pools. It leaves out the running requests if the engine does not tell them. The load of a pool then
// counts the gateway's own requests instead.
func (b *Backend) Load(now time.Time) pricing.Load {
	b.fleet.mu.Lock()
	defer b.fleet.mu.Unlock()
	return b.load(now)
}

func (b *Backend) load(now time.Time) pricing.Load {
	j := newJoined(b.fleet)
	j.add(b, now)
	if !b.health.up {
		j.Capacity = 0
	}
	if j.untold {
		j.Running = math.NaN()
	}
	return j.load(now)
}
