package metering

import (
	"errors"
	"fmt"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// settleOp ends a hold: by its owner, or by a sweep when the owner's lease ran
// out. It carries everything a charge depends on, so that it can charge a hold
// that the store has lost.
type settleOp struct {
	id    HoldID
	who   l402.TokenID
	ctx   *holdContext
	held  l402.Msat // as the owner knows it; counts only when the hold was lost
	cost  l402.Msat
	s     Settlement
	sweep bool
	owner OwnerID // of a sweep: the process that was taken for dead
	again bool    // an earlier attempt may have been committed: what it found out counts
	// maybe is a lock under which the hold may have been made: the operation that
	// releases it never heard. The rows tell, and ctx is this operation's own.
	maybe l402.PaymentHash

	entry    Entry     // result
	swept    bool      // result of a sweep: this one did it
	moved    l402.Msat // result: newly charged; negative when a provisional charge was lowered
	unbilled l402.Msat // result: newly recorded as unbilled
}

func (o *settleOp) account() l402.TokenID { return o.who }

func (o *settleOp) need(b *Batch, again bool) {
	o.again = again
	b.Likely = true
	b.needAccount(o.who, o.ctx)
	if o.maybe != (l402.PaymentHash{}) {
		b.Deposits.need(o.maybe)
	}
	if o.sweep { // its heartbeats, which leave the account alone, say what it costs
		b.Holds.needLatest(o.id)
	} else {
		b.Holds.need(o.id)
	}
	b.Charges.need(o.id)
	if o.ctx.idempotency != nil {
		b.Keys.need(KeyID{o.who, o.ctx.idempotency.Key})
	}
}

func (o *settleOp) apply(b *Batch) error {
	if !o.again {
		o.swept, o.moved, o.unbilled = false, 0, 0
	}
	a := b.Accounts.get(o.who)
	if a == nil {
		return fmt.Errorf("settle %s: %w: unknown account", o.id, ErrArgument)
	}
	h, c := b.Holds.get(o.id), b.Charges.get(o.id)
	if o.maybe != (l402.PaymentHash{}) {
		o.ctx.lock = lockOf(h, c)
	}
	b.Durable = true // also when it finds its work done: the acknowledgement depends on that commit
	switch {
	case c != nil:
		o.replace(b, a, c)
	case h != nil:
		if h.Account != a.ID {
			return fmt.Errorf("settle %s: %w: hold of another account", o.id, ErrArgument)
		}
		if o.sweep {
			if h.Owner != o.owner {
				return nil // taken over by a living owner meanwhile
			}
			if !o.readProgress(h) {
				return nil
			}
		}
		held := h.Amount
		b.moveHeld(a, o.ctx, -held)
		b.Holds.remove(o.id)
		o.charge(b, a, held, min(o.cost, held, o.keyRoom(b)))
	case !o.sweep: // lost with the store's last moments
		o.charge(b, a, o.held, min(o.cost, o.held, b.room(a, o.ctx.budgets), o.keyRoom(b)))
	}
	o.entry.Available = b.room(a, o.ctx.budgets)
	return nil
}

// lockOf is the lock under which a hold was made, as its row or that of its
// charge tells.
func lockOf(h *HoldRow, c *ChargeRow) l402.PaymentHash {
	if c != nil {
		return c.Lock
	}
	if h != nil {
		if made, err := readContext(h.Context); err == nil {
			return made.lock
		}
	}
	return l402.PaymentHash{}
}

// readProgress takes the usage from the row as it stands under the lock, which
// may be newer than what the sweep saw when it looked for candidates. It reports
// false when only a later version can read that: the hold is left to it.
func (o *settleOp) readProgress(h *HoldRow) bool {
	u, err := readUsage(h.Usage)
	if errors.Is(err, errNewer) {
		return false
	}
	if err != nil { // nobody can tell what was consumed: the client is not charged for our damage
		u = pricing.Units{}
	}
	if o.ctx.prompt > 0 {
		u[pricing.InputTokens] = min(u[pricing.InputTokens], o.ctx.prompt)
		u = u.Clamped()
	}
	o.s = Settlement{Usage: u, Source: h.Source, Outcome: OutcomeSwept}
	o.cost, o.s.ClampedUsage = costOf(o.ctx.rates, &o.s.Usage)
	o.swept = true
	return true
}

// charge spends what was decided and records it. A charge of nothing that was
// owed nothing leaves no row: fresh tokens answered with errors must not fill
// the table. A sweep always leaves one, to be replaced.
func (o *settleOp) charge(b *Batch, a *AccountRow, held, charged l402.Msat) {
	row := o.row(b, held, charged)
	b.spend(a, o.ctx, o.id, charged)
	o.endKey(b, charged)
	o.entry, o.moved, o.unbilled = entryOf(&row, o.s.Usage, o.ctx.rates), charged, row.Unbilled
	if o.cost == 0 && !o.sweep {
		b.dropEmpty(a, o.ctx.budgets)
		return
	}
	row.Prev, a.Last = a.Last, o.id
	b.Accounts.touch(a.ID)
	if n := len(o.ctx.budgets); n > 0 {
		b.onBudgets(a, o.ctx.budgets, func(r *BudgetRow) {
			if r.ID == o.ctx.budgets[n-1].ID {
				row.ChainPrev, r.Last = r.Last, o.id
			}
		})
	}
	row.Checksum = row.checksum()
	b.Charges.put(o.id, row)
}

// keyRoom is the most that may be charged as far as the idempotency key is
// concerned: nothing when another request with the same key has been charged. That
// happens when the database lost the first hold and the client repeated its request.
func (o *settleOp) keyRoom(b *Batch) l402.Msat {
	if o.ctx.idempotency == nil {
		return l402.MaxMsat
	}
	k := b.Keys.get(KeyID{o.who, o.ctx.idempotency.Key})
	if k != nil && k.Charged && k.Hold != o.id && k.Expires > b.Now {
		return 0
	}
	return l402.MaxMsat
}

// replace answers from the charge on record; a provisional one is first
// replaced, once, by its owner.
func (o *settleOp) replace(b *Batch, a *AccountRow, c *ChargeRow) {
	late := time.Duration(b.Now-c.At) * time.Microsecond
	if o.sweep || !c.Provisional || late > b.rules.lateSettle {
		o.entry = c.Entry()
		return
	}
	old := c.Charged
	b.spend(a, o.ctx, o.id, -old)
	charged := min(o.cost, c.Amount, b.room(a, o.ctx.budgets), o.keyRoom(b))
	b.spend(a, o.ctx, o.id, charged)
	b.dropEmpty(a, o.ctx.budgets)
	o.endKey(b, charged)
	row := o.row(b, c.Amount, charged)
	row.Prev, row.ChainPrev = c.Prev, c.ChainPrev
	b.Charges.put(o.id, row)
	o.entry, o.moved, o.unbilled = entryOf(&row, o.s.Usage, o.ctx.rates), charged-old, row.Unbilled
}

func (o *settleOp) row(b *Batch, held, charged l402.Msat) ChargeRow {
	return ChargeRow{Hold: o.id, Account: o.who, At: b.Now, Service: o.ctx.service, Model: o.ctx.model,
		Chain: o.ctx.chain, Source: o.s.Source, Outcome: o.s.Outcome, Backend: o.s.Backend,
		Usage: appendUsage(nil, o.s.Usage), Clamped: o.s.ClampedUsage, Delivered: o.s.DeliveredBytes,
		Amount: held, Charged: charged, Unbilled: min(o.cost-charged, maxUnbilled), Epoch: o.ctx.epoch,
		Rates: appendRates(nil, o.ctx.rates), Provisional: o.sweep, Lock: o.ctx.lock}
}

// endKey remembers the idempotency key as charged, or forgets it when nothing
// was: then the request may run anew.
func (o *settleOp) endKey(b *Batch, charged l402.Msat) {
	if o.ctx.idempotency == nil {
		return
	}
	id := KeyID{o.who, o.ctx.idempotency.Key}
	k := b.Keys.get(id)
	switch {
	case k != nil && k.Hold != o.id && k.Expires > b.Now && (k.Charged || charged == 0): // another request has the key
	case charged > 0:
		b.Keys.put(id, KeyRow{KeyID: id, Body: o.ctx.idempotency.Body, Hold: o.id, Charged: true,
			Expires: b.until(IdempotencyTTL)})
	case k != nil:
		b.Keys.remove(id)
	}
}

// maxUnbilled bounds what is recorded as not billed, 10 bitcoin: more is a lie
// of the backend, and sums over many rows must fit an int64.
const maxUnbilled l402.Msat = 1_000_000_000_000

// costOf is the cost of a usage. A usage that has none (negative counts, or
// beyond all money) is cut to what can be reckoned, and reported as clamped.
func costOf(r pricing.Rates, u *pricing.Units) (cost l402.Msat, clamped bool) {
	cost, err := r.Cost(*u)
	if err == nil && *u == u.Clamped() {
		return cost, false
	}
	*u = u.Clamped()
	if cost, err = r.Cost(*u); err != nil {
		cost = l402.MaxMsat
	}
	return cost, true
}

// Entry is the charge as its owner sees it. Stored usage or rates that cannot
// be read show as zero; an audit reports them.
func (c *ChargeRow) Entry() Entry {
	u, _ := readUsage(c.Usage)
	r, _ := readRates(c.Rates)
	return entryOf(c, u, r)
}

func entryOf(c *ChargeRow, u pricing.Units, r pricing.Rates) Entry {
	return Entry{ID: c.Hold, At: time.UnixMicro(c.At).UTC(), Service: c.Service, Model: c.Model, Usage: u,
		Source: c.Source, Outcome: c.Outcome, Charged: c.Charged, Unbilled: c.Unbilled, Epoch: c.Epoch,
		Rates: r, Provisional: c.Provisional}
}
