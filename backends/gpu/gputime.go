package gpu

import (
	"math"
	"slices"
	"time"

	"sluice.example/sluice/backends/gpu/telemetry"
)

// divider shares out the busy time and energy of one GPU among the requests in flight on the backends
// that work on the GPU. Between two events (a request begins or ends) the number of requests in flight
// stays the same, so it is enough to compute at each event: each request gets the GPU's busy time since
// the last event divided by that number. So the shares of all requests add up to the GPU's busy time
// during which there was any request. All fields are guarded by fleet.mu.
type divider struct {
	feed     *telemetry.Feed
	uuid     string
	since    float64 // the feed's count of busy seconds when the divider began
	busy     float64 // the feed's count of busy seconds at the last event
	joules   float64 // the feed's count of joules at the last event; NaN means none was read yet
	inFlight int
	// share is how many seconds a request would have that was in flight since the divider began.
	share  float64
	shared float64 // seconds given to all requests together
	users  []*user
	bound  int    // how many bindings use the divider
	mark   uint64 // number of the last walk over the dividers that reached this one
}

// user is one pool on a GPU.
type user struct {
	pool     *Pool
	inFlight int
	bound    int
}

// advance shares out the busy time and energy since the last event, up to now.
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

// spread adds energy to the pools on the GPU, in proportion to their requests in flight. If no request
// is in flight, all pools get equal parts.
func (m *divider) spread(joules float64) {
	for _, u := range m.users {
		part := 1 / float64(len(m.users))
		if m.inFlight > 0 {
			part = float64(u.inFlight) / float64(m.inFlight)
		}
		u.pool.joules += joules * part
	}
}

// add changes a pool's number of requests in flight by n.
func (m *divider) add(p *Pool, n int) {
	m.inFlight += n
	for _, u := range m.users {
		if u.pool == p {
			u.inFlight += n
		}
	}
}

// join notes that another backend on the GPU serves pool p.
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
	snapshot *telemetry.Snapshot // the snapshot that holds device
	device   *telemetry.Device   // nil means that the snapshot does not hold the device
	// divider is nil if the GPU was never seen, or if another binding of the backend has the GPU's
	// divider.
	divider *divider
	// offset makes share sums continue when the binding changes from one divider to the next.
	offset float64
	gaps   gaps // the time in which the GPU's work was not known
}

// look finds the binding's device in the feed's latest snapshot. If the device's name now means another
// GPU, look changes the divider.
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

// bind moves the binding g and the backend's requests in flight to the divider of the GPU that g names
// now.
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
		// The divider counts from the snapshot that first shows the GPU. This call is the first event
		// after that snapshot, so the requests in flight now were in flight then.
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

// leaveDivider takes a backend off a divider. It returns the divider's share at that moment.
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

// shares holds the GPU-seconds that a request would have, over all GPUs of a backend, if it had been in
// flight since the beginning. measured comes from the GPUs' readings. fallback comes from the clock,
// for the time without readings.
type shares struct{ measured, fallback float64 }

// gpuShare brings the backend's dividers up to now and returns the backend's shares.
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

// begin counts a request in. It returns gpuShare as of the moment before.
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
