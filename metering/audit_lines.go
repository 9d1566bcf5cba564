package metering

import (
	"math"

	"sluice.example/sluice/l402"
)

// numbered is an append-only line with its number.
type numbered[L any] struct {
	seq int64
	row L
}

// lineSet is a run of lines, with the rows that the lines name.
type lineSet struct {
	transfers []numbered[TransferRow]
	budgets   []numbered[BudgetLine]
	next      Position // the position up to which all lines have been read
	more      bool     // there are lines after next, up to the position that was asked for

	charges     map[HoldID]*ChargeRow
	deposits    map[l402.PaymentHash]*DepositRow
	adjustments map[HoldID]*AdjustmentRow
}

// toTheEnd asks for all lines of a snapshot.
var toTheEnd = Position{math.MaxInt64, math.MaxInt64}

// readLines reads the lines after one position up to another, at most limit of each kind, with the rows that the lines
// name.
func readLines(s Snapshot, after, upto Position, limit int) (*lineSet, error) {
	set := &lineSet{next: upto}
	if after.Transfers < upto.Transfers {
		err := s.Transfers(after.Transfers, upto.Transfers, limit, func(seq int64, t TransferRow) {
			set.transfers = append(set.transfers, numbered[TransferRow]{seq, t})
		})
		if err != nil {
			return nil, err
		}
		if n := len(set.transfers); n == limit {
			set.next.Transfers, set.more = set.transfers[n-1].seq, true
		}
	}
	if after.Budgets < upto.Budgets {
		err := s.BudgetLines(after.Budgets, upto.Budgets, limit, func(seq int64, l BudgetLine) {
			set.budgets = append(set.budgets, numbered[BudgetLine]{seq, l})
		})
		if err != nil {
			return nil, err
		}
		if n := len(set.budgets); n == limit {
			set.next.Budgets, set.more = set.budgets[n-1].seq, true
		}
	}
	return set, set.lookUp(s)
}

// lookUp reads the rows that the lines name: charges by their holds, payments by their hashes, and adjustments by their
// ids. It also reads the payments whose locks those charges used.
func (set *lineSet) lookUp(s Snapshot) error {
	set.charges = make(map[HoldID]*ChargeRow)
	set.deposits = make(map[l402.PaymentHash]*DepositRow)
	set.adjustments = make(map[HoldID]*AdjustmentRow)
	for i := range set.transfers {
		t := &set.transfers[i].row
		switch t.Kind {
		case TransferDeposit:
			set.deposits[payRef(t.Ref)] = nil
		case TransferCharge, TransferReversal:
			set.charges[holdRef(t.Ref)] = nil
		case TransferAdjustment:
			set.adjustments[holdRef(t.Ref)] = nil
		}
	}
	for i := range set.budgets {
		if id := set.budgets[i].row.Hold; id != (HoldID{}) {
			set.charges[id] = nil
		}
	}
	err := s.ChargesOf(keysOf(set.charges), func(c ChargeRow) {
		set.charges[c.Hold] = &c
		if c.Lock != (l402.PaymentHash{}) {
			set.deposits[c.Lock] = nil
		}
	})
	if err != nil {
		return err
	}
	if err := s.DepositsOf(keysOf(set.deposits), func(d DepositRow) { set.deposits[d.Hash] = &d }); err != nil {
		return err
	}
	return s.AdjustmentsOf(keysOf(set.adjustments), func(j AdjustmentRow) { set.adjustments[j.ID] = &j })
}

func keysOf[K comparable, V any](m map[K]V) []K {
	list := make([]K, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	return list
}

// holdRef returns the id of the hold or adjustment that a transfer names. It returns the zero id for a reference of any
// other length.
func holdRef(ref []byte) (id HoldID) {
	if len(ref) == len(id) {
		copy(id[:], ref)
	}
	return id
}

func payRef(ref []byte) (h l402.PaymentHash) {
	if len(ref) == len(h) {
		copy(h[:], ref)
	}
	return h
}

// movement is what one line changes in the sums of one subject.
type movement struct {
	Subject
	seq    int64
	field  int // index in Sums
	amount l402.Msat
}

// sides returns whose transfer it is, which of the account's sums it changes, and by how much. ok is false for a line
// that the ledger never writes.
func (t *TransferRow) sides() (account l402.TokenID, field int, amount l402.Msat, ok bool) {
	in, out, book := t.Credit, t.Debit, ""
	switch t.Kind {
	case TransferDeposit:
		field, book = 0, BookLightning
	case TransferCharge, TransferReversal:
		field, book = 1, BookRevenue
	case TransferAdjustment:
		field, book = 2, BookAdjustments
	default:
		return account, 0, 0, false
	}
	side := in
	amount = t.Amount
	if string(in) == book {
		side, amount = out, -amount
	} else if string(out) != book {
		return account, 0, 0, false
	}
	if t.Kind == TransferCharge && amount > 0 || t.Kind == TransferReversal && amount < 0 {
		return account, 0, 0, false
	}
	if field == 1 {
		amount = -amount // a charge's amount leaves the account and raises its charged sum
	}
	return l402.TokenID(pad(side)), field, amount, len(side) == len(account) && t.Amount > 0
}

func pad(b []byte) (id [32]byte) {
	copy(id[:], b)
	return id
}

// movements lists what the lines of the set change.
func (set *lineSet) movements() []movement {
	list := make([]movement, 0, len(set.transfers)+len(set.budgets))
	for i := range set.transfers {
		n := &set.transfers[i]
		account, field, amount, ok := n.row.sides()
		if !ok {
			continue // checkTransfer reports this line
		}
		list = append(list, movement{accountSubject(account), n.seq, field, amount})
		switch n.row.Kind {
		case TransferDeposit:
			list = append(list, movement{paymentSubject(payRef(n.row.Ref)), n.seq, 0, amount})
		case TransferCharge, TransferReversal:
			if c := set.charges[holdRef(n.row.Ref)]; c != nil && c.Lock != (l402.PaymentHash{}) {
				list = append(list, movement{paymentSubject(c.Lock), n.seq, 1, amount})
			}
		}
	}
	for i := range set.budgets {
		n := &set.budgets[i]
		list = append(list, movement{budgetSubject(n.row.Budget), n.seq, 0, n.row.Amount})
	}
	return list
}
