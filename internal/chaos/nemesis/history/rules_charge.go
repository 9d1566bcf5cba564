package history

import (
	"fmt"
	"slices"
)

// chargeStands compares each answered settlement with the last state. A hold
// whose settlement a database lost by permission may have been swept since.
func chargeStands(m *model, report func(string, ...*Op)) {
	for _, x := range m.order {
		if x.acked == nil {
			continue
		}
		stands, told := m.before[x.id].Charged, x.acked.Answer.Charged
		if stands != told && !m.exempt(x.acked, never) {
			report(fmt.Sprintf("hold %s: the client was told a charge of %d msat, %d stands", x.id, told, stands), x.reserve,
				x.acked)
		}
		for _, op := range x.ends {
			if op.Status == OK && op.Answer.Charged != told {
				report(fmt.Sprintf("hold %s: one settlement was answered with %d and with %d msat", x.id, op.Answer.Charged,
					told), op, x.acked)
			}
		}
	}
}

// chargeRight: the answer is the cost where nothing came in between, and never
// more than cost or hold.
func chargeRight(m *model, report func(string, ...*Op)) {
	for _, x := range m.order {
		if x.acked == nil || x.acked.Answer.Provisional {
			continue
		}
		told, cost := x.acked.Answer.Charged, x.acked.Amount
		if told > min(cost, x.most()) {
			report(fmt.Sprintf("hold %s: charged %d msat, cost %d, held at most %d", x.id, told, cost, x.most()), x.reserve,
				x.acked)
		}
		calm := x.reserve.Status == OK && !m.crashed(x.reserve.Start, x.acked.End) && m.alive(x, x.acked.End)
		if least := min(cost, x.reserve.Amount); calm && told < least && !m.paidElsewhere(x) {
			report(fmt.Sprintf("hold %s: charged %d msat, although it cost %d and held at least %d", x.id, told, cost,
				x.reserve.Amount),
				x.reserve, x.acked)
		}
	}
}

// paidElsewhere reports whether another request with the same key of the same
// account may have been charged: then this one costs nothing.
func (m *model) paidElsewhere(x *hold) bool {
	if x.reserve.Key == "" {
		return false
	}
	return slices.ContainsFunc(m.order, func(y *hold) bool {
		return y != x && y.reserve.Key == x.reserve.Key && y.reserve.Account == x.reserve.Account &&
			(m.before[y.id].Charged > 0 || y.acked != nil && y.acked.Answer.Charged > 0)
	})
}

// chargeBounds: without an answer the request was charged nothing, or what its
// owner or a sweep knew of.
func chargeBounds(m *model, report func(string, ...*Op)) {
	for _, x := range m.order {
		c, found := m.before[x.id]
		if !found || x.acked != nil && !m.exempt(x.acked, never) {
			continue
		}
		if c.Charged > x.most() {
			report(fmt.Sprintf("hold %s: %d msat charged, at most %d were held", x.id, c.Charged, x.most()), x.reserve)
			continue
		}
		known := slices.ContainsFunc(append(x.costs, 0), func(cost int64) bool {
			return c.Charged == cost || slices.ContainsFunc(x.totals, func(total int64) bool {
				return c.Charged == min(cost,
					total)
			})
		})
		if !known && !m.crashed(x.reserve.Start, never) {
			report(fmt.Sprintf("hold %s: %d msat charged, which nobody ever reported: %v", x.id, c.Charged, x.costs), x.reserve)
		}
	}
}

func chargeKnown(m *model, report func(string, ...*Op)) {
	for name, s := range map[string]*State{"before": &m.Before, "after": &m.After} {
		seen := map[string]bool{}
		for _, c := range s.Charges {
			x := m.holds[c.Hold]
			switch {
			case seen[c.Hold]:
				report(fmt.Sprintf("hold %s has two lines %s", c.Hold, name))
			case x == nil:
				report(fmt.Sprintf("a charge of %d msat of hold %s, which nobody asked for", c.Charged, c.Hold))
			case x.reserve.Account != c.Account:
				report(fmt.Sprintf("hold %s was charged to account %s", c.Hold, c.Account), x.reserve)
			case x.reserve.Status == Fail:
				report(fmt.Sprintf("hold %s has a line of %d msat, although its reservation was refused", c.Hold, c.Charged),
					x.reserve)
			}
			seen[c.Hold] = true
		}
	}
}

// keyOnce has no exception: a charge that the database lost does not stand, so it
// does not count.
func keyOnce(m *model, report func(string, ...*Op)) {
	type key struct{ account, key string }
	charged := map[key][]*hold{}
	for _, x := range m.order {
		if x.reserve.Key != "" && m.before[x.id].Charged > 0 {
			k := key{x.reserve.Account, x.reserve.Key}
			charged[k] = append(charged[k], x)
		}
	}
	for k, all := range charged {
		if len(all) < 2 {
			continue
		}
		var ops []*Op
		for _, x := range all {
			ops = append(ops, x.reserve, x.acked)
		}
		report(fmt.Sprintf("key %s of account %s was charged %d times", k.key, k.account, len(all)), ops...)
	}
}

func budgetLimit(m *model, report func(string, ...*Op)) {
	spent := map[string]int64{}
	for id, c := range m.before {
		if x := m.holds[id]; x != nil {
			for _, b := range x.reserve.Budgets {
				spent[b] += c.Charged
			}
		}
	}
	for b, sum := range spent {
		if sum > m.Budgets[b] {
			report(fmt.Sprintf("budget %s of %d msat was charged %d", b, m.Budgets[b], sum))
		}
	}
}

// overcommit: when a hold is granted, everything that surely stands beside it
// must fit into what was paid.
func overcommit(m *model, report func(string, ...*Op)) {
	for _, x := range m.order {
		op := x.reserve
		if op.Status != OK {
			continue
		}
		var paid int64
		for _, p := range m.paidBy[op.Account] {
			if p.paid.Start <= op.End {
				paid += p.paid.Amount
			}
		}
		if sure := m.sure(op, ""); sure+op.Amount > paid {
			report(fmt.Sprintf("account %s paid %d msat; %d were granted beside %d that stand", op.Account, paid, op.Amount,
				sure), op)
		}
		for _, b := range op.Budgets {
			if sure := m.sure(op, b); sure+op.Amount > m.Budgets[b] {
				report(fmt.Sprintf("budget %s of %d msat; %d were granted beside %d that stand", b, m.Budgets[b], op.Amount,
					sure), op)
			}
		}
	}
}

// sweptLiving: a sweep is right where the owner was dead, or was kept from
// renewing for a whole lease. The last renewal may lie a period before that.
func sweptLiving(m *model, report func(string, ...*Op)) {
	for _, s := range m.Sweeps {
		x := m.holds[s.Hold]
		if x == nil || x.reserve.Status != OK || x.ending() <= s.Before {
			continue
		}
		if !m.unreachable(x.reserve.Teller, s) {
			report(fmt.Sprintf("hold %s of %s was swept between %d and %d ms, although its owner lived", s.Hold,
				x.reserve.Teller,
				s.After/1000, s.Before/1000), x.reserve)
		}
	}
	for i := range m.Ops {
		op := &m.Ops[i]
		if op.Kind != Extend || op.Reason != Swept {
			continue
		}
		x := m.holds[op.Hold]
		if x == nil {
			continue
		}
		if !m.unreachable(x.reserve.Teller, Sweep{Hold: op.Hold, After: x.reserve.End, Before: op.End}) {
			report(fmt.Sprintf("hold %s of %s was found swept, although its owner lived", op.Hold, x.reserve.Teller),
				x.reserve, op)
		}
	}
}

// unreachable reports whether a teller was dead, stopped or cut off for so long
// before a sweep that its lease had run out. Spans that leave no time for a
// renewal in between count as one; outages of the database and of the machine
// lengthen a teller's span, and the machine's count by themselves.
func (m *model) unreachable(teller string, s Sweep) bool {
	spans := slices.DeleteFunc(slices.Clone(m.Spans), func(x Span) bool {
		return !x.concerns(teller) && x.Who != Database
	})
	slices.SortFunc(spans, func(a, b Span) int { return int(a.From - b.From) })
	gap, need := m.RenewEvery+slack/2, m.Lease-m.RenewEvery-slack/5
	for i := 0; i < len(spans); {
		from, to, own := spans[i].From, spans[i].To, spans[i].Who != Database
		for i++; i < len(spans) && spans[i].From <= to+gap; i++ {
			to, own = max(to, spans[i].To), own || spans[i].Who != Database
		}
		if own && from < s.Before && to+gap >= s.After && min(to, s.Before)-from >= need {
			return true
		}
	}
	return false
}
