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
	extra bool       // admitted beyond the limit, so it must take the place of another ticket
	tried []*Backend // backends that did not take this request

	// All fields below are guarded by fleet.mu.
	state      ticketState
	seq        uint64 // order of asking for a slot; a request that moves to another backend keeps its seq
	round      uint64 // see domain; a request that moves keeps its round; 0 means that the request never waited
	share      *share // set while the ticket is in the queue, unless the request was on another backend before
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

// moved says whether the request was on another backend before.
func (t *Ticket) moved() bool { return len(t.tried) > 0 }

// Wait returns a slot on the usable backend with the least expected wait. If backends ask prices of
// their own, it returns a slot on the cheapest backend that can serve in time. Accounts that wait take
// turns. The requests of one account are served in order of arrival. If the queue is full, a request of
// another account with fewer waiting requests may take the place of this request, and then Wait returns
// *FullError. The other errors are ErrQueueTimeout, ErrNoBackend, ErrSpent and the error of ctx. The
// ticket is used up in every case.
func (t *Ticket) Wait(ctx context.Context) (*Lease, error) {
	return t.pool.wait(ctx, t)
}

// Now is Wait for a request that must not wait. It returns a slot if a slot is free and nobody waits
// for it, otherwise ErrBusy. The ticket is used up in every case.
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

// now returns the backend of a free slot that nobody waits for.
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

// Lease is one slot of a backend. It belongs to one request, which ends the lease with Done or Next.
type Lease struct {
	ticket  *Ticket
	backend *Backend
	since   time.Time

	// All fields below are guarded by fleet.mu.
	done     bool
	gpuSince shares // the backend's shares when the lease began
	gpuUse   GPUUse // of the whole request, set by Done
	gpuKnown bool
}

// Result is how a request went, as far as it concerns the backend.
type Result struct {
	// Err is the error that Do or reading the answer returned. If the error is the end of the client's
	// context, it does not count against the backend.
	Err error
	// Status is the status of the answer. Zero means that there was no answer.
	Status int
	// Took is the time of service. Zero means the time since the slot was given.
	Took time.Duration
	// Refused means that the backend did not take the request, because it could not be connected to or
	// because it said so. Such a request does not count for the pace. With a 4xx it does not count for
	// health either.
	Refused bool
	// RequestFault means that the backend says that no backend could serve this request, whatever the
	// status of the answer. The result does not count, unless the backend says so to several accounts
	// in a row. Then the gateway's own request judges the backend.
	RequestFault bool
	// Doubtful means that the request failed, whatever the status, and may have been at fault itself.
	// Such a failure counts once several accounts have met such failures with different requests. It
	// also counts once many such failures came in a row and the gateway's own request fails as well.
	Doubtful bool
	// Body is a number that tells requests apart, for when it matters whether two requests were the same.
	// 0 means that it is not known.
	Body uint64
	// Lacks is what the backend said if it did not know the model. Empty means that it knew the model.
	// A backend that lacks a model gets no requests for that model for a while.
	Lacks string
}

// Backend returns the backend of the slot.
func (l *Lease) Backend() *Backend { return l.backend }

// Done gives the slot back. Later calls do nothing.
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

// Next takes a slot on a backend to which this request has not been, after this backend did not take
// the request. It ends the lease as refused, unless Done was called. If the request must wait, it is
// ahead of all requests that came later. The error is ErrNoBackend if no other backend may be used.
// Otherwise the errors are those of Wait.
func (l *Lease) Next(ctx context.Context) (*Lease, error) {
	p, f := l.ticket.pool, l.backend.fleet
	t := &Ticket{pool: p, key: l.ticket.key, bid: l.ticket.bid, seq: l.ticket.seq, round: l.ticket.round, tried: append(l.ticket.tried[:len(l.ticket.tried):len(l.ticket.tried)], l.backend)}
	f.mu.Lock()
	l.finish(Result{Err: ErrNotTaken, Refused: true})
	p.places++
	f.mu.Unlock()
	return p.wait(ctx, t)
}
