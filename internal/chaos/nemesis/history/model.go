package history

import (
	"slices"
	"strings"
)

// hold is all that clients know about one reservation.
type hold struct {
	id      string
	reserve *Op
	totals  []int64 // what it may hold: the reservation and the extensions that were not refused
	costs   []int64 // what it may have cost: progress reported, settlements asked for
	ends    []*Op   // settlements
	acked   *Op     // the settlement's last answer
}

// most is the most that the hold can take from its account.
func (h *hold) most() int64 { return slices.Max(h.totals) }

// ending is when the first settlement was asked for; never: the largest time.
func (h *hold) ending() int64 {
	at := never
	for _, op := range h.ends {
		at = min(at, op.Start)
	}
	return at
}

const never = int64(1) << 62

// payment is all that is known about one payment.
type payment struct {
	paid  *Op
	acks  []*Op // answers that say that it is credited
	tries []*Op
}

// model is a history with its indexes.
type model struct {
	*History
	holds     map[string]*hold
	order     []*hold // by their reservation
	payments  map[string]*payment
	byAccount map[string][]*hold
	paidBy    map[string][]*payment // by account
	before    map[string]Charge     // Before.Charges by hold
	swept     map[string]Sweep
}

func newModel(h *History) *model {
	m := &model{History: h, holds: map[string]*hold{}, payments: map[string]*payment{}, byAccount: map[string][]*hold{},
		paidBy: map[string][]*payment{}, before: map[string]Charge{}, swept: map[string]Sweep{}}
	for i := range h.Ops {
		m.add(&h.Ops[i])
	}
	for _, c := range h.Before.Charges {
		m.before[c.Hold] = c
	}
	for _, s := range h.Sweeps {
		m.swept[s.Hold] = s
	}
	return m
}

func (m *model) add(op *Op) {
	switch op.Kind {
	case Pay:
		p := m.payment(op.Payment)
		p.paid = op
		m.paidBy[op.Account] = append(m.paidBy[op.Account], p)
	case Reserve:
		x := &hold{id: op.Hold, reserve: op, totals: []int64{op.Amount}}
		m.holds[op.Hold] = x
		m.order = append(m.order, x)
		m.byAccount[op.Account] = append(m.byAccount[op.Account], x)
	case Extend:
		if x := m.holds[op.Hold]; x != nil && op.Status != Fail {
			x.totals = append(x.totals, op.Amount)
		}
	case Report:
		if x := m.holds[op.Hold]; x != nil {
			x.costs = append(x.costs, op.Amount)
		}
	case Settle:
		if x := m.holds[op.Hold]; x != nil {
			x.costs = append(x.costs, op.Amount)
			x.ends = append(x.ends, op)
			if op.Status == OK && (x.acked == nil || op.End > x.acked.End) {
				x.acked = op
			}
		}
	}
	if op.Payment != "" && op.Kind != Pay {
		p := m.payment(op.Payment)
		p.tries = append(p.tries, op)
		if credited(op) {
			p.acks = append(p.acks, op)
		}
	}
}

func (m *model) payment(id string) *payment {
	p := m.payments[id]
	if p == nil {
		p = &payment{}
		m.payments[id] = p
	}
	return p
}

// credited reports whether the client was told that its payment is credited. A
// reservation that is refused for any reason but a full queue leaves it credited.
func credited(op *Op) bool {
	if op.Status == OK {
		return true
	}
	return op.Kind == Reserve && op.Status == Fail && (op.Reason == Insufficient || op.Reason == Duplicate)
}

// exempt reports whether what an answer says may have been lost with the
// database before a moment, without a promise being broken. An answer that came
// before the standby was promoted is one of the lost server, also when it was asked
// for while that server was being ended.
func (m *model) exempt(op *Op, until int64) bool {
	for _, o := range m.Outages {
		if o.Lossy && o.At < until && (op.Start < o.At || op.End < o.Back) && op.End > o.Safe {
			return true
		}
	}
	return false
}

// crashed reports whether the database ended within a time. Holds without a key
// may be lost then.
func (m *model) crashed(from, to int64) bool {
	for _, o := range m.Outages {
		if o.At <= to && o.Back >= from {
			return true
		}
	}
	return false
}

// calm reports whether nothing at all was wrong within a time.
func (m *model) calm(from, to int64) bool {
	wrong := slices.ContainsFunc(m.Spans, func(s Span) bool { return s.From <= to && s.To >= from })
	return !wrong && !m.crashed(from, to)
}

// standing is the sum of an account's payments that must be credited within an
// operation: the one that it presents, and those that were answered as credited
// before.
func (m *model) standing(op *Op) (sum int64) {
	for _, p := range m.paidBy[op.Account] {
		if p.paid.Payment == op.Payment || m.stands(p, op.Start, op.End) {
			sum += p.paid.Amount
		}
	}
	return sum
}

// stands reports whether a payment was answered as credited before a moment and
// cannot have been lost until another.
func (m *model) stands(p *payment, before, until int64) bool {
	return slices.ContainsFunc(p.acks, func(ack *Op) bool { return ack.End < before && !m.exempt(ack, until) })
}

// taken is the most that others can have held or been charged, of an account or
// of one of its budgets, while an operation ran.
func (m *model) taken(op *Op, budget string) (sum int64) {
	if quiet := m.Before.At; quiet > 0 && op.Start >= quiet && budget == "" {
		sum = m.Before.Accounts[op.Account].Charged + m.Before.Accounts[op.Account].Held
	}
	for _, x := range m.byAccount[op.Account] {
		switch {
		case x.reserve == op, x.reserve.Status == Fail, x.reserve.Start > op.End:
		case budget != "" && !slices.Contains(x.reserve.Budgets, budget):
		case m.Before.At > 0 && op.Start >= m.Before.At && x.reserve.Start < m.Before.At:
			if budget != "" {
				sum += m.before[x.id].Charged
			}
		case x.acked != nil && x.acked.End < op.Start && !m.exempt(x.acked, op.End):
			sum += x.acked.Answer.Charged
		default:
			sum += x.most()
		}
	}
	return sum
}

// sure is the least that others held or were charged throughout an operation.
func (m *model) sure(op *Op, budget string) (sum int64) {
	for _, x := range m.byAccount[op.Account] {
		switch {
		case x.reserve == op, x.reserve.Status != OK, x.reserve.End > op.Start:
		case budget != "" && !slices.Contains(x.reserve.Budgets, budget):
		case x.acked != nil && x.acked.End < op.Start:
			if !m.exempt(x.acked, op.End) {
				sum += x.acked.Answer.Charged
			}
		case x.ending() > op.End && m.alive(x, op.End) && !m.crashed(x.reserve.Start, op.End):
			sum += x.reserve.Amount
		}
	}
	return sum
}

// alive reports whether nothing happened to a hold's owner until a moment for
// which the hold may have been swept.
func (m *model) alive(x *hold, until int64) bool {
	if _, swept := m.swept[x.id]; swept {
		return false
	}
	for _, s := range m.Spans {
		if s.concerns(x.reserve.Teller) && s.From < until && s.To > x.reserve.Start {
			return false
		}
	}
	return true
}

// concerns reports whether a teller's incarnation suffered from what was wrong.
func (s Span) concerns(teller string) bool {
	return s.Who == teller || s.Who == Machine || strings.HasPrefix(teller, s.Who+"#")
}
