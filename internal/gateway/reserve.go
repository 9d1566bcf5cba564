package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"time"

	"sluice/backends/gpu"
	"sluice/l402"
	"sluice/metering"
	"sluice/metering/chat"
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
	if prefs.maxCost >= 0 && hold.Amount() > prefs.maxCost { // the lock, used up meanwhile, was not
		c.release(metering.OutcomeNotTaken)
		return g.aboveMaxCost(o, prefs, hold.Amount())
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
	return g.cfg.Fleet.Pool(o.model.Name).AdmitQuote(gpu.Key(x.token.ID), o.quote(limit))
}

// quote is what the pool needs to know of a request that pays at most limit.
func (o *order) quote(limit l402.Msat) gpu.Quote {
	return gpu.Quote{Input: o.bound.Input, Output: o.bound.Output, Limit: int64(limit)}
}

// reserve holds the bound on the account and the token's budgets. Where the
// balance does not cover it, the backend's tokenizer may find a tighter bound,
// and the client may have allowed a lower cap; else it is a 402. Before, it looks
// for room in the pool, and keeps no place: until a tokenizer has answered or an
// invoice is made, empty accounts would keep those of callers who pay.
func (g *Gateway) reserve(x *exchange, o *order, prefs preferences) (*metering.Hold, error) {
	room, err := g.place(x, o, o.least())
	if err != nil {
		return nil, err
	}
	room.Cancel()
	hold, err := g.hold(x, o, prefs)
	var short *metering.InsufficientError
	if errors.As(err, &short) && g.tighten(x, o) {
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

// hold asks the ledger once.
func (g *Gateway) hold(x *exchange, o *order, prefs preferences) (*metering.Hold, error) {
	r := metering.Reservation{
		ID: metering.NewHoldID(), Account: x.token.ID, Budgets: x.token.Budgets, Chain: x.token.Chain, RateLimits: x.token.RateLimits,
		Amount: o.required, Service: o.model.service.Name, Model: o.model.Name, Epoch: o.epoch.ID, Rates: o.epoch.Rates, Prompt: o.bound.Input,
		Idempotency: idempotency(x, o, prefs.idempotency), Lock: o.lock,
	}
	if !x.credited && x.token.Deposit > 0 {
		d := x.deposit()
		r.Deposit = &d
	}
	hold, err := g.ledger.Reserve(x.r.Context(), r)
	if err == nil {
		x.credited = true
	}
	return hold, err
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

// tokenizeTimeout bounds asking a backend to count a prompt: it is answered in
// milliseconds or not worth waiting for.
const tokenizeTimeout = 2 * time.Second

// maxTokenizeAnswer bounds that answer in bytes; it may list every token.
const maxTokenizeAnswer = 16 << 20

// tighten asks a tokenizer for the prompt's real length, once per request, and
// reports whether the bound became lower.
func (g *Gateway) tighten(x *exchange, o *order) bool {
	if o.tokenized {
		return false
	}
	o.tokenized = true
	for _, b := range g.cfg.Fleet.Pool(o.model.Name).Backends() {
		if g.profile(b).Counting == chat.CountNone {
			continue
		}
		ctx, cancel := context.WithTimeout(x.r.Context(), tokenizeTimeout)
		n, err := countTokens(ctx, b, o.req.TokenizePrompt(b.Upstream(o.model.Name)))
		cancel()
		if err != nil {
			g.log.Debug("tokenizer", "backend", b.Name(), "error", err)
			continue
		}
		before := o.required
		o.bound = o.bound.WithInput(n)
		return o.price() == nil && o.required < before
	}
	return false
}

// errNotTokenized reports a prompt that no tokenizer can be asked about.
var errNotTokenized = errors.New("the prompt is more than text")

// countTokens asks one backend's /tokenize.
func countTokens(ctx context.Context, b *gpu.Backend, question []byte) (int64, error) {
	if question == nil {
		return 0, errNotTokenized
	}
	resp, err := b.Do(ctx, http.MethodPost, "/tokenize", question, http.Header{"Content-Type": {"application/json"}})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenizeAnswer))
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, errors.New("tokenizer answered " + resp.Status)
	}
	return chat.ParseTokenCount(answer)
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
		return draining()
	}
	return err
}

// draining refuses what comes while the gateway shuts down.
func draining() error {
	p := retryable(newProblem(http.StatusServiceUnavailable, typeBackendUnavailable, "this gateway is shutting down; repeat the request"), time.Second)
	p.closeClient = true
	return p
}
