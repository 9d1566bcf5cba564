package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// The bound divided by countShare is held before a backend is asked to count a prompt.
const countShare = 8

// reserve holds the bound on the account and on the token's budgets. Where the balance does not
// cover the bound, the backend's tokenizer may find a tighter bound. If that does not suffice,
// the client may have allowed a lower cap. Otherwise short says what is available. Before the
// hold, reserve checks that the pool has room, but takes no place, because unfunded callers
// would then occupy the places of paying callers until their invoices are made.
func (g *Gateway) reserve(x *exchange, o *order) (hold *metering.Hold, short *metering.InsufficientError, err error) {
	if err := g.withinMaxCost(x, o); err != nil {
		return nil, nil, err
	}
	if err := o.model.pool.Look(gpu.Key(x.token.ID), o.bid(o.least())); err != nil {
		return nil, nil, err
	}
	hold, err = g.hold(x, o)
	if errors.As(err, &short) && g.tighten(x, o, short.Available) {
		hold, err = g.hold(x, o)
	}
	if errors.As(err, &short) && x.prefs.truncate && o.truncate(short.Available) {
		hold, err = g.hold(x, o)
	}
	if errors.As(err, &short) {
		return nil, short, nil
	}
	return hold, nil, err
}

// withinMaxCost refuses a request whose bound is above the client's own limit, unless a count of
// its tokens lowers the bound to the limit.
func (g *Gateway) withinMaxCost(x *exchange, o *order) error {
	if !o.exceeds(x.prefs.maxCost) {
		return nil
	}
	available, err := x.available()
	if err == nil && g.tighten(x, o, available) && !o.exceeds(x.prefs.maxCost) {
		return nil
	}
	return o.aboveMaxCost(x.prefs.maxCost, o.least())
}

// hold asks the ledger once to hold the bound. A part that was held for counting is raised to
// the bound.
func (g *Gateway) hold(x *exchange, o *order) (*metering.Hold, error) {
	if o.part != nil {
		return g.takeRest(x, o)
	}
	return g.take(x, g.reservation(x, o))
}

// reservation returns what the ledger is asked to hold.
func (g *Gateway) reservation(x *exchange, o *order) metering.Reservation {
	r := metering.Reservation{
		Account: x.token.ID, Budgets: x.token.Budgets, Chain: x.token.Chain, RateLimits: x.token.RateLimits,
		Amount: o.required, Service: o.model.service.Name, Model: o.model.Name, Epoch: o.epoch.ID, Rates: o.epoch.Rates, Prompt: o.bound.Input,
		Idempotency: idempotency(x, o), Lock: o.lock,
	}
	if !x.credited && x.token.Deposit > 0 {
		d := x.deposit()
		r.Deposit = &d
	}
	return r
}

// idempotency returns the key and the body hash by which the ledger knows a repeated request.
// The key is made of the chain that pays and of the client's key. nil: the client sent no key.
func idempotency(x *exchange, o *order) *metering.Idempotency {
	if x.prefs.idempotency == "" {
		return nil
	}
	h := sha256.New()
	h.Write(x.token.ID[:])
	h.Write(x.token.Chain[:])
	io.WriteString(h, x.prefs.idempotency)
	id := new(metering.Idempotency)
	h.Sum(id.Key[:0])
	h.Reset()
	io.WriteString(h, o.path+"\x00")
	h.Write(o.body)
	h.Sum(id.Body[:0])
	return id
}

// take makes a hold, and tells the observer if the hold has credited a payment.
func (g *Gateway) take(x *exchange, r metering.Reservation) (*metering.Hold, error) {
	hold, err := g.ledger.Reserve(x.r.Context(), r)
	if err == nil {
		x.credited = true
	}
	if err == nil && r.Deposit != nil {
		x.tellPaid(nil)
	}
	return hold, err
}

// takeRest raises the part that was held for counting to the bound. Under a rate lock it
// releases the part and makes a new hold, because the part was held at other rates.
func (g *Gateway) takeRest(x *exchange, o *order) (*metering.Hold, error) {
	if o.lock != nil {
		o.releasePart(x)
		return g.take(x, g.reservation(x, o))
	}
	err := o.part.Extend(x.r.Context(), max(o.required, o.part.Amount()))
	var short *metering.InsufficientError
	if errors.As(err, &short) { // the held part already belongs to this request
		return nil, &metering.InsufficientError{Available: short.Available + o.part.Amount(), Required: o.required, Credited: short.Credited}
	}
	if err != nil {
		return nil, err
	}
	hold := o.part
	o.part = nil
	return hold, nil
}

// tighten asks a backend's tokenizer, at most once per request, for the length of the prompt,
// and reports whether the bound became lower. Counting is work for the backend, so tighten
// holds an eighth of the bound and uses a slot. Where the available balance does not cover the
// bound, tighten takes only a slot that is free and that nobody waits for, because places in
// the queue are for those who can pay. Then it takes the slot before the hold, so that the
// number of slots limits the holds of such accounts. The held part remains with the order;
// see hold.
func (g *Gateway) tighten(x *exchange, o *order, available l402.Msat) bool {
	if o.tokenized || available < o.countingPart() || !g.countable(o) {
		return false
	}
	o.tokenized = true
	count := g.countQueued
	if available < o.required {
		count = g.countNow
	}
	q, n, err := count(x, o)
	if err != nil { // the hold of the bound fails for the same reason
		g.log.Debug("tokenizer", "model", o.model.Name, "error", err)
		return false
	}
	before := o.required
	o.whole = o.whole.WithCount(q, n)
	o.bound = o.req.Fit(o.whole, o.limits)
	return o.price() == nil && o.required < before
}

// countingPart returns the part of the bound that is held before a backend is asked to count.
func (o *order) countingPart() l402.Msat { return (o.required + countShare - 1) / countShare }

// countQueued holds the part, waits in the queue for a slot, and counts.
func (g *Gateway) countQueued(x *exchange, o *order) (q format.Question, n int64, err error) {
	ticket, err := o.place(x.token.ID, o.least())
	if err != nil {
		return q, 0, err
	}
	defer ticket.Cancel()
	if err := g.holdPart(x, o); err != nil {
		return q, 0, err
	}
	lease, err := ticket.Wait(x.r.Context())
	if err != nil {
		return q, 0, err
	}
	return g.countInSlot(x, o, lease)
}

// countNow takes a free slot, holds the part and counts. It fails if no slot is free.
func (g *Gateway) countNow(x *exchange, o *order) (q format.Question, n int64, err error) {
	ticket, err := o.place(x.token.ID, o.least())
	if err != nil {
		return q, 0, err
	}
	defer ticket.Cancel()
	lease, err := ticket.Now()
	if err != nil {
		return q, 0, err
	}
	if err := g.holdPart(x, o); err != nil {
		lease.Done(gpu.Result{Err: context.Canceled, Refused: true})
		return q, 0, err
	}
	return g.countInSlot(x, o, lease)
}

// holdPart holds the part of the bound for counting. The hold becomes o.part.
func (g *Gateway) holdPart(x *exchange, o *order) (err error) {
	r := g.reservation(x, o)
	r.Amount = o.countingPart()
	if r.Lock = nil; o.lock != nil { // the hold under the lock counts against the limits
		r.RateLimits, r.Idempotency = nil, nil
	}
	o.part, err = g.take(x, r)
	return err
}
