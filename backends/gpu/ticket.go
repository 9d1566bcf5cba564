package gpu

import (
	"context"
	"time"
)

// Ticket is an admitted request without a slot. It belongs to one goroutine.
type Ticket struct {
	pool  *Pool
	key   Key
	bid   Bid
	extra bool       // admitted beyond the limit: it must take another's place
	tried []*Backend // those that did not take this request

	// All below is guarded by fleet.mu.
	state      ticketState
	seq        uint64 // order of asking for a slot; a request that goes elsewhere keeps it
	round      uint64 // see domain; kept as well, 0 if the request never waited
	share      *share // while in the queue, unless it was elsewhere before
	ready      chan struct{}
	err        error
	lease      Lease
	prev, next *Ticket // in the queue
}

type ticketState uint8

const (
	admitted ticketState = iota
	queued
	granted
	spent
)

// moved says whether the request was elsewhere before.
func (t *Ticket) moved() bool { return len(t.tried) > 0 }

// Wait returns a slot on the healthy backend where the least wait is expected,
// or on the cheapest one in time where backends ask prices of their own.
// Accounts that wait take turns; the requests of one account are served in order
// of arrival. A request of another account with less in the queue may take the
// place of this one when the queue is full: that is *FullError. Other errors:
// ErrQueueTimeout, ErrNoBackend, ctx's. The ticket is used up either way.
func (t *Ticket) Wait(ctx context.Context) (*Lease, error) {
	return t.pool.wait(ctx, t)
}

// Now is Wait for a request that must not wait: it returns a slot if one is
// free and nobody waits for it, else ErrBusy. The ticket is used up either
// way.
func (t *Ticket) Now() (*Lease, error) {
	t.pool.fleet.mu.Lock()
	defer t.pool.fleet.mu.Unlock()
	b, err := t.now()
	if t.state == admitted && b == nil {
		t.state = spent
		t.pool.places--
	}
	if b == nil {
		return nil, err
	}
	t.pool.grant(t, b)
	return &t.lease, nil
}

// now finds the backend of a free slot that nobody waits for.
func (t *Ticket) now() (*Backend, error) {
	switch p := t.pool; {
	case t.state != admitted:
		return nil, ErrSpent
	case p.fleet.closed:
		return nil, p.nowhere(t.tried)
	case p.queue.n > 0 || len(p.domain.shares) > 0:
		return nil, ErrBusy
	}
	b, wait := t.pool.choose(t)
	if b == nil && wait {
		return nil, ErrBusy
	}
	if b == nil {
		return nil, t.pool.nowhere(t.tried)
	}
	return b, nil
}

// Cancel gives the place back. It does nothing after Wait, Now or a first Cancel.
func (t *Ticket) Cancel() {
	t.pool.fleet.mu.Lock()
	defer t.pool.fleet.mu.Unlock()
	if t.state == admitted {
		t.state = spent
		t.pool.places--
	}
}

// Lease is one slot of a backend. It belongs to one request, which ends it
// with Done (or Next).
type Lease struct {
	ticket  *Ticket
	backend *Backend
	since   time.Time

	// All below is guarded by fleet.mu.
	done     bool
	gpuSince shares // the backend's when it began
	gpuUse   GPUUse // of the whole request, once it is done
	gpuKnown bool
}

// Result is how a request went, as far as the backend is concerned.
type Result struct {
	// Err is what Do, or reading the answer, returned. The end of the client's
	// context counts for nothing.
	Err error
	// Status of the answer, zero without one.
	Status int
	// Took is the time of service; zero: since the slot was given.
	Took time.Duration
	// Refused: the backend did not take the request, by failing to connect or
	// by saying so. It counts neither for the pace nor, with a 4xx, for health.
	Refused bool
	// RequestFault: the backend says that no backend could serve this request,
	// whatever its status. It counts for nothing, unless the backend says so to
	// several accounts in a row: then the gateway's own request judges it.
	RequestFault bool
	// Doubtful: a failure, whatever the status, that may be the request's own fault.
	// It counts once several accounts have met one with different requests, or once
	// many came in a row and the gateway's own request fails as well.
	Doubtful bool
	// Body tells requests apart, where it matters whether they were the same; 0: it
	// is not known.
	Body uint64
	// Lacks is what the backend said when it did not know the model; empty: it
	// did. It gets no requests for that model for a while.
	Lacks string
}

// Backend is where the slot is.
func (l *Lease) Backend() *Backend { return l.backend }

// Done gives the slot back, once: later calls do nothing.
func (l *Lease) Done(r Result) {
	f := l.backend.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	l.finish(r)
}

func (l *Lease) finish(r Result) {
	if l.done {
		return
	}
	l.done = true
	now := time.Now()
	if r.Took <= 0 {
		r.Took = now.Sub(l.since)
	}
	if !r.Refused && r.Lacks == "" {
		l.ticket.pool.observe(r.Took)
	}
	l.gpuUse, l.gpuKnown = l.measure(now), l.backend.gpuKnown(now)
	if l.gpuUse.Fallback > 0 {
		l.backend.guessed++
	}
	l.backend.end(l.ticket.pool, now)
	if l.backend.judge(l, r, now) == success {
		l.backend.observe(r.Took)
	}
	l.backend.fleet.dispatch(l.backend)
}

// Next takes a slot on a backend that this request has not been to, after this
// one did not take it. It ends the lease as refused unless Done was called. A
// wait, if there is one, is ahead of all who came later. Errors: ErrNoBackend
// when none is left, else those of Wait.
func (l *Lease) Next(ctx context.Context) (*Lease, error) {
	p, f := l.ticket.pool, l.backend.fleet
	t := &Ticket{pool: p, key: l.ticket.key, bid: l.ticket.bid, seq: l.ticket.seq, round: l.ticket.round, tried: append(l.ticket.tried[:len(l.ticket.tried):len(l.ticket.tried)], l.backend)}
	f.mu.Lock()
	l.finish(Result{Err: ErrNotTaken, Refused: true})
	p.places++
	f.mu.Unlock()
	return p.wait(ctx, t)
}
