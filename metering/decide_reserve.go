package metering

import (
	"fmt"
	"time"

	"sluice.example/sluice/l402"
)

// operation is one queued request to the ledger. need and apply may run several times, because each attempt to commit
// runs them again. Only the last attempt counts.
type operation interface {
	// account returns the account that the operation concerns; zero: the operation concerns no account.
	account() l402.TokenID
	// need names every row that apply may touch. again is set when an earlier attempt got no answer and may have been
	// committed.
	need(b *Batch, again bool)
	// apply decides over the loaded rows. An error refuses the operation. The ledger returns the error to the
	// operation's caller once the batch is committed.
	apply(b *Batch) error
}

// terms is the amount and the context that a hold is made with.
type terms struct {
	amount  l402.Msat
	ctx     *holdContext // read only
	context []byte       // ctx, encoded
}

// reserveOp makes a hold.
type reserveOp struct {
	r      *Reservation
	own    terms
	locked terms // the terms under r.Lock; empty without a lock
	fresh  bool  // the ledger made the id for this operation, so no row with it exists
	again  bool

	made      terms     // result: the terms that the hold was made with, perhaps by an earlier attempt
	available l402.Msat // result: what the account and its budgets have left after this hold
	credited  l402.Msat // result: what the deposit added, msat
	excess    l402.Msat // result: the amount that the deposit claims beyond the amount that arrived
	deposited bool      // result: the deposit is credited
	first     HoldID    // result with DuplicateCharged: the hold whose charge to show
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

// apply checks in this order: deposit, hold id, status, idempotency key, budgets' owners, lock, money, number of
// budgets, rate limits. A request that is refused for any reason does not count against a rate limit.
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

// found answers a reservation whose hold an earlier attempt made without getting an answer. It returns the terms that
// the hold was made with then.
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

// adopt makes this process the owner of a hold. Either this process made the hold under its earlier name, before others
// took it for dead, or it repeats the reservation of a process that died.
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
		// The client may repeat the request at once. So the key must be on the disk before the request continues,
		// because otherwise one key could be charged twice.
		b.Durable = true
		key := KeyID{a.ID, i.Key}
		// A hold that was lost and is made anew does not take the key back from another request that has the key now.
		// See keyRoom.
		if k := b.Keys.get(key); k == nil || k.Hold == id || k.Expires <= b.Now {
			b.Keys.put(key, KeyRow{KeyID: key, Body: i.Body, Hold: id, Expires: b.until(IdempotencyTTL)})
		}
	}
}

// noUsage is the encoding of a usage of nothing. It must never be written to.
var noUsage = []byte{positionalForm}

// duplicate refuses a reservation whose idempotency key another request is using, or was charged for.
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

// extendOp raises a hold to a total. If the store lost the hold in a crash, extendOp makes it anew.
type extendOp struct {
	id     HoldID
	who    l402.TokenID
	want   terms  // the terms of the hold, with the new total as the amount
	usage  []byte // running usage, for a hold that is made anew
	source Source

	available l402.Msat // result: what the account and its budgets have left
	remade    bool      // result: the store had lost the hold, and it was made anew
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
	case lacks == 0 && h != nil: // the extension is repeated, or the total is below what is held
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

// countRequests checks all limits. Only when every limit has room, it counts one request on each.
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
