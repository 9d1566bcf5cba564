package gpu

import "slices"

// Key names the account that a request belongs to. Accounts get slots in turn.
type Key [32]byte

// domain belongs to a set of pools that share backends, directly or through other pools. Accounts take
// turns across all pools of a domain, because a request for one model takes a slot away from the other
// models.
//
// Each waiting ticket belongs to a round. An account's first waiting ticket belongs to the round after
// the round that is being served, its second ticket to the round after that, and so on. Slots are given
// round by round, and in order of arrival within a round. So accounts take turns, and an account that
// waits alone is served in order of arrival. The last ticket of the queue belongs to the account with
// the most waiting requests.
//
// All fields are guarded by fleet.mu.
type domain struct {
	round  uint64         // the highest round of a ticket that was given a slot
	shares map[Key]*share // by account, for the accounts that wait
}

// share is how much of a domain's queues an account takes up.
type share struct {
	waiting int
	round   uint64 // the round of the account's last ticket
}

// nextRound returns the round of the next ticket of the account key.
func (d *domain) nextRound(key Key) uint64 {
	round := d.round
	if s := d.shares[key]; s != nil {
		round = max(round, s.round)
	}
	return round + 1
}

// joinDomains gives pools that share a backend the same domain. It counts the waiting tickets again as
// shares in the new domains.
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

// waits counts a waiting ticket of the account key, and returns the account's share.
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

// ownLimit says whether the account has as many waiting requests as it may have.
func (p *Pool) ownLimit(key Key) bool {
	if p.cfg.PerAccount == 0 || len(p.domain.shares) == 0 {
		return false
	}
	s := p.domain.shares[key]
	return s != nil && s.waiting >= p.cfg.PerAccount
}

// outranks says whether a new ticket of the account key would come before the last ticket of the queue,
// so that it may take the place of that ticket.
func (p *Pool) outranks(key Key) bool {
	last := p.queue.tail
	return last != nil && p.domain.nextRound(key) < last.round
}

// enter puts a ticket into the queue. If the ticket was admitted beyond the limit and the queue is
// still full, the ticket takes the place of the last ticket, which is refused instead.
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

// queue is a list of waiting tickets. It is sorted by round, and within a round by the order in which
// the tickets asked for a slot.
type queue struct {
	head, tail *Ticket
	ends       map[uint64]*Ticket // the last ticket of each round in the list
	n          int
}

// before says whether t comes before o in the queue.
func (t *Ticket) before(o *Ticket) bool {
	return t.round < o.round || (t.round == o.round && t.seq < o.seq)
}

// insert puts t in its place in the queue. That place is usually at the end of t's round, which ends
// finds without a search. insert walks back from there only for a round whose tickets have all left, or
// for a request that was on another backend before.
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
