package gpu

import (
	"encoding/json"
	"math"
	"time"

	"sluice.example/sluice/backends/gpu/telemetry"
)

// Load is how busy a pool, or a backend, is at a moment. Requests count where
// they run: for each backend the larger of what its engine says and what this
// gateway has there.
type Load struct {
	Running  float64 // requests being worked on
	Waiting  float64 // in the engines' queues and, for a pool, in its own
	Capacity float64 // slots of the backends that may be used
	InFlight float64 // this gateway's own requests on the backends, other pools' included
	KV       float64 // use of the fullest KV cache, 0..1; NaN: none known
	SM       float64 // SM utilization, mean over the GPUs, 0..1; NaN: none known
	// Utilization is the plain one, mean over the GPUs, 0..1; NaN: none known.
	Utilization float64
	// Energy is the joules consumed for the pool since the process began: a
	// counter that never falls. A GPU that several pools share is divided by
	// their requests in flight. NaN: no GPU counts its energy.
	Energy float64
	// Stale: telemetry is configured, and nothing of it is fresh.
	Stale bool
	// Age of the newest reading; zero without telemetry.
	Age time.Duration
}

// MarshalJSON leaves out what is not known.
func (l Load) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Running     float64  `json:"running"`
		Waiting     float64  `json:"waiting"`
		Capacity    float64  `json:"capacity"`
		InFlight    float64  `json:"in_flight"`
		KV          *float64 `json:"kv_cache,omitempty"`
		SM          *float64 `json:"sm_utilization,omitempty"`
		Utilization *float64 `json:"utilization,omitempty"`
		Energy      *float64 `json:"energy_joules,omitempty"`
		Stale       bool     `json:"stale"`
		Age         float64  `json:"age_s"`
	}{l.Running, l.Waiting, l.Capacity, l.InFlight, telemetry.Known(l.KV), telemetry.Known(l.SM),
		telemetry.Known(l.Utilization), telemetry.Known(l.Energy), l.Stale, l.Age.Seconds()})
}

// sense is what a backend's telemetry says at a moment; stale readings say
// nothing. NaN: not known.
type sense struct {
	running, waiting, kv float64
	sm, utilization      float64   // mean over its GPUs
	gpuAt                time.Time // of the oldest of the readings in them
	fresh                bool
	newest               time.Time // of all readings, stale ones too; zero: none
}

func (b *Backend) sense(now time.Time) sense {
	n := math.NaN()
	s := sense{running: n, waiting: n, kv: n, sm: n, utilization: n}
	if b.set.Engine != nil {
		snapshot := b.set.Engine.Latest()
		s.newest = snapshot.At
		if e := snapshot.Engine; e != nil && snapshot.Fresh(now, b.set.StaleAfter) {
			s.fresh, s.running, s.waiting, s.kv = true, e.Running, e.Waiting, e.KV
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
		s.fresh = true
		if s.gpuAt.IsZero() || g.snapshot.At.Before(s.gpuAt) {
			s.gpuAt = g.snapshot.At
		}
		sm.add(g.device.SM)
		utilization.add(g.device.Utilization)
	}
	s.sm, s.utilization = sm.value(), utilization.value()
	return s
}

// mean is of the values that are known.
type mean struct{ sum, n float64 }

func (m *mean) add(v float64) {
	if !math.IsNaN(v) {
		m.sum, m.n = m.sum+v, m.n+1
	}
}

func (m *mean) value() float64 { return m.sum / m.n } // 0/0 is NaN: not known

// tally adds up the load of several backends.
type tally struct {
	Load
	fleet           *Fleet
	sm, utilization mean
	telemetry       bool
	newest          time.Time
	fresh           bool
}

func newTally(f *Fleet) *tally {
	f.mark++
	return &tally{fleet: f, Load: Load{KV: math.NaN(), Energy: math.NaN()}}
}

func (t *tally) add(b *Backend, now time.Time) {
	s := b.sense(now)
	own, running, waiting := float64(b.inFlight), known(s.running), known(s.waiting)
	t.InFlight += own
	t.Waiting += waiting
	t.Running += max(own-waiting, running)
	t.Capacity += float64(b.set.Slots)
	if !math.IsNaN(s.kv) && !(t.KV >= s.kv) {
		t.KV = s.kv
	}
	for _, g := range b.gpus {
		if g.meter == nil || g.meter.mark == t.fleet.mark {
			continue
		}
		g.meter.mark = t.fleet.mark
		g.meter.advance(now)
		if g.device != nil && g.snapshot.Fresh(now, b.set.StaleAfter) {
			t.sm.add(g.device.SM)
			t.utilization.add(g.device.Utilization)
		}
	}
	t.telemetry = t.telemetry || b.set.Engine != nil || len(b.gpus) > 0
	t.fresh = t.fresh || s.fresh
	if s.newest.After(t.newest) {
		t.newest = s.newest
	}
}

func (t *tally) load(now time.Time) Load {
	t.SM, t.Utilization = t.sm.value(), t.utilization.value()
	if t.telemetry {
		t.Stale = !t.fresh
		if t.newest.IsZero() {
			t.newest = t.fleet.born
		}
		t.Age = max(0, now.Sub(t.newest))
	}
	return t.Load
}

// Load is how busy the pool is now.
func (p *Pool) Load(now time.Time) Load {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	return p.load(now)
}

func (p *Pool) load(now time.Time) Load {
	top := p.best(nil, now)
	t := newTally(p.fleet)
	for _, b := range p.backends {
		if s := b.standing(p, now); top == out || s.usable(top) || top == well && s == spare {
			t.add(b, now)
		}
	}
	if top <= trial {
		t.Capacity = 0
	}
	t.Waiting += float64(p.queue.n)
	l := t.load(now)
	if p.counts {
		l.Energy = p.joules
	}
	return l
}

// Load is how busy the backend is now. Its energy is not told: that is shared
// out among pools.
func (b *Backend) Load(now time.Time) Load {
	b.fleet.mu.Lock()
	defer b.fleet.mu.Unlock()
	return b.load(now)
}

func (b *Backend) load(now time.Time) Load {
	t := newTally(b.fleet)
	t.add(b, now)
	if !b.health.up {
		t.Capacity = 0
	}
	return t.load(now)
}
