package gpu

import (
	"context"
	"fmt"
	"time"
)

// DefaultQueueTimeout bounds the wait for a slot, unless PoolConfig.QueueTimeout is set.
const DefaultQueueTimeout = 30 * time.Second

// PoolConfig describes the backends of one public model.
type PoolConfig struct {
	Model    string
	Backends []string // names, at least one
	// QueueLimit is how many requests may wait beyond those that run. Zero means that no request may
	// wait.
	QueueLimit int
	// PerAccount is how many requests of one account may wait, in this pool and the pools that share
	// its backends. Zero means as many as QueueLimit says. In both cases accounts take turns. If the
	// queue is full, an account with fewer waiting requests takes the place of the account with the
	// most.
	PerAccount int
	// NeedGPUTime means that a backend is used only while the work of its GPUs is known.
	NeedGPUTime bool
	// QueueTimeout bounds the wait for a slot. Zero means DefaultQueueTimeout.
	QueueTimeout time.Duration
}

// Pool is the backends of one model and the queue of requests that wait for them.
//
// If the weights of the backends differ, requests are dealt out in proportion to the weights among the
// backends that have a free slot, and not by the least wait.
type Pool struct {
	fleet *Fleet

	// All fields below are guarded by fleet.mu, except the name of the model, which never changes.
	cfg      PoolConfig
	backends []*Backend // a change replaces the slice, and never writes to it
	domain   *domain
	priced   bool    // a backend of the pool asks a price of its own
	weighted bool    // the weights of the backends differ
	dealt    float64 // see deal

	places int // tickets without a slot, either just admitted or in the queue
	queue  queue
	turn   int        // where the search for a backend begins, so that ties rotate
	open   []*Backend // the result of the last search, whose memory the next search reuses
	pace   time.Duration
	joules float64 // energy that GPUs consumed for this pool, from the GPUs that count energy
	counts bool    // some GPU counts energy

	panic     bool   // every backend fails its health check, and some are used nevertheless
	unchecked uint64 // requests that went to such backends

	refused   uint64 // tickets that a full queue refused
	pushedOut uint64 // those of refused that lost their place to an account with fewer requests in the queue
}

// FullError refuses a request because as many requests wait as may wait, in all or of its account.
type FullError struct {
	// RetryAfter is the time after which a place should be free at the pool's pace. It is at least a
	// second.
	RetryAfter time.Duration
	// Own means that the account has used up its share. Requests of other accounts may still be
	// admitted.
	Own bool
}

func (e *FullError) Error() string {
	return fmt.Sprintf("queue is full, try again in %v", e.RetryAfter.Round(time.Second))
}

// Model returns the public name of the pool's model.
func (p *Pool) Model() string { return p.cfg.Model }

// Backends returns the pool's backends, in the order of the configuration. The caller must not change
// the slice.
func (p *Pool) Backends() []*Backend {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	return p.backends
}

// Admit takes a place for a request of the account key. The place is either a slot that is free now, or
// a place in the queue. Admit decides at once. It takes no slot and pushes nobody out of the queue
// before Wait, so nobody can abuse it. The caller ends the ticket with Wait, Now or Cancel. The errors
// are *FullError and ErrNoBackend.
func (p *Pool) Admit(key Key) (*Ticket, error) { return p.AdmitBid(key, Bid{}) }

// AdmitBid is Admit for a request whose size and price are known. A backend that asks more than the
// request pays is not used. If all backends ask more, the error is ErrTooDear.
func (p *Pool) AdmitBid(key Key, bid Bid) (*Ticket, error) {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	extra, err := p.admits(key, &bid)
	if err != nil {
		return nil, err
	}
	p.places++
	return &Ticket{pool: p, key: key, bid: bid, extra: extra}, nil
}

// Look returns the error that AdmitBid would return, and takes no place. So no other request is refused
// because of a caller that only looks.
func (p *Pool) Look(key Key, bid Bid) error {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	_, err := p.admits(key, &bid)
	return err
}

// admits says whether there is a place for a request. extra means that the place is beyond the limit.
func (p *Pool) admits(key Key, bid *Bid) (extra bool, err error) {
	free, usable := p.free(bid)
	if !usable || p.fleet.closed {
		return false, p.nowhere(nil)
	}
	own := free == 0 && p.ownLimit(key)
	extra = p.places >= free+p.cfg.QueueLimit
	// Callers without money may hold a place for a moment. So the number of places beyond the limit is
	// bounded too.
	if own || extra && (p.places >= free+2*p.cfg.QueueLimit || !p.outranks(key)) {
		p.refused++
		return false, &FullError{RetryAfter: p.retryAfter(free), Own: own}
	}
	return extra, nil
}

// free returns how many slots are free now for a request with this bid. usable is false if no backend
// may be used.
func (p *Pool) free(bid *Bid) (slots int, usable bool) {
	now := time.Now()
	top := p.best(nil, now)
	for _, b := range p.backends {
		if s := b.standing(p, now); s.usable(top) && (!p.priced || bid.pays(b.ask(bid))) {
			usable = true
			slots += max(0, b.room(s)-b.inFlight)
		}
	}
	return slots, usable
}

// retryAfter estimates when a place is free for one more request: mean service time × the places ahead
// ÷ slots.
func (p *Pool) retryAfter(free int) time.Duration {
	slots := 0
	now := time.Now()
	for _, b := range p.backends {
		if s := b.standing(p, now); s != out {
			slots += b.room(s)
		}
	}
	ahead := p.places - free + 1
	return max(time.Second, time.Duration(float64(p.pace)*float64(ahead)/float64(max(1, slots))))
}

// observe folds one service time into the pool's pace. The pace is an exponentially weighted mean over
// about the last ten requests.
func (p *Pool) observe(took time.Duration) {
	if p.pace == 0 {
		p.pace = took
		return
	}
	p.pace += (took - p.pace) / 10
}

// grant gives a slot of b to a ticket that waits or was just admitted.
func (p *Pool) grant(t *Ticket, b *Backend) {
	now := time.Now()
	if !b.health.up {
		p.panicked()
	}
	t.state = granted
	p.domain.round = max(p.domain.round, t.round)
	p.places--
	p.turn++
	if p.weighted {
		p.deal(b)
	}
	t.lease = Lease{ticket: t, backend: b, since: now, gpuSince: b.begin(p, now)}
}

// fail ends a waiting ticket with err.
func (p *Pool) fail(t *Ticket, err error) {
	p.leave(t)
	t.state, t.err = spent, err
	p.places--
	close(t.ready)
}

// dispatch gives free slots of b to the next requests of b's pools. It fails those waiting requests
// that no backend can serve any more. It is called whenever a slot or the health of b has changed.
func (f *Fleet) dispatch(b *Backend) {
	for {
		var first *Ticket
		var to *Backend
		for _, p := range b.pools {
			if t, c := p.next(); t != nil && (first == nil || t.before(first)) {
				first, to = t, c
			}
		}
		if first == nil {
			return
		}
		first.pool.leave(first)
		first.pool.grant(first, to)
		close(first.ready)
	}
}

// lookahead bounds how many tickets next passes over because the free backends ask more than these
// tickets pay.
const lookahead = 64

// next returns the first ticket of the queue that can get a slot now, and the slot's backend, or nil.
// It passes over only tickets that were on another backend before, or that pay less than a backend
// asks. Any other ticket can take each slot that a ticket behind it can take.
func (p *Pool) next() (*Ticket, *Backend) {
	poor := 0
	for t := p.queue.head; t != nil; {
		following := t.next
		b, wait := p.choose(t)
		switch {
		case b != nil:
			return t, b
		case !wait:
			p.fail(t, p.nowhere(t.tried))
		case t.moved():
		case !p.priced || t.bid.Limit <= 0:
			return nil, nil
		default:
			if poor++; poor == lookahead || poor == 1 && !p.anyOpen() {
				return nil, nil
			}
		}
		t = following
	}
	return nil, nil
}

// wait takes a slot for t. If no slot is free, t waits in the queue until it gets a slot, the pool's
// QueueTimeout passes or ctx ends.
func (p *Pool) wait(ctx context.Context, t *Ticket) (*Lease, error) {
	f := p.fleet
	f.mu.Lock()
	if t.state != admitted {
		f.mu.Unlock()
		return nil, ErrSpent
	}
	if t.seq == 0 {
		f.seq++
		t.seq = f.seq
	}
	b, usable := p.choose(t)
	if b != nil && !f.closed {
		p.grant(t, b)
		f.mu.Unlock()
		return &t.lease, nil
	}
	if !usable || f.closed {
		err := p.nowhere(t.tried)
		t.state = spent
		p.places--
		f.mu.Unlock()
		return nil, err
	}
	if err := p.enter(t); err != nil {
		t.state = spent
		p.places--
		f.mu.Unlock()
		return nil, err
	}
	t.state, t.ready = queued, make(chan struct{})
	patience := p.cfg.QueueTimeout
	f.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	err := ErrQueueTimeout
	select {
	case <-t.ready:
	case <-timer.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.state == queued {
		p.fail(t, err)
	}
	if t.state == granted { // perhaps at the very moment when the wait ended
		return &t.lease, nil
	}
	return nil, t.err
}
