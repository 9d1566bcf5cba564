package metering

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// periodCount counts and hashes the lines of one period in their order, with the rows that the lines name. A charge
// that was replaced has several lines. Only the line that belongs to the present charge row is hashed with that row.
type periodCount struct {
	from, to                     Position
	transfers, budgets           hash.Hash
	transferCount, budgetCount   int64
	deposited, charged, adjusted wide
	nodes                        map[string]*wide
	buf                          []byte
}

func newPeriodCount(from, to Position) *periodCount {
	return &periodCount{from: from, to: to, transfers: sha256.New(), budgets: sha256.New(), nodes: make(map[string]*wide)}
}

// add counts the lines of the set that belong to the period.
func (p *periodCount) add(set *lineSet) {
	if set.next.Transfers <= p.from.Transfers && set.next.Budgets <= p.from.Budgets {
		return
	}
	for i := range set.transfers {
		if n := &set.transfers[i]; p.from.Transfers < n.seq && n.seq <= p.to.Transfers {
			p.transfer(set, n)
		}
	}
	for i := range set.budgets {
		n := &set.budgets[i]
		if n.seq <= p.from.Budgets || n.seq > p.to.Budgets {
			continue
		}
		p.budgetCount++
		b := numbers(p.buf[:0], n.seq, int64(n.row.Amount), n.row.At)
		p.buf = append(append(b, n.row.Budget[:]...), n.row.Hold[:]...)
		p.budgets.Write(p.buf)
	}
}

func (p *periodCount) transfer(set *lineSet, n *numbered[TransferRow]) {
	t := &n.row
	p.transferCount++
	b := numbers(p.buf[:0], n.seq, int64(t.Kind), int64(t.Amount), t.At)
	b = texts(b, t.Debit, t.Credit, t.Ref)
	_, field, amount, _ := t.sides()
	[]*wide{&p.deposited, &p.charged, &p.adjusted}[field].add(amount)
	switch t.Kind {
	case TransferDeposit:
		node := ""
		if d := set.deposits[payRef(t.Ref)]; d != nil {
			b = append(b, d.Account[:]...)
			if d.Settled != 0 {
				node = d.Node
			}
		}
		if p.nodes[node] == nil {
			p.nodes[node] = new(wide)
		}
		p.nodes[node].add(amount)
	case TransferAdjustment:
		if j := set.adjustments[holdRef(t.Ref)]; j != nil {
			b = append(numbers(b, int64(j.Delta), j.At), j.Account[:]...)
			b = texts(b, []byte(j.Reason))
		}
	default:
		if c := set.charges[holdRef(t.Ref)]; c != nil && !c.Provisional && c.At == t.At && t.Kind == TransferCharge {
			b = appendCharge(b, c)
		}
	}
	p.buf = b
	p.transfers.Write(b)
}

// appendCharge appends all columns of a charge except ChainPrev and Checksum.
func appendCharge(b []byte, c *ChargeRow) []byte {
	b = append(append(append(append(append(b, c.Hold[:]...), c.Account[:]...), c.Prev[:]...), c.Chain[:]...), c.Lock[:]...)
	clamped, provisional := int64(0), int64(0)
	if c.Clamped {
		clamped = 1
	}
	if c.Provisional {
		provisional = 1
	}
	b = numbers(b, c.At, c.Delivered, int64(c.Amount), int64(c.Charged), int64(c.Unbilled), c.Epoch, clamped, provisional)
	return texts(b, []byte(c.Service), []byte(c.Model), []byte(c.Source), []byte(c.Outcome), []byte(c.Backend), c.Usage, c.Rates)
}

func numbers(b []byte, list ...int64) []byte {
	for _, v := range list {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

// texts appends each text, with its length before it.
func texts(b []byte, list ...[]byte) []byte {
	for _, t := range list {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(t))), t...)
	}
	return b
}

// seal returns what was counted, as a Seal without name, times and balance.
func (p *periodCount) seal() Seal {
	s := Seal{From: p.from, To: p.to, Transfers: p.transferCount, BudgetLines: p.budgetCount, Deposited: p.deposited.big().String(),
		Charged: p.charged.big().String(), Adjusted: p.adjusted.big().String(), Nodes: make(map[string]string, len(p.nodes)),
		TransfersHash: hexOf(p.transfers.Sum(nil)), BudgetLinesHash: hexOf(p.budgets.Sum(nil))}
	for node, sum := range p.nodes {
		s.Nodes[node] = sum.big().String()
	}
	return s
}
