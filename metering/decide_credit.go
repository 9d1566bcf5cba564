package metering

import (
	"fmt"

	"sluice/l402"
)

// depositOp credits a payment as presented.
type depositOp struct {
	d        Deposit
	again    bool
	credited l402.Msat // result
}

func (o *depositOp) account() l402.TokenID { return o.d.Account }

func (o *depositOp) need(b *Batch, again bool) {
	o.again = again
	b.Durable = true
	b.Create = append(b.Create, o.d.Account)
	b.Accounts.need(o.d.Account)
	b.Deposits.need(o.d.Hash)
}

func (o *depositOp) apply(b *Batch) error {
	more, err := b.credit(o.d, nil)
	o.credited = added(more, o.credited, o.again)
	return err
}

// added is what an operation credited: after an attempt without an answer, what
// that attempt decided, which stands if this one finds nothing left to add.
func added(now, before l402.Msat, again bool) l402.Msat {
	if again {
		return max(now, before)
	}
	return now
}

// settledOp credits a payment as the Lightning node reports it, and moves the
// node's cursor in the same transaction. With an empty Account it moves the
// cursor only.
type settledOp struct {
	s        Settled
	again    bool
	credited l402.Msat // result
}

func (o *settledOp) account() l402.TokenID { return o.s.Account }

func (o *settledOp) need(b *Batch, again bool) {
	o.again = again
	b.Cursors.need(o.s.Node)
	if o.s.Account == (l402.TokenID{}) {
		return
	}
	b.Durable = true
	b.Create = append(b.Create, o.s.Account)
	b.Accounts.need(o.s.Account)
	b.Deposits.need(o.s.Hash)
}

func (o *settledOp) apply(b *Batch) error {
	// The cursor first: an invoice that cannot be credited must not stop the
	// stream for ever.
	// Index 0 moves nothing: it says that lnd did not replay in order.
	if c := b.Cursors.get(o.s.Node); o.s.Index > 0 && (c == nil || c.Index < o.s.Index) {
		b.Cursors.put(o.s.Node, CursorRow{Node: o.s.Node, Index: o.s.Index})
	}
	if o.s.Account == (l402.TokenID{}) {
		return nil
	}
	more, err := b.credit(o.s.Deposit, &o.s)
	o.credited = added(more, o.credited, o.again)
	return err
}

// credit raises what stands for a payment to what arrived, if that is more, and
// posts the difference. So the order of presentation and settle event does not
// matter, and neither counts twice. settled is nil for a presentation.
func (b *Batch) credit(d Deposit, settled *Settled) (l402.Msat, error) {
	a := b.Accounts.get(d.Account)
	if a == nil {
		return 0, fmt.Errorf("credit: %w: account was not made", ErrArgument)
	}
	row := b.Deposits.get(d.Hash)
	if row != nil && row.Account != d.Account {
		return 0, ErrForeignDeposit
	}
	more := d.Amount
	if row != nil {
		more = max(0, d.Amount-row.Credited)
	}
	if !d.Amount.Valid() || !(a.Deposited + more).Valid() {
		return 0, fmt.Errorf("deposit: %w", ErrAmount)
	}
	if row == nil {
		row = b.Deposits.put(d.Hash, DepositRow{Hash: d.Hash, Account: d.Account})
	}
	if more > 0 {
		row.Credited += more
		a.Available += more
		a.Deposited += more
		b.Accounts.touch(a.ID)
		b.transfer(TransferDeposit, []byte(BookLightning), a.ID[:], more, d.Hash[:])
	}
	if mark(row, settled, b.Now) || more > 0 {
		b.Deposits.touch(d.Hash)
	}
	return more, nil
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

// adjustOp is an operator's correction.
type adjustOp struct {
	row AdjustmentRow
}

func (o *adjustOp) account() l402.TokenID { return o.row.Account }

func (o *adjustOp) need(b *Batch, _ bool) {
	b.Durable = true
	b.Create = append(b.Create, o.row.Account)
	b.Accounts.need(o.row.Account)
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
	a.Available += delta
	a.Adjusted += delta
	b.Accounts.touch(a.ID)
	row := o.row
	row.At = b.Now
	b.Adjustments.put(row.ID, row)
	if delta > 0 {
		b.transfer(TransferAdjustment, []byte(BookAdjustments), a.ID[:], delta, row.ID[:])
	} else {
		b.transfer(TransferAdjustment, a.ID[:], []byte(BookAdjustments), -delta, row.ID[:])
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
	b.Durable = true
	b.Create = append(b.Create, o.who)
	b.Accounts.need(o.who)
}

func (o *statusOp) apply(b *Batch) error {
	a := b.Accounts.get(o.who)
	if a == nil {
		return fmt.Errorf("set status: %w: account was not made", ErrArgument)
	}
	if a.Status != o.status {
		a.Status = o.status
		b.Accounts.touch(a.ID)
	}
	return nil
}
