package gpu

import (
	"context"
	"fmt"
	"time"
)

// DefaultQueueTimeout bounds the wait for a slot.
const DefaultQueueTimeout = 30 * time.Second

// PoolConfig describes the backends of one public model.
type PoolConfig struct {
	Model    string
	Backends []string // names, at least one
	// QueueLimit is how many requests may wait beyond those that run; zero:
	// none.
	QueueLimit int
	// PerAccount is how many requests of one account may wait, in this pool and
	// those that share its backends. Zero: as many as QueueLimit says. Either
	// way accounts take turns, and when the queue is full an account with less
	// in it takes the place of the one with the most.
	PerAccount int
	// NeedGPUTime: a backend is used only while the work of its GPUs is known.
	NeedGPUTime bool
	// QueueTimeout bounds the wait for a slot. Zero: DefaultQueueTimeout.
	QueueTimeout time.Duration
}

// Pool is the backends of one model and the queue before them.
//
// Where the backends' weights differ, requests are dealt out in proportion to them
// among those that have a free slot, and not by the least wait.
type Pool struct {
	fleet *Fleet

	// All below is guarded by fleet.mu, but for the name of the model, which never changes.
	cfg      PoolConfig
	backends []*Backend // another slice where they change
	domain   *domain
	priced   bool    // a backend of it asks a price of its own
	weighted bool    // their weights differ
	dealt    float64 // see deal

	places int // tickets without a slot: just admitted or in the queue
	queue  queue
	turn   int        // where the search for a backend begins, so that ties rotate
	open   []*Backend // what a search found, kept for the next one's use
	pace   time.Duration
	joules float64 // consumed for this pool by GPUs that count them
	counts bool    // one does

	panic     bool   // every backend fails its health check, and some are used all the same
	unchecked uint64 // requests that went to such backends

	refused   uint64 // tickets refused by a full queue
	pushedOut uint64 // of these: had a place, and lost it to an account with less in the queue
}

// FullError refuses a request because as many wait already as may, or as many
// of its account.
type FullError struct {
	// RetryAfter is when a place should be free at the pool's pace: at least
	// a second.
	RetryAfter time.Duration
	// Own: the account has used up its share; others may still be admitted.
	Own bool
}

func (e *FullError) Error() string {
	return fmt.Sprintf("queue is full, try again in %v", e.RetryAfter.Round(time.Second))
}

// Model is the public name of the pool's model.
func (p *Pool) Model() string { return p.cfg.Model }

// Backends are the pool's backends, as configured. The caller must not change
// the slice.
func (p *Pool) Backends() []*Backend {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	return p.backends
}

// Admit takes a place for a request of the account key: a slot that is free
// now, or one in the queue. It decides at once and costs nothing that could be
// abused: no slot is taken, and nobody pushed out of the queue, before Wait. The
// caller ends the ticket with Wait or Cancel. Errors: *FullError, ErrNoBackend.
func (p *Pool) Admit(key Key) (*Ticket, error) { return p.AdmitBid(key, Bid{}) }

// AdmitBid is Admit for a request whose size and price are known: backends
// that ask more than it pays are not used. ErrTooDear when all do.
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

// Look says what AdmitBid would, and takes no place: so that no other request is
// refused because of one that only looks.
func (p *Pool) Look(key Key, bid Bid) error {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	_, err := p.admits(key, &bid)
	return err
}

// admits says whether there is a place for a request, and whether it is one beyond
// the limit.
func (p *Pool) admits(key Key, bid *Bid) (extra bool, err error) {
	free, usable := p.free(bid)
	if !usable || p.fleet.closed {
		return false, p.nowhere(nil)
	}
	own := free == 0 && p.ownLimit(key)
	extra = p.places >= free+p.cfg.QueueLimit
	// Callers without money may hold a place for a moment, so there are only so
	// many beyond the limit.
	if own || extra && (p.places >= free+2*p.cfg.QueueLimit || !p.outranks(key)) {
		p.refused++
		return false, &FullError{RetryAfter: p.retryAfter(free), Own: own}
	}
	return extra, nil
}

// free counts the slots free now for a request with this bid. False: no backend
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

// retryAfter estimates when the queue has moved on by one place more than wait
// in it: mean service time × those ahead ÷ slots.
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

// observe folds one service time into the pool's pace, an exponentially
// weighted mean over about the last ten requests.
func (p *Pool) observe(took time.Duration) {
	if p.pace == 0 {
		p.pace = took
		return
	}
	p.pace += (took - p.pace) / 10
}

// grant gives a waiting or fresh ticket a slot of b.
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

// fail ends a waiting ticket.
func (p *Pool) fail(t *Ticket, err error) {
	p.leave(t)
	t.state, t.err = spent, err
	p.places--
	close(t.ready)
}

// dispatch gives free slots of b to the requests that are next in any of its
// pools, and fails those who can get one nowhere any more. It is called
// whenever a slot of b or its health has changed.
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

// lookahead bounds how many tickets are passed over because what is free asks
// more than they pay.
const lookahead = 64

// next finds the first ticket of the queue that can be placed now. Only
// tickets that were elsewhere before, or that pay less than a backend asks,
// can be passed over: any other can be placed wherever those behind it can.
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

// wait takes a slot for t or queues it until one is free, its pool's deadline
// passes or ctx ends.
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
	if t.state == granted { // perhaps in the very moment the wait ended
		return &t.lease, nil
	}
	return nil, t.err
}
