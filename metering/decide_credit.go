package metering

import (
	"fmt"

	"sluice.example/sluice/l402"
)

// depositOp credits a payment as presented.
type depositOp struct {
	d        Deposit
	again    bool
	credited l402.Msat // result
	excess   l402.Msat // result: what was claimed beyond what arrived
}

func (o *depositOp) account() l402.TokenID { return o.d.Account }

func (o *depositOp) need(b *Batch, again bool) {
	o.again = again
	b.Likely = true
	b.needNew(o.d.Account)
	b.Deposits.need(o.d.Hash)
}

func (o *depositOp) apply(b *Batch) error {
	result, err := b.credit(o.d, nil)
	o.credited, o.excess = added(result.change, o.credited, o.again), result.excess
	return err
}

// added is what an operation credited: after an attempt without an answer, what
// that attempt decided, which stands if this one finds nothing left to change.
func added(now, before l402.Msat, again bool) l402.Msat {
	if again && now == 0 {
		return before
	}
	return now
}

// settledOp credits a payment as the Lightning node reports it, and moves the
// node's cursor in the same transaction. With an empty Account it moves the
// cursor only.
type settledOp struct {
	s        Settled
	anew     bool // the node's history has begun anew: replace the cursor, whatever stands
	again    bool
	credited l402.Msat // result
	excess   l402.Msat // result: what was credited before and has not arrived
}

func (o *settledOp) account() l402.TokenID { return o.s.Account }

func (o *settledOp) need(b *Batch, again bool) {
	o.again = again
	if o.s.Node != "" {
		b.Cursors.need(o.s.Node)
	}
	if o.s.Account == (l402.TokenID{}) {
		return
	}
	b.Likely = true
	b.needNew(o.s.Account)
	b.Deposits.need(o.s.Hash)
}

func (o *settledOp) apply(b *Batch) error {
	// The cursor first: an invoice that cannot be credited must not stop the
	// stream for ever.
	o.moveCursor(b)
	if o.s.Account == (l402.TokenID{}) {
		return nil
	}
	result, err := b.credit(o.s.Deposit, &o.s)
	o.credited, o.excess = added(result.change, o.credited, o.again), result.excess
	return err
}

// moveCursor raises the cursor, or replaces it in a new history. Index 0 moves
// nothing: it says that lnd did not replay in order.
func (o *settledOp) moveCursor(b *Batch) {
	next := CursorRow{Node: o.s.Node, Index: o.s.Index, Hash: o.s.Cursor, Anew: o.anew, Account: o.s.Account}
	if next.Node == "" || next.Index == 0 && !o.anew {
		return
	}
	c := b.Cursors.get(next.Node)
	if c != nil {
		next.Since, next.Anew = c.Since, o.anew || c.Anew
	}
	if o.anew {
		next.Since = b.Now
	}
	switch {
	case c != nil && !o.anew && c.Index >= next.Index:
	case c != nil && c.Account != next.Account && c.Account != (l402.TokenID{}):
		// Moved within this batch for another account's credit, which may be left out:
		// the next settlement moves the cursor on.
	default:
		b.Cursors.put(next.Node, next)
	}
}

// credited is what became of one look at a payment.
type credited struct {
	change l402.Msat // of the balance; negative when a surplus was taken back
	excess l402.Msat // claimed beyond what arrived: somebody mints credit
}

// credit makes what stands for a payment what arrived, as far as that is known,
// and posts the difference. Until the Lightning node has shown the payment, the
// credential's proof counts; afterwards what the node showed. So the order of
// presentation and settle event does not matter, and neither counts twice.
// settled is nil for a presentation.
func (b *Batch) credit(d Deposit, settled *Settled) (credited, error) {
	a := b.Accounts.get(d.Account)
	if a == nil {
		return credited{}, fmt.Errorf("credit: %w: account was not made", ErrArgument)
	}
	row := b.Deposits.get(d.Hash)
	if row != nil && row.Account != d.Account {
		return credited{}, ErrForeignDeposit
	}
	if !d.Amount.Valid() {
		return credited{}, fmt.Errorf("deposit: %w", ErrAmount)
	}
	if row == nil {
		row = &DepositRow{Hash: d.Hash, Account: d.Account}
	}
	next, result := *row, credited{}
	switch {
	case settled != nil && row.Settled == 0:
		result.excess = max(0, row.Credited-row.Owed-d.Amount)
		result.change = b.arrive(a, &next, d.Amount)
	case settled != nil: // more parts of it, or a repetition
		result.change = b.arrive(a, &next, max(d.Amount, row.Credited-row.Owed))
	case row.Settled != 0: // presented, after it was seen settled
		result.excess = max(0, d.Amount-(row.Credited-row.Owed))
	case row.Doubted == 0:
		result.change = max(0, d.Amount-row.Credited)
		next.Credited += result.change
	}
	if !(a.Deposited + result.change).Valid() {
		return credited{}, fmt.Errorf("deposit: %w", ErrAmount)
	}
	b.post(a, result.change, d.Hash)
	if mark(&next, settled, b.Now) || next != *row {
		b.Deposits.put(d.Hash, next)
	}
	return result, nil
}

// arrive sets a deposit to what the Lightning node says has arrived, and returns
// the change of the balance. A surplus is taken back as far as it is available;
// the rest is noted as owed.
func (b *Batch) arrive(a *AccountRow, row *DepositRow, arrived l402.Msat) l402.Msat {
	row.Doubted = 0
	change := arrived - row.Credited
	if change < 0 {
		change = -min(-change, a.Available)
	}
	row.Credited += change
	row.Owed = row.Credited - arrived
	return change
}

// post moves money between Lightning and an account; a negative amount is taken
// back.
func (b *Batch) post(a *AccountRow, amount l402.Msat, hash l402.PaymentHash) {
	if amount == 0 {
		return
	}
	b.Durable = true
	a.Available += amount
	a.Deposited += amount
	b.Accounts.touch(a.ID)
	if amount > 0 {
		b.transfer(TransferDeposit, a.ID, []byte(BookLightning), a.ID[:], amount, hash[:])
	} else {
		b.transfer(TransferDeposit, a.ID, a.ID[:], []byte(BookLightning), -amount, hash[:])
	}
}

// mark notes that a deposit was presented, or seen settled, for the first time.
func mark(row *DepositRow, settled *Settled, now int64) bool {
	switch {
	case settled == nil && row.Presented == 0:
		row.Presented = now
	case settled != nil && row.Settled == 0:
		row.Settled = settled.At.UnixMicro()
		if row.Settled <= 0 {
			row.Settled = now
		}
		row.Node, row.Index = settled.Node, settled.Index
	default:
		return false
	}
	return true
}

// doubtOp takes a payment back that was presented and that the Lightning node,
// asked while its stream was live, does not know: only a leaked key can have made
// its credential. Should it settle after all, it is credited again.
type doubtOp struct {
	hash l402.PaymentHash
	who  l402.TokenID

	taken l402.Msat // result
	owed  l402.Msat // result: spent already
}

func (o *doubtOp) account() l402.TokenID { return o.who }

func (o *doubtOp) need(b *Batch, _ bool) {
	b.Likely = true
	b.Accounts.need(o.who)
	b.Deposits.need(o.hash)
}

func (o *doubtOp) apply(b *Batch) error {
	o.taken, o.owed = 0, 0
	a, row := b.Accounts.get(o.who), b.Deposits.get(o.hash)
	if a == nil || row == nil || row.Account != o.who || row.Settled != 0 || row.Doubted != 0 {
		return nil
	}
	b.Durable = true
	change := b.arrive(a, row, 0)
	row.Doubted = b.Now
	b.Deposits.touch(o.hash)
	b.post(a, change, o.hash)
	o.taken, o.owed = -change, row.Owed
	return nil
}

// adjustOp is an operator's correction.
type adjustOp struct {
	row AdjustmentRow
}

func (o *adjustOp) account() l402.TokenID { return o.row.Account }

func (o *adjustOp) need(b *Batch, _ bool) {
	b.Likely = true
	b.needNew(o.row.Account)
	b.Adjustments.need(o.row.ID)
}

func (o *adjustOp) apply(b *Batch) error {
	a := b.Accounts.get(o.row.Account)
	if a == nil {
		return fmt.Errorf("adjust: %w: account was not made", ErrArgument)
	}
	if old := b.Adjustments.get(o.row.ID); old != nil {
		if old.Account != o.row.Account || old.Delta != o.row.Delta {
			return fmt.Errorf("adjust: %w: id was used for another adjustment", ErrArgument)
		}
		return nil // repeated
	}
	delta := o.row.Delta
	if a.Available+delta < 0 {
		return &InsufficientError{Available: a.Available, Required: -delta}
	}
	if total := a.Available + a.Held + delta; !total.Valid() {
		return fmt.Errorf("adjust: %w", ErrAmount)
	}
	b.Durable = true
	a.Available += delta
	a.Adjusted += delta
	b.Accounts.touch(a.ID)
	row := o.row
	row.At = b.Now
	b.Adjustments.put(row.ID, row)
	if delta > 0 {
		b.transfer(TransferAdjustment, a.ID, []byte(BookAdjustments), a.ID[:], delta, row.ID[:])
	} else {
		b.transfer(TransferAdjustment, a.ID, a.ID[:], []byte(BookAdjustments), -delta, row.ID[:])
	}
	return nil
}

// statusOp sets what an account may do.
type statusOp struct {
	who    l402.TokenID
	status Status
}

func (o *statusOp) account() l402.TokenID { return o.who }

func (o *statusOp) need(b *Batch, _ bool) {
	b.Likely = true
	b.needNew(o.who)
}

func (o *statusOp) apply(b *Batch) error {
	a := b.Accounts.get(o.who)
	if a == nil {
		return fmt.Errorf("set status: %w: account was not made", ErrArgument)
	}
	if a.Status != o.status {
		b.Durable = true
		a.Status = o.status
		b.Accounts.touch(a.ID)
	}
	return nil
}
