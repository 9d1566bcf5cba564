package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// sell looks for room, holds the money, takes a place, waits for a slot and
// serves. The order matters: a full pool refuses before anything is written, and
// nobody has a place in the queue without money.
func (g *Gateway) sell(x *exchange, o *order, prefs preferences) error {
	hold, err := g.reserve(x, o, prefs)
	if err != nil {
		return err
	}
	c := newCall(x, o, hold)
	defer c.abandon()
	if most := o.ceiling(hold); prefs.maxCost >= 0 && most > prefs.maxCost { // the rate lock was used up meanwhile
		c.release(metering.OutcomeNotTaken)
		return g.aboveMaxCost(o, prefs, most)
	}
	ticket, err := g.place(x, o, hold.Amount())
	if err != nil { // there was room a moment ago
		c.release(metering.OutcomeNotTaken)
		return err
	}
	defer ticket.Cancel()
	if !g.open.add(c) {
		c.release(metering.OutcomeDrained)
		return draining()
	}
	defer g.open.remove(c)
	lease, err := ticket.Wait(c.ctx)
	if err != nil {
		c.release(queueOutcome(c, err))
		return c.queueError(err)
	}
	c.lease = lease
	return c.serve()
}

// place takes a place in the pool for a request that pays at most limit.
func (g *Gateway) place(x *exchange, o *order, limit l402.Msat) (*gpu.Ticket, error) {
	return o.model.pool.AdmitBid(gpu.Key(x.token.ID), o.bid(limit))
}

// bid is what the pool needs to know of a request that pays at most limit.
func (o *order) bid(limit l402.Msat) gpu.Bid {
	if o.next != nil { // the rest is for the other model
		limit = min(limit, o.own)
	}
	return gpu.Bid{AtMost: o.bound.Units(), Limit: limit}
}

// reserve holds the bound on the account and the token's budgets. Where the
// balance does not cover it, the backend's tokenizer may find a tighter bound,
// and the client may have allowed a lower cap; else it is a 402. Before, it looks
// for room in the pool, and takes no place: until an invoice is made, empty accounts
// would keep those of callers who pay.
func (g *Gateway) reserve(x *exchange, o *order, prefs preferences) (*metering.Hold, error) {
	if err := o.model.pool.Look(gpu.Key(x.token.ID), o.bid(o.least())); err != nil {
		return nil, err
	}
	hold, err := g.hold(x, o, prefs)
	var short *metering.InsufficientError
	if errors.As(err, &short) && g.tighten(x, o, prefs, short.Available) {
		hold, err = g.hold(x, o, prefs)
	}
	if errors.As(err, &short) && prefs.truncate && o.truncate(short.Available) {
		hold, err = g.hold(x, o, prefs)
	}
	if errors.As(err, &short) {
		return nil, g.challenge(x, g.insufficient(x, o, prefs, short))
	}
	return hold, err
}

// hold asks the ledger once. What was held for counting becomes part of it.
func (g *Gateway) hold(x *exchange, o *order, prefs preferences) (*metering.Hold, error) {
	if o.part != nil {
		return g.takeRest(x, o, prefs)
	}
	return g.take(x, g.reservation(x, o, prefs))
}

// reservation is what the ledger is asked for.
func (g *Gateway) reservation(x *exchange, o *order, prefs preferences) metering.Reservation {
	r := metering.Reservation{
		Account: x.token.ID, Budgets: x.token.Budgets, Chain: x.token.Chain, RateLimits: x.token.RateLimits,
		Amount: o.required, Service: o.model.service.Name, Model: o.model.Name, Epoch: o.epoch.ID, Rates: o.epoch.Rates, Prompt: o.bound.Input,
		Idempotency: idempotency(x, o, prefs.idempotency), Lock: o.lock,
	}
	if !x.credited && x.token.Deposit > 0 {
		d := x.deposit()
		r.Deposit = &d
	}
	return r
}

// idempotency names a request by the chain that pays and the client's key.
func idempotency(x *exchange, o *order, key string) *metering.Idempotency {
	if key == "" {
		return nil
	}
	h := sha256.New()
	h.Write(x.token.ID[:])
	h.Write(x.token.Chain[:])
	io.WriteString(h, key)
	id := new(metering.Idempotency)
	h.Sum(id.Key[:0])
	h.Reset()
	io.WriteString(h, o.path+"\x00")
	h.Write(o.body)
	h.Sum(id.Body[:0])
	return id
}

// queueOutcome says why a request left the queue without a slot.
func queueOutcome(c *call, err error) metering.Outcome {
	switch {
	case c.drained():
		return metering.OutcomeDrained
	case c.clientGone():
		return metering.OutcomeClientGone
	case errors.Is(err, gpu.ErrQueueTimeout):
		return metering.OutcomeQueueTimeout
	}
	return metering.OutcomeNotTaken
}

// queueError is what the client is told about it.
func (c *call) queueError(err error) error {
	if c.drained() {
		return c.goneAway()
	}
	return err
}

// goneAway refuses a request that was cut while the gateway shuts down, or because its
// backend is taken away.
func (c *call) goneAway() error {
	if context.Cause(c.ctx) == errBackendDrained {
		return retryable(newProblem(http.StatusServiceUnavailable, typeBackendUnavailable, "the backend is taken away; repeat the request"), time.Second)
	}
	return draining()
}

// draining refuses what comes while the gateway shuts down.
func draining() error {
	p := retryable(newProblem(http.StatusServiceUnavailable, typeBackendUnavailable, "this gateway is shutting down; repeat the request"), time.Second)
	p.closeClient = true
	return p
}
