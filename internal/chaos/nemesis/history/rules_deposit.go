package history

import (
	"fmt"
	"slices"
)

func depositStands(m *model, report func(string, ...*Op)) {
	for id, p := range m.payments {
		if p.paid == nil || m.Before.Deposits[id] == p.paid.Amount {
			continue
		}
		for _, ack := range p.acks {
			if ack.End < m.Before.At && !m.exempt(ack, never) {
				report(fmt.Sprintf("payment %s: %d of %d msat stand, although the client was told that it is credited", id,
					m.Before.Deposits[id], p.paid.Amount), p.paid, ack)
				break
			}
		}
	}
}

func depositOnce(m *model, report func(string, ...*Op)) {
	for name, s := range map[string]*State{"before": &m.Before, "after": &m.After} {
		for id, credited := range s.Deposits {
			p := m.payments[id]
			switch {
			case p == nil || p.paid == nil:
				report(fmt.Sprintf("payment %s, which nobody made, is credited with %d msat", id, credited))
			case credited != 0 && credited != p.paid.Amount:
				report(fmt.Sprintf("payment %s of %d msat is credited with %d %s", id, p.paid.Amount, credited, name), p.paid)
			}
		}
	}
	for id, p := range m.payments {
		if p.paid == nil {
			continue
		}
		m.creditedOnce(id, p, report)
	}
}

// creditedOnce: the answers may say only once that they added the payment. An
// attempt that got no answer and is repeated says so as well, and another may have
// come first: so only answers with nothing wrong in between count.
func (m *model) creditedOnce(id string, p *payment, report func(string, ...*Op)) {
	var added []*Op
	for _, ack := range p.acks {
		if ack.Answer.Credited > p.paid.Amount {
			report(fmt.Sprintf("payment %s of %d msat added %d", id, p.paid.Amount, ack.Answer.Credited), p.paid, ack)
		}
		if ack.Answer.Credited > 0 && !m.exempt(ack, never) {
			added = append(added, ack)
		}
	}
	if len(added) > 1 && m.calm(added[0].Start, added[len(added)-1].End) {
		report(fmt.Sprintf("payment %s was added %d times", id, len(added)), added...)
	}
}

func depositBack(m *model, report func(string, ...*Op)) {
	for id, p := range m.payments {
		if p.paid == nil {
			continue
		}
		last := p.paid
		if n := len(p.tries); n > 0 {
			last = p.tries[n-1]
		}
		if credited := m.After.Deposits[id]; credited != p.paid.Amount {
			report(fmt.Sprintf("payment %s of %d msat was presented again and stands with %d", id, p.paid.Amount, credited),
				p.paid, last)
		}
	}
}

func refused(m *model, report func(string, ...*Op)) {
	for i := range m.Ops {
		op := &m.Ops[i]
		switch {
		case op.Reason == Foreign:
			report("a payment was refused as another account's", op)
		case op.Kind == Reserve && op.Reason == Insufficient:
			if left := m.standing(op) - m.taken(op, ""); left < op.Amount || m.budgetShort(op) {
				continue
			}
			standing := m.standing(op)
			report(fmt.Sprintf("account %s: refused for lack of %d msat (available: %d), although at least %d of %d paid are left",
				op.Account, op.Amount, op.Answer.Available, standing-m.taken(op, ""), standing), op)
		}
	}
}

// budgetShort reports whether one of the budgets may have been used up.
func (m *model) budgetShort(op *Op) bool {
	return slices.ContainsFunc(op.Budgets, func(b string) bool { return m.Budgets[b]-m.taken(op, b) < op.Amount })
}

// balanceShows compares each balance with what must and what can stand then.
func balanceShows(m *model, report func(string, ...*Op)) {
	for i := range m.Ops {
		op := &m.Ops[i]
		if op.Kind != Balance || op.Status != OK {
			continue
		}
		a := op.Answer
		if a.Available < 0 || a.Held < 0 || a.Available+a.Held != a.Deposited-a.Charged {
			report(fmt.Sprintf("account %s: available %d + held %d is not deposited %d − charged %d", op.Account,
				a.Available, a.Held,
				a.Deposited, a.Charged), op)
		}
		var paid, least int64
		for _, p := range m.paidBy[op.Account] {
			if p.paid.Start <= op.End {
				paid += p.paid.Amount
			}
		}
		for _, x := range m.byAccount[op.Account] {
			if x.acked != nil && x.acked.End < op.Start && !m.exempt(x.acked, op.End) {
				least += x.acked.Answer.Charged
			}
		}
		if must := m.standing(op); a.Deposited < must || a.Deposited > paid {
			report(fmt.Sprintf("account %s shows %d msat deposited, want %d to %d", op.Account, a.Deposited, must, paid), op)
		}
		if most := m.taken(op, ""); a.Charged < least || a.Charged > most {
			report(fmt.Sprintf("account %s shows %d msat charged, want %d to %d", op.Account, a.Charged, least, most), op)
		}
		if m.After.At > 0 && op.Start >= m.After.At {
			if s := m.After.Accounts[op.Account]; (Account{a.Available, a.Held, a.Deposited, a.Charged}) != s {
				report(fmt.Sprintf("account %s: the teller shows %+v, the ledger has %+v", op.Account, a, s), op)
			}
		}
	}
}
