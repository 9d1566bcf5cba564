package gpu

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Plan is another configuration of a fleet, checked and not yet in force.
type Plan struct {
	fleet    *Fleet
	backends []*Backend // those that stay, and those that join
	configs  []BackendConfig
	pools    []*Pool
	settings []PoolConfig
	members  [][]*Backend // of each pool
	byModel  map[string]*Pool
}

// Prepare checks a configuration whole and says what it takes to get there. A
// backend stays, with its connections, its health and all that was learnt of it, if
// its configuration differs at most in its slots, its weight, what it asks and where
// its load is read. Otherwise a new backend takes the place of the old one under the
// same name. A pool stays with its model. Calls of Prepare and Commit must not
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

// Pool is the pool of a public model under the plan, or nil.
func (plan *Plan) Pool(model string) *Pool { return plan.byModel[model] }

// same says whether another configuration describes the same backend, so that
// connections, health and what was learnt go on.
func (b *Backend) same(o *Backend) bool {
	x, y := &b.cfg, &o.cfg
	return x.Name == y.Name && x.URL.String() == y.URL.String() && x.APIKey == y.APIKey && x.KeyHeader == y.KeyHeader &&
		maps.Equal(x.Paths, y.Paths) && x.Query == y.Query &&
		x.HealthPath == y.HealthPath && slices.Equal(x.HealthFallback, y.HealthFallback) && x.HealthEvery == y.HealthEvery &&
		x.ConnectTimeout == y.ConnectTimeout && x.FirstByteTimeout == y.FirstByteTimeout &&
		x.FirstEventTimeout == y.FirstEventTimeout && x.IdleTimeout == y.IdleTimeout &&
		maps.Equal(x.Models, y.Models) && slices.Equal(x.GPUs, y.GPUs)
}

// Commit puts the plan in force: backends join, pools follow, and a backend that is
// left out, or whose place another one takes, leaves. It gets no new requests, and is
// gone once those that it has are over. Returned are those that leave now.
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

// setPools makes the fleet's pools those of the plan. A pool whose model is no longer
// sold keeps the backends that stay, for requests that wait in it or began before.
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

// tune takes over what may change of a pool.
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

// tune takes over what may change of a backend that stays.
func (b *Backend) tune(cfg *BackendConfig) {
	slots, weight := cfg.Slots, cfg.Weight
	stale := cfg.StaleAfter
	if stale == 0 {
		stale = DefaultStaleAfter
	}
	b.set = settings{Slots: slots, Weight: max(weight, 1), Engine: cfg.Engine, EngineMayLack: cfg.EngineMayLack, Ask: cfg.Ask, StaleAfter: stale}
}

// joinPool makes room in the backend's books for a pool.
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

// leavePools strikes pools that the backend no longer serves, once none of
// their requests is on it.
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

// leave takes a backend out of the fleet. Requests that it works on go on.
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

// depart ends a backend that leaves and has nothing to do any more.
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

// refeed has a divider follow a feed that a backend of the fleet names. Where a GPU is
// read by another exporter than before, the former feed ends with its last backend.
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

// closeIdle closes the connections that are kept.
func (b *Backend) closeIdle() {
	b.transport.CloseIdleConnections()
	b.fleet.log.Info("backend has left", "backend", b.cfg.Name)
}

// failStranded refuses those who wait where no backend is left.
func (f *Fleet) failStranded() {
	for _, p := range slices.Concat(f.order, f.retired) {
		for t := p.queue.head; t != nil && len(p.backends) == 0; t = p.queue.head {
			p.fail(t, p.nowhere(t.tried))
		}
	}
}

// Gone says whether the backend has left the fleet and has nothing to do any more.
func (b *Backend) Gone() bool { return b.gone.Load() }

// Ends says whether the backend gets no new requests, because it leaves or because
// the operator drains it, and how many are open on it.
func (b *Backend) Ends() (ends bool, open int) {
	b.fleet.mu.Lock()
	defer b.fleet.mu.Unlock()
	return b.leaving || b.fleet.drained[b.cfg.Name], b.inFlight
}

// Drain takes the backend of that name out for new requests, or puts it back, until
// it is called again: also across Commit, and also where the name stands for another
// server then. False: there is no such backend.
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

// Drained lists the names of the backends that the operator took out, sorted.
func (f *Fleet) Drained() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.drained))
}

// Named is the backend of that name, or nil.
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
