package metering

import (
	"fmt"

	"sluice.example/sluice/l402"
)

// depositOp credits a payment that a client presented.
type depositOp struct {
	d        Deposit
	again    bool
	credited l402.Msat // result: what was credited, msat
	excess   l402.Msat // result: the amount claimed beyond the amount that arrived
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

// added returns what an operation credited, in msat. now is what this attempt decided, before is what the earlier
// attempt decided. If an earlier attempt got no answer and this attempt finds nothing left to change, the earlier
// attempt was committed, and before counts.
func added(now, before l402.Msat, again bool) l402.Msat {
	if again && now == 0 {
		return before
	}
	return now
}

// settledOp credits a payment that the Lightning node reported, and moves the node's cursor in the same transaction.
// With an empty Account it moves the cursor only.
type settledOp struct {
	s        Settled
	anew     bool // the node's history has begun anew: replace the stored cursor, whatever its index
	again    bool
	credited l402.Msat // result: what was credited, msat
	excess   l402.Msat // result: the amount credited before beyond the amount that arrived
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
	// apply moves the cursor first, because an invoice that cannot be credited must not stop the stream for ever.
	o.moveCursor(b)
	if o.s.Account == (l402.TokenID{}) {
		return nil
	}
	result, err := b.credit(o.s.Deposit, &o.s)
	o.credited, o.excess = added(result.change, o.credited, o.again), result.excess
	return err
}

// moveCursor raises the cursor, or replaces it when the node's history began anew. Otherwise index 0 moves nothing: it
// says that lnd did not replay the invoices in order.
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
		// An earlier operation of this batch moved the cursor together with another account's credit. The store may
		// leave that account out, so this operation does not move the cursor. The next settlement moves it.
	default:
		b.Cursors.put(next.Node, next)
	}
}

// credited is the result of crediting one payment.
type credited struct {
	change l402.Msat // of the account's balance; negative when a surplus was taken back
	excess l402.Msat // the amount claimed beyond the amount that arrived; above 0, someone makes credit without paying
}

// credit changes what is credited for a payment to what arrived, as far as that is known, and posts the difference.
// Until the Lightning node has reported the payment, the amount that the credential proves counts. After that, the
// amount that the node reported counts. So presentation and report may come in either order, and the payment is never
// counted twice. settled is nil for a presentation.
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
	case settled != nil: // further parts of the payment arrived, or the report is repeated
		result.change = b.arrive(a, &next, max(d.Amount, row.Credited-row.Owed))
	case row.Settled != 0: // presented after the Lightning node reported it
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

// arrive sets a deposit to what the Lightning node says has arrived, and returns the change of the account's balance in
// msat. It takes back a surplus as far as the account has it available, and notes the rest as owed.
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

// post moves amount from the Lightning book to an account. A negative amount moves money back.
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

// mark notes the time at which a deposit was first presented, or first reported as settled. It returns false when that
// time was noted before.
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

// doubtOp takes back a payment that a client presented and that the Lightning node does not know. The caller asked the
// node while the node's stream was live, so only somebody with a leaked key can have made the payment's credential. If
// the payment settles later, the ledger credits it again.
type doubtOp struct {
	hash l402.PaymentHash
	who  l402.TokenID

	taken l402.Msat // result: the amount taken back
	owed  l402.Msat // result: the amount owed, because it is not available any more
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

// adjustOp changes an account's balance by an operator's correction.
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
		return nil // the operation was repeated
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

// statusOp sets the status of an account.
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
