package metering

import (
	"errors"
	"fmt"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// settleOp ends a hold. The owner settles its hold, or a sweep charges the hold when the owner's lease ran out.
// settleOp has everything that a charge depends on, so that it can charge a hold that the store has lost.
type settleOp struct {
	id    HoldID
	who   l402.TokenID
	ctx   *holdContext
	held  l402.Msat // what the owner knows to be held; used only when the store lost the hold
	cost  l402.Msat
	s     Settlement
	sweep bool
	owner OwnerID // in a sweep: the process that was taken for dead
	again bool    // an earlier attempt may have been committed, so its results are kept
	// maybe is a lock under which the hold may have been made; zero: none. It is set when the caller gave up before it
	// learned the terms of the hold. apply then reads the lock from the hold's row or the charge's row. ctx is this
	// operation's own copy.
	maybe l402.PaymentHash

	entry    Entry     // result: the charge as its owner sees it
	swept    bool      // result of a sweep: this sweep charged the hold
	moved    l402.Msat // result: newly charged, msat; negative when a provisional charge was lowered
	unbilled l402.Msat // result: newly recorded as unbilled, msat
}

func (o *settleOp) account() l402.TokenID { return o.who }

func (o *settleOp) need(b *Batch, again bool) {
	o.again = again
	b.Likely = true
	b.needAccount(o.who, o.ctx)
	if o.maybe != (l402.PaymentHash{}) {
		b.Deposits.need(o.maybe)
	}
	if o.sweep { // the last heartbeat, which does not change the account's version, says what the hold costs
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
	b.Durable = true // durable even if apply has nothing left to do: the acknowledgement depends on this commit
	switch {
	case c != nil:
		o.replace(b, a, c)
	case h != nil:
		if h.Account != a.ID {
			return fmt.Errorf("settle %s: %w: hold of another account", o.id, ErrArgument)
		}
		if o.sweep {
			if h.Owner != o.owner {
				return nil // a living owner has taken the hold over meanwhile
			}
			if !o.readProgress(h) {
				return nil
			}
		}
		held := h.Amount
		b.moveHeld(a, o.ctx, -held)
		b.Holds.remove(o.id)
		o.charge(b, a, held, min(o.cost, held, o.keyRoom(b)))
	case !o.sweep: // the store lost the hold in a crash
		o.charge(b, a, o.held, min(o.cost, o.held, b.room(a, o.ctx.budgets), o.keyRoom(b)))
	}
	o.entry.Available = b.room(a, o.ctx.budgets)
	return nil
}

// lockOf returns the lock under which a hold was made, from the charge's row, or else from the hold's row.
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

// readProgress takes the usage from the hold's row as loaded now, which may be newer than the row that the sweep found
// when it looked for candidates. It returns false when only a later version can read the usage. The hold is then left
// to that version.
func (o *settleOp) readProgress(h *HoldRow) bool {
	u, err := readUsage(h.Usage)
	if errors.Is(err, errNewer) {
		return false
	}
	if err != nil { // nobody can tell what was consumed, so the client pays nothing for the ledger's damage
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

// charge spends the amount that was decided, and records the charge. A settlement whose cost is 0 leaves no row,
// because new tokens that are answered with errors must not fill the table. A sweep always leaves a row, which the
// owner may replace.
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

// keyRoom returns the most that the idempotency key allows to charge: 0 when another request with the same key was
// charged, otherwise MaxMsat. Another request is charged with the same key when the database lost the first hold and
// the client repeated its request.
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

// replace answers a settlement from the recorded charge. If that charge is provisional, its owner first replaces it,
// once, and only within the time for late settlements.
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
	row.Checksum = row.checksum() // for a charge that is replaced before it was first written
	b.Charges.put(o.id, row)
	o.entry, o.moved, o.unbilled = entryOf(&row, o.s.Usage, o.ctx.rates), charged-old, row.Unbilled
}

func (o *settleOp) row(b *Batch, held, charged l402.Msat) ChargeRow {
	return ChargeRow{Hold: o.id, Account: o.who, At: b.Now, Service: o.ctx.service, Model: o.ctx.model,
		Chain: o.ctx.chain, Source: o.s.Source, Outcome: o.s.Outcome, Backend: o.s.Backend,
		Usage: appendUsage(make([]byte, 0, 16), o.s.Usage), Clamped: o.s.ClampedUsage, Delivered: o.s.DeliveredBytes,
		Amount: held, Charged: charged, Unbilled: min(o.cost-charged, maxUnbilled), Epoch: o.ctx.epoch,
		Rates: appendRates(make([]byte, 0, 24), o.ctx.rates), Provisional: o.sweep, Lock: o.ctx.lock}
}

// endKey remembers the idempotency key as charged. If nothing was charged, it forgets the key, so that the client may
// repeat the request.
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

// maxUnbilled bounds the unbilled amount of one charge, in msat: 10 bitcoin. A larger amount means that the backend
// reported a false usage. The bound also keeps sums over many rows within an int64.
const maxUnbilled l402.Msat = 1_000_000_000_000

// costOf returns the cost of a usage in msat. When the usage has negative counts, or counts that are too large, costOf
// cuts the usage to what can be computed, and clamped is true.
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

// Entry returns the charge as its owner sees it. Stored usage or rates that cannot be read are shown as zero. An audit
// reports them.
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
