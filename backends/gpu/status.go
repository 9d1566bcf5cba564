package gpu

import "time"

// BackendStatus is one backend as readiness, dashboard and metrics see it.
type BackendStatus struct {
	Name     string        `json:"name"`
	Healthy  bool          `json:"healthy"` // passes its health check (true where it has none)
	Checked  bool          `json:"checked"` // an active check has been made
	Ejected  bool          `json:"ejected"` // by failed requests
	Returns  time.Duration `json:"-"`       // until the ejection ends, zero without one
	InFlight int           `json:"in_flight"`
	Slots    int           `json:"slots"`
	Served   uint64        `json:"served"` // requests that ended well, or not by its fault
	Failed   uint64        `json:"failed"` // requests that it failed
	// LastError is of the last failed check or request, empty when the last
	// check passed. It names addresses: for the operator only.
	LastError string    `json:"last_error,omitempty"`
	LastCheck time.Time `json:"last_check,omitzero"`
	Models    []string  `json:"models"`
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
			InFlight: b.inFlight, Slots: b.cfg.Slots, Served: b.served, Failed: b.failed, LastCheck: h.lastAt}
		if h.ejected {
			s.Returns = max(0, h.until.Sub(now))
		}
		if h.lastErr != nil {
			s.LastError = h.lastErr.Error()
		}
		for _, p := range b.pools {
			s.Models = append(s.Models, p.cfg.Model)
		}
		list = append(list, s)
	}
	return list
}

// PoolStatus is one pool as metrics and the dashboard see it.
type PoolStatus struct {
	Model      string        `json:"model"`
	Healthy    bool          `json:"healthy"`
	Waiting    int           `json:"waiting"`  // in the queue
	Admitted   int           `json:"admitted"` // with a place and no slot: the waiting among them
	QueueLimit int           `json:"queue_limit"`
	FreeSlots  int           `json:"free_slots"`
	Refused    uint64        `json:"refused"`    // by a full queue
	PushedOut  uint64        `json:"pushed_out"` // of these: lost a place to an account with less in the queue
	Pace       time.Duration `json:"-"`          // mean time of service, zero before the first
}

// Pools describes every pool, in the order of the configuration.
func (f *Fleet) Pools() []PoolStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]PoolStatus, 0, len(f.order))
	for _, p := range f.order {
		free, well := p.free()
		list = append(list, PoolStatus{Model: p.cfg.Model, Healthy: well, Waiting: p.queue.n, Admitted: p.places,
			QueueLimit: p.cfg.QueueLimit, FreeSlots: free, Refused: p.refused, PushedOut: p.pushedOut, Pace: p.pace})
	}
	return list
}

// Healthy says whether the model has a backend known to pass its health check
// (or one without such a check). It is false before the first check, although
// requests are let through then.
func (f *Fleet) Healthy(model string) bool {
	p := f.pools[model]
	if p == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range p.backends {
		if b.health.up && (b.health.checked || b.cfg.HealthPath == "") {
			return true
		}
	}
	return false
}
