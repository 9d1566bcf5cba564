package metering

import (
	"encoding/binary"
	"fmt"

	"sluice.example/sluice/l402"
)

// manyDoubts is the number of doubts above which a scan looks at all of them again, so that they don't fill memory.
const manyDoubts = 1000

// doubt is a charge whose row does not agree with one of its lines alone. A provisional charge that its owner replaced
// has three lines: the old amount, the old amount taken back, and the new amount. Only the three lines together agree
// with the row.
type doubt struct {
	lines []numbered[TransferRow]
}

// checkLines compares each line of the set with the row that the line names.
func (a *auditor) checkLines(set *lineSet) {
	for i := range set.transfers {
		a.checkTransfer(set, &set.transfers[i])
	}
	for i := range set.budgets {
		a.checkBudgetLine(set, &set.budgets[i])
	}
}

func (a *auditor) checkTransfer(set *lineSet, n *numbered[TransferRow]) {
	account, _, amount, ok := n.row.sides()
	if !ok {
		a.mismatch(lineSubject(lineTransfer, n.seq), "transfer %d: no transfer of kind %d from %q to %q", n.seq, n.row.Kind, n.row.Debit, n.row.Credit)
		return
	}
	switch n.row.Kind {
	case TransferDeposit:
		hash := payRef(n.row.Ref)
		if d := set.deposits[hash]; d == nil || d.Account != account {
			a.mismatch(lineSubject(lineTransfer, n.seq), "account %s: transfer %d of %d msat names deposit %s, which is not the account's", account, n.seq, amount, hash)
		}
	case TransferAdjustment:
		id := holdRef(n.row.Ref)
		if j := set.adjustments[id]; j == nil || j.Account != account || j.Delta != amount {
			a.mismatch(lineSubject(lineTransfer, n.seq), "account %s: transfer %d of %d msat names adjustment %s, which is another or none", account, n.seq, amount, id)
		}
	default:
		a.checkCharge(set, n, account, amount)
	}
}

// checkCharge compares a line of a charge or of a reversal with the charge's row.
func (a *auditor) checkCharge(set *lineSet, n *numbered[TransferRow], account l402.TokenID, amount l402.Msat) {
	id := holdRef(n.row.Ref)
	c := set.charges[id]
	if c != nil && c.Lock != (l402.PaymentHash{}) {
		if d := set.deposits[c.Lock]; d == nil || d.Account != account {
			a.mismatch(lineSubject(lineTransfer, n.seq), "account %s: charge %s used the lock of deposit %s, which is not the account's", account, id, c.Lock)
		}
	}
	if d := a.doubts[id]; d != nil {
		d.lines = append(d.lines, *n)
		return
	}
	if c != nil && c.Account == account && n.row.Kind == TransferCharge && n.row.At == c.At && amount == c.Charged {
		if wrong := c.inexact(); wrong != "" {
			a.mismatch(lineSubject(lineTransfer, n.seq), "account %s: charge %s: %s", account, id, wrong)
		}
		return
	}
	a.doubts[id] = &doubt{lines: []numbered[TransferRow]{*n}}
}

// inexact says what is wrong with a charge row in itself; "" means nothing. A charge takes at most the amount that was
// held. The charged and the unbilled amount together are the cost of the charge's usage at its rates.
func (c *ChargeRow) inexact() string {
	if damaged(c.Checksum, c.checksum()) {
		return fmt.Sprintf("what was fixed when it was made has changed since, such as the %d msat that were held", c.Amount)
	}
	u, err := readUsage(c.Usage)
	if err != nil {
		return "its usage cannot be read"
	}
	rates, err := readRates(c.Rates)
	if err != nil {
		return "its rates cannot be read"
	}
	cost, _ := costOf(rates, &u)
	if c.Charged < 0 || c.Charged > min(cost, c.Amount) || c.Unbilled != min(cost-c.Charged, maxUnbilled) {
		return fmt.Sprintf("%d of %d msat charged and %d not billed, its usage costs %d", c.Charged, c.Amount, c.Unbilled, cost)
	}
	return ""
}

// checkBudgetLine compares a line of a budget with the charge that the line names.
func (a *auditor) checkBudgetLine(set *lineSet, n *numbered[BudgetLine]) {
	if n.row.Hold == (HoldID{}) {
		return // a line without a hold closes a budget
	}
	c := set.charges[n.row.Hold]
	switch {
	case c == nil:
		a.mismatch(lineSubject(lineBudget, n.seq), "budget %x: line %d names charge %s, which does not exist", n.row.Budget, n.seq, n.row.Hold)
	case n.row.At == c.At && n.row.Amount > 0 && n.row.Amount != c.Charged:
		a.mismatch(lineSubject(lineBudget, n.seq), "budget %x: line %d of %d msat for charge %s of %d", n.row.Budget, n.seq, n.row.Amount, n.row.Hold, c.Charged)
	}
}

// settleDoubts judges each doubt over all its lines, including the lines of tail. With final, each doubt that does not
// agree becomes a mismatch. Without final, more lines may follow, so settleDoubts only drops the doubts that agree.
func (a *auditor) settleDoubts(s Snapshot, tail *lineSet, final bool) error {
	rows := make(map[HoldID]*ChargeRow, len(a.doubts))
	if err := s.ChargesOf(keysOf(a.doubts), func(c ChargeRow) { rows[c.Hold] = &c }); err != nil {
		return err
	}
	later := make(map[HoldID][]numbered[TransferRow])
	if tail != nil {
		for _, n := range tail.transfers {
			if id := holdRef(n.row.Ref); a.doubts[id] != nil && (n.row.Kind == TransferCharge || n.row.Kind == TransferReversal) {
				later[id] = append(later[id], n)
			}
		}
	}
	for id, d := range a.doubts {
		wrong := judge(rows[id], append(d.lines[:len(d.lines):len(d.lines)], later[id]...))
		if wrong == "" {
			delete(a.doubts, id)
			continue
		}
		if final {
			account, _, _, _ := d.lines[0].row.sides()
			for _, n := range d.lines {
				a.suspect(lineSubject(lineTransfer, n.seq))
			}
			a.mismatch(accountSubject(account), "account %s: charge %s: %s", account, id, wrong)
			delete(a.doubts, id)
		}
	}
	return nil
}

// judge says what is wrong with a charge and its lines; "" means that they agree. The first lines of the charge may be
// missing, because earlier audits read them. The last lines are all there.
func judge(c *ChargeRow, lines []numbered[TransferRow]) string {
	if c == nil {
		return "its lines name a charge that does not exist"
	}
	var current, now, before, back int64 // current: number of lines at the charge's time; the others: amounts in msat
	for i := range lines {
		t := &lines[i].row
		account, _, amount, _ := t.sides()
		switch {
		case account != c.Account:
			return "the charge is another account's"
		case t.Kind == TransferReversal:
			back -= int64(amount)
			if t.At == c.At {
				current++
			}
		case t.At == c.At:
			current++
			now += int64(amount)
		default:
			before += int64(amount)
		}
	}
	switch {
	case current == 0:
		return "none of its lines was made with the charge as it stands"
	case now != int64(c.Charged):
		return "the charge is of another amount than its last line"
	case before != 0 && c.Provisional:
		return "the charge was replaced, and its row says that it was not"
	case c.inexact() != "":
		return c.inexact()
	case before != 0 && back != before:
		return "what was taken back is not what was charged before"
	}
	return ""
}

// The tables that a line can be in. The table is the byte after the line's number in the subject's id.
const (
	lineTransfer = 1
	lineBudget   = 2
)

// subjectLine is the kind of a subject that is a line, not an account, budget or payment.
const subjectLine SubjectKind = 4

// lineSubject makes the subject of a line, for the list of what the next audit must look at again.
func lineSubject(table byte, seq int64) (s Subject) {
	s.Kind = subjectLine
	binary.BigEndian.PutUint64(s.ID[:8], uint64(seq))
	s.ID[8] = table
	return s
}

func (s Subject) line() (table byte, seq int64) {
	return s.ID[8], int64(binary.BigEndian.Uint64(s.ID[:8]))
}
