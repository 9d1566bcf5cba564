package gpu

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Plan is another configuration of a fleet. Prepare has checked it, and Commit puts it in force.
type Plan struct {
	fleet    *Fleet
	backends []*Backend // the backends that stay, and those that join
	configs  []BackendConfig
	pools    []*Pool
	settings []PoolConfig
	members  [][]*Backend // the backends of each pool, by index in pools
	byModel  map[string]*Pool
}

// Prepare checks a whole configuration and returns the plan that puts it in force. A backend stays if
// its new configuration differs at most in its slots, its weight, what it asks and where its load is
// read. A backend that stays keeps its connections, its health and all that the fleet learnt of it.
// Otherwise a new backend of the same name replaces the old backend. A pool stays if its model is still
// configured. Calls of Prepare and Commit must not overlap.
// overlap.
func (f *Fleet) Prepare(cfg Config) (*Plan, error) {
	plan := &Plan{fleet: f, byModel: make(map[string]*Pool, len(cfg.Pools))}
	byName := make(map[string]*Backend, len(cfg.Backends))
	f.mu.Lock()
	there := slices.Clone(f.backends)
	f.mu.Unlock()
	for _, bc := range cfg.Backends {
		b, err := newBackend(f, bc)
		if err != nil {
			return nil, fmt.Errorf("backend %q: %w", bc.Name, err)
		}
		if byName[bc.Name] != nil {
			return nil, fmt.Errorf("backend %q: configured twice", bc.Name)
		}
		if i := slices.IndexFunc(there, func(o *Backend) bool { return o.same(b) }); i >= 0 {
			b = there[i]
		}
		byName[bc.Name] = b
		plan.backends, plan.configs = append(plan.backends, b), append(plan.configs, bc)
	}
	for _, pc := range cfg.Pools {
		if err := plan.addPool(pc, byName); err != nil {
			return nil, fmt.Errorf("pool of model %q: %w", pc.Model, err)
		}
	}
	return plan, nil
}

func (plan *Plan) addPool(cfg PoolConfig, byName map[string]*Backend) error {
	switch {
	case cfg.Model == "":
		return errors.New("has no model")
	case plan.byModel[cfg.Model] != nil:
		return errors.New("configured twice")
	case len(cfg.Backends) == 0:
		return errors.New("has no backend")
	case cfg.QueueLimit < 0 || cfg.QueueTimeout < 0 || cfg.PerAccount < 0:
		return errors.New("queue limit, share and timeout cannot be negative")
	}
	if cfg.QueueTimeout == 0 {
		cfg.QueueTimeout = DefaultQueueTimeout
	}
	var members []*Backend
	for _, name := range cfg.Backends {
		b := byName[name]
		if b == nil {
			return fmt.Errorf("backend %q does not exist", name)
		}
		if slices.Contains(members, b) {
			return fmt.Errorf("backend %q is named twice", name)
		}
		members = append(members, b)
	}
	p := plan.fleet.Pool(cfg.Model)
	if p == nil {
		p = &Pool{fleet: plan.fleet, cfg: cfg, domain: new(domain)}
	}
	plan.byModel[cfg.Model] = p
	plan.pools, plan.settings, plan.members = append(plan.pools, p), append(plan.settings, cfg), append(plan.members, members)
	return nil
}

// Pool returns the plan's pool of a public model, or nil if there is none.
func (plan *Plan) Pool(model string) *Pool { return plan.byModel[model] }

// same says whether o describes the same server in the same way as b. If so, Prepare keeps b, with its
// connections, its health and all that the fleet learnt of it.
func (b *Backend) same(o *Backend) bool {
	x, y := &b.cfg, &o.cfg
	return x.Name == y.Name && x.URL.String() == y.URL.String() && x.APIKey == y.APIKey && x.KeyHeader == y.KeyHeader &&
		maps.Equal(x.Paths, y.Paths) && x.Query == y.Query &&
		x.HealthPath == y.HealthPath && slices.Equal(x.HealthFallback, y.HealthFallback) && x.HealthEvery == y.HealthEvery &&
		x.ConnectTimeout == y.ConnectTimeout && x.FirstByteTimeout == y.FirstByteTimeout &&
		x.FirstEventTimeout == y.FirstEventTimeout && x.IdleTimeout == y.IdleTimeout &&
		maps.Equal(x.Models, y.Models) && slices.Equal(x.GPUs, y.GPUs)
}

// Commit puts the plan in force. New backends join, and the pools take their new backends. A backend
// leaves if the configuration leaves it out or replaces it. A leaving backend gets no new requests, and
// is gone once its open requests have ended. Commit returns the backends that leave now. It does
// nothing after Close.
func (plan *Plan) Commit() (leaving []*Backend) {
	f := plan.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	now := time.Now()
	for i, b := range plan.backends {
		b.tune(&plan.configs[i])
		if !slices.Contains(f.backends, b) {
			f.watch(b)
		}
	}
	for _, b := range f.backends {
		if !slices.Contains(plan.backends, b) {
			leaving = append(leaving, b)
		}
	}
	f.backends = plan.backends
	plan.setPools()
	for _, b := range leaving {
		b.leave(now)
	}
	for _, p := range f.order {
		for _, b := range p.backends {
			f.dispatch(b)
		}
	}
	f.failStranded()
	return leaving
}

// setPools makes the plan's pools the pools of the fleet. A pool whose model is no longer sold keeps
// those of its backends that stay, for requests that wait in the pool or that were admitted before.
func (plan *Plan) setPools() {
	f := plan.fleet
	f.retired = slices.DeleteFunc(f.retired, func(p *Pool) bool {
		if p.places > 0 {
			return false
		}
		p.backends = nil
		return true
	})
	for _, p := range f.order {
		if plan.byModel[p.cfg.Model] != p {
			f.retired = append(f.retired, p)
		}
	}
	f.pools, f.order = plan.byModel, plan.pools
	for i, p := range plan.pools {
		p.tune(plan.settings[i], plan.members[i])
	}
	for _, p := range f.retired {
		p.backends = slices.DeleteFunc(slices.Clone(p.backends), func(b *Backend) bool { return !slices.Contains(f.backends, b) })
	}
	for _, b := range f.backends {
		b.leavePools()
	}
	f.joinDomains()
}

// tune takes over those settings of a pool that may change.
func (p *Pool) tune(cfg PoolConfig, members []*Backend) {
	p.cfg.Backends, p.cfg.QueueLimit, p.cfg.PerAccount = cfg.Backends, cfg.QueueLimit, cfg.PerAccount
	p.cfg.QueueTimeout, p.cfg.NeedGPUTime = cfg.QueueTimeout, cfg.NeedGPUTime
	p.backends, p.priced, p.weighted = members, false, false
	for _, b := range members {
		p.priced = p.priced || b.set.Ask != nil
		p.weighted = p.weighted || b.set.Weight != members[0].set.Weight
		b.joinPool(p)
	}
}

// tune takes over those settings that may change in a backend that stays.
func (b *Backend) tune(cfg *BackendConfig) {
	slots, weight := cfg.Slots, cfg.Weight
	stale := cfg.StaleAfter
	if stale == 0 {
		stale = DefaultStaleAfter
	}
	b.set = settings{Slots: slots, Weight: max(weight, 1), Engine: cfg.Engine, EngineMayLack: cfg.EngineMayLack, Ask: cfg.Ask, StaleAfter: stale}
}

// joinPool adds a pool to the lists in which the backend keeps its counts by pool.
func (b *Backend) joinPool(p *Pool) {
	if slices.Contains(b.pools, p) {
		return
	}
	b.pools = append(b.pools, p)
	b.byPool = append(b.byPool, 0)
	b.lacks = append(b.lacks, lack{})
	b.dealt = append(b.dealt, 0)
	for _, g := range b.gpus {
		if g.divider != nil {
			g.divider.join(p)
		}
	}
}

// leavePools removes each pool that the backend no longer serves, once no request of that pool runs on
// the backend.
func (b *Backend) leavePools() {
	for i := len(b.pools) - 1; i >= 0; i-- {
		p := b.pools[i]
		if b.byPool[i] > 0 || slices.Contains(p.backends, b) {
			continue
		}
		for _, g := range b.gpus {
			if g.divider != nil {
				g.divider.part(p)
			}
		}
		b.pools = slices.Delete(b.pools, i, i+1)
		b.byPool = slices.Delete(b.byPool, i, i+1)
		b.lacks = slices.Delete(b.lacks, i, i+1)
		b.dealt = slices.Delete(b.dealt, i, i+1)
	}
}

// leave takes a backend out of the fleet. Requests that run on the backend continue.
func (b *Backend) leave(now time.Time) {
	f := b.fleet
	b.leaving = true
	f.leaving = append(f.leaving, b)
	if b.unwatch != nil {
		b.unwatch()
	}
	if b.comeback != nil {
		b.comeback.Stop()
	}
	f.log.Info("backend leaves: it gets no new requests", "backend", b.cfg.Name, "open", b.inFlight)
	if b.inFlight == 0 {
		b.depart(now)
	}
}

// depart removes a leaving backend for good. The backend has no request in flight any more.
func (b *Backend) depart(now time.Time) {
	f := b.fleet
	b.gone.Store(true)
	f.leaving = slices.DeleteFunc(f.leaving, func(o *Backend) bool { return o == b })
	for _, g := range b.gpus {
		if g.divider != nil {
			f.leaveDivider(b, g.divider, now)
			f.refeed(g.divider, now)
			g.divider = nil
		}
	}
	go b.closeIdle()
}

// refeed makes divider m follow a feed that a backend of the fleet still names. A new configuration may
// read a GPU through another exporter, and then the former feed ends with its last backend.
func (f *Fleet) refeed(m *divider, now time.Time) {
	var heir *binding
	for _, b := range f.backends {
		for _, g := range b.gpus {
			switch {
			case g.divider != m:
			case g.Feed == m.feed:
				return
			default:
				heir = g
			}
		}
	}
	if heir == nil {
		return
	}
	busy, _ := heir.snapshot.Busy(m.uuid, now)
	m.feed, m.since, m.busy, m.joules = heir.Feed, busy-(m.busy-m.since), busy, math.NaN()
}

// closeIdle closes the backend's idle connections.
func (b *Backend) closeIdle() {
	b.transport.CloseIdleConnections()
	b.fleet.log.Info("backend has left", "backend", b.cfg.Name)
}

// failStranded refuses the waiting requests of each pool that has no backend left.
func (f *Fleet) failStranded() {
	for _, p := range slices.Concat(f.order, f.retired) {
		for t := p.queue.head; t != nil && len(p.backends) == 0; t = p.queue.head {
			p.fail(t, p.nowhere(t.tried))
		}
	}
}

// Gone says whether the backend has left the fleet and has no open request any more.
func (b *Backend) Gone() bool { return b.gone.Load() }

// Ends says whether the backend gets no new requests, because it leaves or because the operator drains
// it. open is how many requests run on the backend.
func (b *Backend) Ends() (ends bool, open int) {
	b.fleet.mu.Lock()
	defer b.fleet.mu.Unlock()
	return b.leaving || b.fleet.drained[b.cfg.Name], b.inFlight
}

// Drain takes the backend of that name out for new requests if out is true, and puts it back if out is
// false. The state remains until the next call of Drain for that name, even after Commit, and even if
// the name then belongs to another server. Drain returns false if there is no such backend.
func (f *Fleet) Drain(name string, out bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.backends, func(b *Backend) bool { return b.cfg.Name == name })
	if i < 0 && !f.drained[name] {
		return false
	}
	if f.drained[name] = out; !out {
		delete(f.drained, name)
	}
	if i >= 0 {
		f.dispatch(f.backends[i])
	}
	return true
}

// Drained returns the sorted names of the backends that the operator took out.
func (f *Fleet) Drained() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.drained))
}

// Named returns the backend of that name, or nil.
func (f *Fleet) Named(name string) *Backend {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.backends {
		if b.cfg.Name == name {
			return b
		}
	}
	return nil
}
