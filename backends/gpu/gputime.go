package gpu

import (
	"math"
	"slices"
	"time"

	"sluice.example/sluice/backends/gpu/telemetry"
)

// divider shares out the busy time and energy of one GPU among the requests in
// flight on the backends that work on it. Between two events the number in
// flight stays the same, so it is enough to look at each event: what the GPU
// was busy since the last one, divided by that number, is what each request
// gets. So the shares of all requests add up to the GPU's busy time while there
// was any. Guarded by fleet.mu.
type divider struct {
	feed     *telemetry.Feed
	uuid     string
	since    float64 // the feed's count of busy seconds when the divider began
	busy     float64 // that count up to the last event
	joules   float64 // likewise; NaN: no counter seen yet
	inFlight int
	share    float64 // seconds that a request in flight since the beginning would have
	shared   float64 // seconds given to requests in all
	users    []*user
	bound    int    // bindings that use it
	mark     uint64 // of the last walk over the dividers that came by
}

// user is one pool on a GPU.
type user struct {
	pool     *Pool
	inFlight int
	bound    int
}

// advance shares out what has passed until now.
func (m *divider) advance(now time.Time) {
	totals, ok := m.feed.Latest().Totals(m.uuid)
	if !ok {
		return
	}
	if busy := totals.Busy(now); busy > m.busy {
		if m.inFlight > 0 {
			m.share += (busy - m.busy) / float64(m.inFlight)
			m.shared += busy - m.busy
		}
		m.busy = busy
	}
	if math.IsNaN(totals.Joules) {
		return
	}
	if step := totals.Joules - m.joules; step > 0 {
		m.spread(step)
	}
	m.joules = totals.Joules
	for _, u := range m.users {
		u.pool.counts = true
	}
}

// spread books energy to the pools on the GPU by their requests in flight; what
// it takes to be idle falls to all alike.
func (m *divider) spread(joules float64) {
	for _, u := range m.users {
		part := 1 / float64(len(m.users))
		if m.inFlight > 0 {
			part = float64(u.inFlight) / float64(m.inFlight)
		}
		u.pool.joules += joules * part
	}
}

// add changes the number in flight of a pool.
func (m *divider) add(p *Pool, n int) {
	m.inFlight += n
	for _, u := range m.users {
		if u.pool == p {
			u.inFlight += n
		}
	}
}

// join notes that a backend on the GPU serves a pool.
func (m *divider) join(p *Pool) {
	at := slices.IndexFunc(m.users, func(u *user) bool { return u.pool == p })
	if at < 0 {
		at = len(m.users)
		m.users = append(m.users, &user{pool: p})
	}
	m.users[at].bound++
}

// part undoes a join.
func (m *divider) part(p *Pool) {
	m.users = slices.DeleteFunc(m.users, func(u *user) bool {
		if u.pool == p {
			u.bound--
		}
		return u.bound == 0
	})
}

// binding is one GPU of one backend.
type binding struct {
	GPU
	snapshot *telemetry.Snapshot // that device is of
	device   *telemetry.Device   // nil: not in the reading
	divider  *divider            // nil: never seen, or it is another binding's too
	offset   float64             // joins the shares of one divider to those of the next
	gaps     gaps                // in what is known of its work
}

// look finds the device in the latest snapshot and, where the name means
// another GPU than before, changes dividers.
func (b *Backend) look(g *binding, now time.Time) {
	s := g.Feed.Latest()
	if s == g.snapshot {
		return
	}
	g.snapshot = s
	g.device, _ = s.Device(g.Device)
	if g.device != nil && (g.divider == nil || g.divider.uuid != g.device.UUID) {
		b.bind(g, now)
	}
}

// bind puts a backend's binding, and its requests in flight, on the divider of
// the device that it means now.
func (b *Backend) bind(g *binding, now time.Time) {
	f := b.fleet
	if slices.ContainsFunc(b.gpus, func(o *binding) bool { return o != g && o.divider != nil && o.divider.uuid == g.device.UUID }) {
		return // one GPU under two names counts once
	}
	if g.divider != nil {
		g.offset += f.leaveDivider(b, g.divider, now)
	}
	m := f.dividers[g.device.UUID]
	if m == nil {
		// It counts from the reading that shows the GPU: the first event after
		// that comes here, so what is in flight now was in flight then.
		m = &divider{feed: g.Feed, uuid: g.device.UUID, joules: math.NaN()}
		m.since, _ = g.snapshot.Busy(m.uuid, g.snapshot.At)
		m.busy = m.since
		f.dividers[m.uuid] = m
	} else {
		m.advance(now)
	}
	m.bound++
	for i, p := range b.pools {
		m.join(p)
		m.add(p, b.byPool[i])
	}
	g.divider = m
	g.offset -= m.share
}

// leaveDivider takes a backend off a divider and returns the share there.
func (f *Fleet) leaveDivider(b *Backend, m *divider, now time.Time) (share float64) {
	m.advance(now)
	for i, p := range b.pools {
		m.add(p, -b.byPool[i])
	}
	m.users = slices.DeleteFunc(m.users, func(u *user) bool {
		if slices.Contains(b.pools, u.pool) {
			u.bound--
		}
		return u.bound == 0
	})
	if m.bound--; m.bound == 0 {
		delete(f.dividers, m.uuid)
	}
	return m.share
}

// shares are GPU-seconds that a request in flight on a backend since the beginning
// would have, over all its GPUs: by their readings, and by the clock where there
// was none.
type shares struct{ measured, fallback float64 }

// gpuShare brings the backend's dividers up to now and returns the shares.
func (b *Backend) gpuShare(now time.Time) (s shares) {
	for _, g := range b.gpus {
		b.pass(g, now)
		if g.divider != nil {
			g.divider.advance(now)
			s.measured += g.offset + g.divider.share
		}
		s.fallback += g.gaps.share
	}
	return s
}

// begin counts a request in, and returns gpuShare as it was then.
func (b *Backend) begin(p *Pool, now time.Time) (s shares) {
	s = b.gpuShare(now)
	b.inFlight++
	b.shift(p, 1)
	return s
}

// end counts a request out.
func (b *Backend) end(p *Pool, now time.Time) {
	b.gpuShare(now)
	b.shift(p, -1)
	if b.inFlight--; b.inFlight > 0 {
		return
	}
	if b.idleAt = now; b.leaving {
		b.depart(now)
	}
}

func (b *Backend) shift(p *Pool, n int) {
	b.byPool[slices.Index(b.pools, p)] += n
	for _, g := range b.gpus {
		if g.divider != nil {
			g.divider.add(p, n)
		}
	}
}
