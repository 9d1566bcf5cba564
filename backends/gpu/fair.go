package gpu

import "slices"

// Key names the account that a request belongs to: accounts get slots in turn.
type Key [32]byte

// domain is the pools that share backends, directly or through one another.
// Fairness between accounts is kept over all of them, since a request for one
// model takes a slot away from the others.
//
// Each waiting ticket belongs to a round: an account's first waiting ticket to
// the round after the one that is being served, its next ticket to the round
// after that, and so on. Slots are given round by round, within a round in
// order of arrival. So accounts take turns, one account alone is served in
// order of arrival, and the account with the most requests waiting has the
// last ticket.
//
// Everything is guarded by fleet.mu.
type domain struct {
	round  uint64         // of the ticket that was given a slot last
	shares map[Key]*share // of the accounts that wait
}

// share is what an account takes up of the queues of a domain.
type share struct {
	waiting int
	round   uint64 // of its last ticket
}

// nextRound is the round of the next ticket of key.
func (d *domain) nextRound(key Key) uint64 {
	round := d.round
	if s := d.shares[key]; s != nil {
		round = max(round, s.round)
	}
	return round + 1
}

// joinDomains gives pools that share a backend the same domain, and accounts that wait
// their shares in it.
func (f *Fleet) joinDomains() {
	pools := slices.Concat(f.order, f.retired)
	for _, b := range slices.Concat(f.backends, f.leaving) {
		for _, p := range b.pools {
			if !slices.Contains(pools, p) {
				pools = append(pools, p)
			}
		}
	}
	for _, p := range pools {
		p.domain = &domain{round: p.domain.round}
	}
	for _, b := range slices.Concat(f.backends, f.leaving) {
		for _, p := range b.pools {
			from, to := p.domain, b.pools[0].domain
			to.round = max(to.round, from.round)
			for _, other := range pools {
				if other.domain == from {
					other.domain = to
				}
			}
		}
	}
	for _, p := range pools {
		for t := p.queue.head; t != nil; t = t.next {
			if t.share != nil {
				t.share = p.domain.waits(t.key, t.round)
			}
		}
	}
}

// waits counts a waiting ticket of an account.
func (d *domain) waits(key Key, round uint64) *share {
	s := d.shares[key]
	if s == nil {
		if d.shares == nil {
			d.shares = map[Key]*share{}
		}
		s = &share{}
		d.shares[key] = s
	}
	s.waiting++
	s.round = max(s.round, round)
	return s
}

// ownLimit says whether as many requests of the account wait as may.
func (p *Pool) ownLimit(key Key) bool {
	if p.cfg.PerAccount == 0 || len(p.domain.shares) == 0 {
		return false
	}
	s := p.domain.shares[key]
	return s != nil && s.waiting >= p.cfg.PerAccount
}

// outranks says whether a ticket of key would come before the last one of the
// queue, so that it may take that one's place.
func (p *Pool) outranks(key Key) bool {
	last := p.queue.tail
	return last != nil && p.domain.nextRound(key) < last.round
}

// enter puts a ticket into the queue. A ticket that was admitted although the
// queue was full takes the place of the last ticket, which is refused instead.
func (p *Pool) enter(t *Ticket) error {
	if t.moved() {
		p.queue.insert(t)
		return nil
	}
	free, _ := p.free(&t.bid)
	if p.ownLimit(t.key) {
		p.refused++
		return &FullError{RetryAfter: p.retryAfter(free), Own: true}
	}
	if t.extra && p.queue.n >= p.cfg.QueueLimit {
		full := &FullError{RetryAfter: p.retryAfter(free)}
		p.refused++
		if !p.outranks(t.key) {
			return full
		}
		full.Own = true
		p.pushedOut++
		p.fail(p.queue.tail, full)
	}
	t.round = p.domain.nextRound(t.key)
	t.share = p.domain.waits(t.key, t.round)
	p.queue.insert(t)
	return nil
}

// leave takes a ticket out of the queue.
func (p *Pool) leave(t *Ticket) {
	p.queue.remove(t)
	if t.share == nil {
		return
	}
	if t.share.waiting--; t.share.waiting == 0 {
		delete(p.domain.shares, t.key)
	}
	t.share = nil
}

// queue is a list of waiting tickets by round and, within one, by order of
// asking.
type queue struct {
	head, tail *Ticket
	ends       map[uint64]*Ticket // the last ticket of each round in the list
	n          int
}

// before is the order of the queue.
func (t *Ticket) before(o *Ticket) bool {
	return t.round < o.round || (t.round == o.round && t.seq < o.seq)
}

// insert puts t in its place, at the end of t's round, which is found at
// once. Only a round that has lost its tickets to hang-ups, or a request that
// was elsewhere before, takes a walk from there.
func (q *queue) insert(t *Ticket) {
	if q.ends == nil {
		q.ends = map[uint64]*Ticket{}
	}
	after := q.ends[t.round]
	if after == nil {
		after = q.tail
	}
	for after != nil && t.before(after) {
		after = after.prev
	}
	t.prev = after
	if after == nil {
		t.next, q.head = q.head, t
	} else {
		t.next, after.next = after.next, t
	}
	if t.next == nil {
		q.tail = t
	} else {
		t.next.prev = t
	}
	if t.next == nil || t.next.round != t.round {
		q.ends[t.round] = t
	}
	q.n++
}

func (q *queue) remove(t *Ticket) {
	if q.ends[t.round] == t {
		if t.prev != nil && t.prev.round == t.round {
			q.ends[t.round] = t.prev
		} else {
			delete(q.ends, t.round)
		}
	}
	if t.prev == nil {
		q.head = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		q.tail = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.prev, t.next = nil, nil
	q.n--
}
