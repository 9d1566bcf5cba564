package metering

import (
	"fmt"
	"time"

	"sluice.example/sluice/l402"
)

// operation is one queued request to the ledger. need and apply may run several
// times, for one attempt to commit after another; only the last counts.
type operation interface {
	// account is who the operation concerns; zero when nobody in particular.
	account() l402.TokenID
	// need names every row that apply may touch. again is set when an earlier
	// attempt may have been committed without an answer.
	need(b *Batch, again bool)
	// apply decides over the loaded rows. An error refuses the operation and is
	// given to its caller once the batch is committed.
	apply(b *Batch) error
}

// terms is what a hold is made with.
type terms struct {
	amount  l402.Msat
	ctx     *holdContext // read only
	context []byte       // the same, encoded
}

// reserveOp holds an amount.
type reserveOp struct {
	r      *Reservation
	own    terms
	locked terms // under r.Lock; empty without one
	fresh  bool  // the id was made for this operation
	again  bool

	made      terms     // result: what the hold was made with, perhaps by an earlier attempt
	available l402.Msat // result: left for others after this hold
	credited  l402.Msat // result: what the deposit added
	excess    l402.Msat // result: what the deposit claims beyond what arrived
	deposited bool      // result: the deposit stands
	first     HoldID    // result of a refusal as charged: whose entry to show
}

func (o *reserveOp) account() l402.TokenID { return o.r.Account }

func (o *reserveOp) need(b *Batch, again bool) {
	o.again = again
	if o.r.Deposit != nil {
		b.needNew(o.r.Account)
		b.Deposits.need(o.r.Deposit.Hash)
	}
	b.needAccount(o.r.Account, o.own.ctx)
	if o.r.Lock != nil {
		b.Deposits.need(o.r.Lock.Hash)
	}
	switch {
	case again:
		b.Holds.need(o.r.ID)
		b.Charges.need(o.r.ID)
	case o.fresh:
		b.Holds.needFresh(o.r.ID)
	default:
		b.Holds.need(o.r.ID)
	}
	for i := range o.r.RateLimits {
		b.Windows.need(o.r.RateLimits[i].ID)
	}
	if o.r.Idempotency != nil {
		b.Likely = true
		b.Keys.need(o.key())
	}
}

func (o *reserveOp) key() KeyID { return KeyID{o.r.Account, o.r.Idempotency.Key} }

// apply checks in this order: deposit, status, idempotency key, lock, money,
// number of budgets, rates. A request that is refused for any reason counts
// against no rate.
func (o *reserveOp) apply(b *Batch) error {
	o.deposited, o.excess, o.first = false, 0, HoldID{}
	if d := o.r.Deposit; d != nil {
		result, err := b.credit(*d, nil)
		if err != nil {
			return err
		}
		o.credited, o.excess, o.deposited = added(result.change, o.credited, o.again), result.excess, true
	}
	a := b.Accounts.get(o.r.Account)
	if a == nil {
		return &InsufficientError{Required: o.r.Amount}
	}
	if h := b.Holds.get(o.r.ID); h != nil {
		return o.found(b, a, h)
	}
	if o.again && b.Charges.get(o.r.ID) != nil {
		return fmt.Errorf("%w: the reservation took so long that it was swept", ErrUnavailable)
	}
	if a.Status != StatusActive {
		return fmt.Errorf("%w: %s", ErrFrozen, a.Status)
	}
	if err := o.duplicate(b); err != nil {
		return err
	}
	for i := range o.r.Budgets {
		if row := b.Budgets.get(o.r.Budgets[i].ID); row != nil && row.Account != a.ID {
			return fmt.Errorf("%w: a delegated budget of another account", ErrArgument)
		}
	}
	o.made = o.own
	if o.r.Lock != nil && b.covers(a, o.r.Lock) {
		o.made = o.locked
	}
	if room := b.room(a, o.r.Budgets); room < o.made.amount {
		return &InsufficientError{Available: room, Required: o.made.amount, Credited: o.credited}
	}
	if o.made.amount > 0 && b.tooMany(a, o.r.Budgets) {
		return ErrTooManyBudgets
	}
	if err := b.countRequests(a.ID, o.r.RateLimits); err != nil {
		return err
	}
	b.take(a, o.r.ID, &o.made, noUsage, SourceNone)
	o.available = b.room(a, o.r.Budgets)
	return nil
}

// found answers a reservation whose first commit went through unheard: with
// what the hold was made with then.
func (o *reserveOp) found(b *Batch, a *AccountRow, h *HoldRow) error {
	if h.Account != a.ID {
		return fmt.Errorf("%w: hold id of another account", ErrArgument)
	}
	c, err := readContext(h.Context)
	if err != nil {
		return fmt.Errorf("%w: hold made before: %w", ErrArgument, err)
	}
	o.made = terms{amount: h.Amount, ctx: c, context: h.Context}
	b.adopt(h)
	o.available = b.room(a, o.r.Budgets)
	return nil
}

// adopt puts a hold under the name of this process: it made the hold under another,
// before it was taken for dead, or repeats the reservation of a process that died.
func (b *Batch) adopt(h *HoldRow) {
	if h.Owner != b.rules.owner {
		h.Owner = b.rules.owner
		b.Holds.touch(h.ID)
	}
}

// take makes a hold.
func (b *Batch) take(a *AccountRow, id HoldID, t *terms, usage []byte, source Source) {
	b.moveHeld(a, t.ctx, t.amount)
	b.Holds.put(id, HoldRow{ID: id, Account: a.ID, Amount: t.amount, Owner: b.rules.owner,
		Context: t.context, Usage: usage, Source: source})
	if i := t.ctx.idempotency; i != nil {
		// The client may repeat the request at once, so the key must be on the disk
		// before the request goes on: else one key could be charged twice.
		b.Durable = true
		key := KeyID{a.ID, i.Key}
		// A hold that was lost and is made anew does not take the key back: the
		// request that has the key now keeps it. See keyRoom.
		if k := b.Keys.get(key); k == nil || k.Hold == id || k.Expires <= b.Now {
			b.Keys.put(key, KeyRow{KeyID: key, Body: i.Body, Hold: id, Expires: b.until(IdempotencyTTL)})
		}
	}
}

// noUsage is the encoding of a usage of nothing. Never written to.
var noUsage = []byte{positionalForm}

// duplicate refuses a key that is in use or was charged.
func (o *reserveOp) duplicate(b *Batch) error {
	if o.r.Idempotency == nil {
		return nil
	}
	k := b.Keys.get(o.key())
	switch {
	case k == nil, k.Expires <= b.Now, k.Hold == o.r.ID:
		return nil
	case k.Body != o.r.Idempotency.Body:
		return &DuplicateError{State: DuplicateMismatch}
	case k.Charged:
		o.first = k.Hold
		return &DuplicateError{State: DuplicateCharged}
	}
	return &DuplicateError{State: DuplicateRunning}
}

// extendOp raises a hold to a total. Should the hold have been lost with the
// store's last moments, it makes it anew.
type extendOp struct {
	id     HoldID
	who    l402.TokenID
	want   terms  // as the hold was made, with the total
	usage  []byte // running usage, for a hold that is made anew
	source Source

	available l402.Msat // result
	remade    bool      // result: the hold had been lost
}

func (o *extendOp) account() l402.TokenID { return o.who }

func (o *extendOp) need(b *Batch, _ bool) {
	b.needAccount(o.who, o.want.ctx)
	b.Holds.need(o.id)
	b.Charges.need(o.id)
	if i := o.want.ctx.idempotency; i != nil {
		b.Keys.need(KeyID{o.who, i.Key})
	}
}

func (o *extendOp) apply(b *Batch) error {
	o.remade = false
	a, c, total := b.Accounts.get(o.who), o.want.ctx, o.want.amount
	if a == nil {
		return &InsufficientError{Required: total}
	}
	if b.Charges.get(o.id) != nil {
		return ErrSwept
	}
	h, lacks := b.Holds.get(o.id), total
	if h != nil {
		lacks = max(0, total-h.Amount)
	}
	room := b.room(a, c.budgets)
	switch {
	case lacks == 0 && h != nil: // repeated, or a smaller total than stands
		b.adopt(h)
	case a.Status != StatusActive:
		return fmt.Errorf("%w: %s", ErrFrozen, a.Status)
	case room < lacks:
		return &InsufficientError{Available: room, Required: lacks}
	case h != nil:
		b.moveHeld(a, c, lacks)
		h.Amount = total
		b.Holds.touch(h.ID)
		b.adopt(h)
	default:
		b.take(a, o.id, &o.want, o.usage, o.source)
		o.remade = true
	}
	o.available = b.room(a, c.budgets)
	return nil
}

// countRequests checks all limits and, only when all have room, counts one
// request on each.
func (b *Batch) countRequests(account l402.TokenID, limits []l402.RateLimit) error {
	var wait time.Duration
	for i := range limits {
		row := currentWindow(b.Windows.get(limits[i].ID), b.Now)
		wait = max(wait, row.wait(limits[i].PerMinute, b.Now))
	}
	if wait > 0 {
		return &RateLimitedError{RetryAfter: wait}
	}
	for i := range limits {
		row := currentWindow(b.Windows.get(limits[i].ID), b.Now)
		row.ID, row.Account = limits[i].ID, account
		row.Count++
		b.Windows.put(row.ID, row)
	}
	return nil
}
