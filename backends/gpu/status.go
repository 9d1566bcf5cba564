package gpu

import (
	"slices"
	"time"

	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/pricing"
)

// BackendStatus is one backend as readiness, dashboard and metrics see it.
type BackendStatus struct {
	Name    string `json:"name"`
	Healthy bool   `json:"healthy"` // passes its health check (true where it has none)
	Checked bool   `json:"checked"` // an active check has been made
	Ejected bool   `json:"ejected"` // by failed requests
	// Reachable is false while no connection to it can be made, as far as
	// requests and checks have shown.
	Reachable bool `json:"reachable"`
	// KeyRefused: it does not take the gateway's key.
	KeyRefused bool `json:"key_refused"`
	// Lacks are models that it did not know when it was asked last, each with
	// what it said. For the operator only.
	Lacks   map[string]string `json:"unknown_models,omitempty"`
	Returns time.Duration     `json:"-"` // until the ejection ends, zero without one
	// Drained: the operator took it out, see Fleet.Drain.
	Drained  bool `json:"drained,omitempty"`
	InFlight int  `json:"in_flight"`
	Slots    int  `json:"slots"`
	Weight   int  `json:"weight"`
	// Leaving is how many requests are open on servers that had this name and leave.
	Leaving int    `json:"leaving,omitempty"`
	Served  uint64 `json:"served"` // requests that ended well, or not by its fault
	Failed  uint64 `json:"failed"` // requests that it failed
	// LastError is of the last failed check or request, empty when the last
	// check passed. It names addresses: for the operator only.
	LastError string    `json:"last_error,omitempty"`
	LastCheck time.Time `json:"last_check,omitzero"`
	Models    []string  `json:"models"`
	// Guessed is how many requests had GPU time that was not measured, so that the
	// clock stood in for it.
	Guessed uint64       `json:"gpu_time_fallbacks"`
	Load    pricing.Load `json:"load"`
	// Telemetry is the last failure of its engine's feed, or what its reading lacks;
	// empty when it works or there is none. For the operator only.
	Telemetry string      `json:"telemetry_error,omitempty"`
	GPUs      []GPUStatus `json:"gpus,omitempty"`
}

// GPUStatus is one GPU of a backend.
type GPUStatus struct {
	Name  string `json:"name"` // as the configuration names it
	Feed  string `json:"feed"`
	Fresh bool   `json:"fresh"` // in a reading that is not stale
	// Source of its GPU-seconds: "measured", or "wall" while its work is not known,
	// with a request's part of the time itself.
	Source string `json:"source"`
	// Device is the last reading; nil: the feed has never seen it, or it has
	// vanished.
	Device *telemetry.Device `json:"device,omitempty"`
	// Busy is how many seconds it has been busy since a backend was first bound
	// to it, and Shared how many of them were shared out among requests.
	Busy   float64 `json:"busy_s"`
	Shared float64 `json:"shared_s"`
	// Fallback is how many seconds were shared out while its work was not known.
	Fallback float64 `json:"fallback_s"`
	Error    string  `json:"telemetry_error,omitempty"` // of the feed's last sample
}

// Status describes every backend, in the order of the configuration.
func (f *Fleet) Status() []BackendStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	list := make([]BackendStatus, 0, len(f.backends))
	for _, b := range f.backends {
		h := &b.health
		s := BackendStatus{Name: b.cfg.Name, Healthy: h.up, Checked: h.checked, Ejected: h.ejected,
			InFlight: b.inFlight, Slots: b.set.Slots, Served: b.served, Failed: b.failed, LastCheck: h.lastAt}
		s.Guessed, s.Drained, s.Weight = b.guessed, f.drained[b.cfg.Name], b.set.Weight
		for _, o := range f.leaving {
			if o.cfg.Name == b.cfg.Name {
				s.Leaving += o.inFlight
			}
		}
		s.KeyRefused = h.ejected && h.cause == byDenial
		s.Reachable = !(h.ejected && h.cause == bySilence) && (h.up || h.sickness != unreachable)
		if h.ejected {
			s.Returns = max(0, h.until.Sub(now))
		}
		if h.lastErr != nil {
			s.LastError = h.lastErr.Error()
		}
		for i, p := range b.pools {
			if !slices.Contains(p.backends, b) || f.pools[p.cfg.Model] != p {
				continue
			}
			s.Models = append(s.Models, p.cfg.Model)
			if reason := b.lacks[i].reason; reason != "" {
				if s.Lacks == nil {
					s.Lacks = map[string]string{}
				}
				s.Lacks[p.cfg.Model] = reason
			}
		}
		s.Load = b.load(now)
		if e := b.engine(); e != nil {
			s.Telemetry = failure(e)
			if s.Telemetry == "" && b.sense(now).untold {
				s.Telemetry = errUntold
			}
		}
		for _, g := range b.gpus {
			s.GPUs = append(s.GPUs, g.status(b, now))
		}
		list = append(list, s)
	}
	return list
}

func (g *binding) status(b *Backend, now time.Time) GPUStatus {
	s := GPUStatus{Name: g.GPU.Device, Feed: g.Feed.Name(), Device: g.device, Error: failure(g.Feed)}
	s.Fresh = g.device != nil && g.snapshot.Fresh(now, b.set.StaleAfter)
	s.Source, s.Fallback = "wall", g.gaps.seconds
	if s.Fresh && g.tells() {
		s.Source = "measured"
	}
	if g.divider != nil {
		s.Busy, s.Shared = g.divider.busy-g.divider.since, g.divider.shared
	}
	return s
}

func failure(f *telemetry.Feed) string {
	if err := f.Latest().Err; err != nil {
		return err.Error()
	}
	return ""
}

// errUntold is what is wrong with an engine's page that says nothing of what runs.
const errUntold = "the engine's metrics do not say how many requests are running, or not what can be true: the gateway's own are counted"

// PoolStatus is one pool as metrics and the dashboard see it.
type PoolStatus struct {
	Model   string `json:"model"`
	Healthy bool   `json:"healthy"` // some backend may be used
	// Panic: every backend fails its health check, and some are used because
	// their requests go well. Unchecked is how many requests went to such.
	Panic     bool   `json:"panic"`
	Unchecked uint64 `json:"unchecked"`

	Waiting    int           `json:"waiting"`  // in the queue
	Admitted   int           `json:"admitted"` // with a place and no slot: the waiting among them
	QueueLimit int           `json:"queue_limit"`
	FreeSlots  int           `json:"free_slots"`
	Refused    uint64        `json:"refused"`    // by a full queue
	PushedOut  uint64        `json:"pushed_out"` // of these: lost a place to an account with less in the queue
	Pace       time.Duration `json:"-"`          // mean time of service, zero before the first
	Load       pricing.Load  `json:"load"`
}

// Pools describes every pool, in the order of the configuration.
func (f *Fleet) Pools() []PoolStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	list := make([]PoolStatus, 0, len(f.order))
	for _, p := range f.order {
		free, _ := p.free(new(Bid))
		list = append(list, PoolStatus{Model: p.cfg.Model, Healthy: p.serves(now), Panic: p.panic, Unchecked: p.unchecked, Waiting: p.queue.n, Admitted: p.places,
			QueueLimit: p.cfg.QueueLimit, FreeSlots: free, Refused: p.refused, PushedOut: p.pushedOut, Pace: p.pace, Load: p.load(now)})
	}
	return list
}

// Healthy says whether the model has a backend that serves and is known to: it
// passes its health check, has none and can be reached, or serves although it
// fails the check, and does not fail all requests. It is false before the first check, although requests are let
// through then.
func (f *Fleet) Healthy(model string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pools[model]
	if p == nil {
		return false
	}
	now := time.Now()
	for _, b := range p.backends {
		if s := b.standing(p, now); s > trial && (s != spare || !b.health.unproven) && (b.health.checked || b.cfg.HealthPath == "") {
			return true
		}
	}
	return false
}
