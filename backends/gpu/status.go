package gpu

import (
	"slices"
	"time"

	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/pricing"
)

// BackendStatus describes one backend for readiness, the dashboard and metrics.
type BackendStatus struct {
	Name    string `json:"name"`
	Healthy bool   `json:"healthy"` // passes its health check; true without a health check
	Checked bool   `json:"checked"` // an active check has been made
	Ejected bool   `json:"ejected"` // gets no requests for a while, because requests failed
	// Reachable is false while no connection to the backend can be made, as far as requests and checks
	// have shown.
	Reachable bool `json:"reachable"`
	// KeyRefused means that the backend does not take the gateway's key.
	KeyRefused bool `json:"key_refused"`
	// Lacks maps each model that the backend did not know when it was asked last to what the backend
	// said. It is for the operator only.
	Lacks   map[string]string `json:"unknown_models,omitempty"`
	Returns time.Duration     `json:"-"` // until the ejection ends; zero without an ejection
	// Drained means that the operator took the backend out: see Fleet.Drain.
	Drained  bool `json:"drained,omitempty"`
	InFlight int  `json:"in_flight"`
	Slots    int  `json:"slots"`
	Weight   int  `json:"weight"`
	// Leaving is how many requests are open on leaving backends that had this name.
	Leaving int    `json:"leaving,omitempty"`
	Served  uint64 `json:"served"` // requests that went well
	Failed  uint64 `json:"failed"` // requests that failed by the backend's fault
	// LastError is the error of the last failed check or request. It is empty if the last check passed.
	// It names addresses, so it is for the operator only.
	LastError string    `json:"last_error,omitempty"`
	LastCheck time.Time `json:"last_check,omitzero"`
	Models    []string  `json:"models"`
	// Guessed is how many requests had GPU time that was not measured and was taken from the clock
	// instead.
	Guessed uint64       `json:"gpu_time_fallbacks"`
	Load    pricing.Load `json:"load"`
	// Telemetry is the last failure of the feed of the backend's engine, or what the engine's reading
	// lacks. It is empty if the feed works or there is none. It is for the operator only.
	Telemetry string      `json:"telemetry_error,omitempty"`
	GPUs      []GPUStatus `json:"gpus,omitempty"`
}

// GPUStatus describes one GPU of a backend.
type GPUStatus struct {
	Name  string `json:"name"` // as the configuration names it
	Feed  string `json:"feed"`
	Fresh bool   `json:"fresh"` // the last reading holds the GPU and is not stale
	// Source is the source of the GPU-seconds: "measured", or "wall" while the GPU's work is not known.
	// With "wall" a request gets its part of the elapsed time.
	Source string `json:"source"`
	// Device is the last reading. Nil means that the feed has never seen the GPU, or that the GPU has
	// vanished.
	Device *telemetry.Device `json:"device,omitempty"`
	// Busy is how many seconds the GPU has been busy since a backend was first bound to it. Shared is
	// how many of these seconds were shared out among requests.
	Busy   float64 `json:"busy_s"`
	Shared float64 `json:"shared_s"`
	// Fallback is how many seconds were shared out while the GPU's work was not known.
	Fallback float64 `json:"fallback_s"`
	Error    string  `json:"telemetry_error,omitempty"` // error of the feed's last sample
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

// errUntold is what is wrong with an engine's page that does not say how many requests run.
const errUntold = "the engine's metrics do not say how many requests are running, or not what can be true: the gateway's own are counted"

// PoolStatus describes one pool for metrics and the dashboard.
type PoolStatus struct {
	Model   string `json:"model"`
	Healthy bool   `json:"healthy"` // see Pool.Serves
	// Panic means that every backend fails its health check, and that some are used because their
	// requests go well. Unchecked is how many requests went to such backends.
	Panic     bool   `json:"panic"`
	Unchecked uint64 `json:"unchecked"`

	Waiting    int           `json:"waiting"`  // in the queue
	Admitted   int           `json:"admitted"` // requests with a place and without a slot, including Waiting
	QueueLimit int           `json:"queue_limit"`
	FreeSlots  int           `json:"free_slots"`
	Refused    uint64        `json:"refused"`    // by a full queue
	PushedOut  uint64        `json:"pushed_out"` // of Refused: lost a place to an account with fewer requests
	Pace       time.Duration `json:"-"`          // mean time of service; zero before the first request
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

// Healthy says whether the model has a backend that is known to serve. Such a backend passes its health
// check, or has no check and can be reached, or serves requests although it fails the check. It also
// must not fail all requests. Healthy is false before the first check, although requests are admitted
// then.
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
