package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

const (
	// tokenizeTimeout bounds asking a backend to count a prompt: it is answered in
	// milliseconds or not worth waiting for.
	tokenizeTimeout = 2 * time.Second
	// maxTokenizeAnswer bounds that answer in bytes; it may list every token.
	maxTokenizeAnswer = 16 << 20
	// missingFor is how long a backend is not asked again on a path that it does
	// not have.
	missingFor = 10 * time.Minute
	// countShare is the part of a request's bound that is held before a backend is
	// asked to count its prompt.
	countShare = 8
)

// errNotCounted reports a prompt that no tokenizer can count.
var errNotCounted = errors.New("the backend cannot count this")

// tighten asks a backend's tokenizer for the prompt's real length, once per
// request, and reports whether the bound became lower. Counting is work for the
// backend, so it is done like any other: with money held, an eighth of the bound by
// bytes, and in a slot. An account whose available balance does not cover the whole
// gets a slot that is free and that nobody waits for, or none: a place in the queue is
// for those who pay. It gets the slot before the hold, so that the number of slots
// bounds the holds of such accounts. The hold stays with the order; see hold.
func (g *Gateway) tighten(x *exchange, o *order, prefs preferences, available l402.Msat) bool {
	if o.tokenized || available < o.countingPart() || !g.countable(o) {
		return false
	}
	o.tokenized = true
	count := g.countQueued
	if available < o.required {
		count = g.countNow
	}
	q, n, err := count(x, o, prefs)
	if err != nil { // the hold of the whole fails for the same reason, and says so
		g.log.Debug("tokenizer", "model", o.model.Name, "error", err)
		return false
	}
	before := o.required
	o.whole = o.whole.WithCount(q, n)
	o.bound = o.req.Fit(o.whole, o.limits)
	return o.price() == nil && o.required < before
}

// countingPart is what is held before a backend is asked to count.
func (o *order) countingPart() l402.Msat { return (o.required + countShare - 1) / countShare }

// countQueued holds the part and counts in a slot, for which it may wait.
func (g *Gateway) countQueued(x *exchange, o *order, prefs preferences) (q format.Question, n int64, err error) {
	ticket, err := g.place(x, o, o.least())
	if err != nil {
		return q, 0, err
	}
	defer ticket.Cancel()
	if err := g.holdPart(x, o, prefs); err != nil {
		return q, 0, err
	}
	lease, err := ticket.Wait(x.r.Context())
	if err != nil {
		return q, 0, err
	}
	return g.countInSlot(x, o, lease)
}

// countNow takes a slot that is free, holds the part and counts.
func (g *Gateway) countNow(x *exchange, o *order, prefs preferences) (q format.Question, n int64, err error) {
	ticket, err := g.place(x, o, o.least())
	if err != nil {
		return q, 0, err
	}
	defer ticket.Cancel()
	lease, err := ticket.Now()
	if err != nil {
		return q, 0, err
	}
	if err := g.holdPart(x, o, prefs); err != nil {
		lease.Done(gpu.Result{Err: context.Canceled, Refused: true})
		return q, 0, err
	}
	return g.countInSlot(x, o, lease)
}

// holdPart holds what counting is worth. It stays with the order.
func (g *Gateway) holdPart(x *exchange, o *order, prefs preferences) (err error) {
	r := g.reservation(x, o, prefs)
	r.Amount = o.countingPart()
	if r.Lock = nil; o.lock != nil { // the hold under the lock is made anew, and counts then
		r.RateLimits, r.Idempotency = nil, nil
	}
	o.part, err = g.take(x, r)
	return err
}

// countable says whether some backend of the model can count this prompt.
func (g *Gateway) countable(o *order) bool {
	for _, b := range o.model.pool.Backends() {
		if g.profile(b).Counting != format.CountNone {
			return o.req.Countable()
		}
	}
	return false
}

// questions lists the calls that may count the prompt at a backend.
func (g *Gateway) questions(b *gpu.Backend, o *order) []format.Question {
	list := o.req.CountPrompt(g.profile(b), b.Upstream(o.model.Name), o.limits)
	for i := range list {
		list[i].Header = o.model.headers
	}
	return list
}

// countInSlot counts the prompt in a slot of a backend, and gives the slot back.
func (g *Gateway) countInSlot(x *exchange, o *order, lease *gpu.Lease) (format.Question, int64, error) {
	ctx, cancel := context.WithTimeout(x.r.Context(), tokenizeTimeout)
	defer cancel()
	q, n, err := g.count(ctx, lease.Backend(), g.questions(lease.Backend(), o))
	failed := err
	if !errors.Is(err, gpu.ErrNotTaken) {
		failed = context.Canceled // a tokenizer that fails says nothing about generation
	}
	lease.Done(gpu.Result{Err: failed, Refused: true})
	return q, n, err
}

// count asks the questions in turn until one is answered, and returns that one.
func (g *Gateway) count(ctx context.Context, b *gpu.Backend, questions []format.Question) (format.Question, int64, error) {
	err := errNotCounted
	for _, q := range questions {
		if g.engine(b).isMissing(q.Path, g.now()) {
			continue
		}
		var n int64
		if n, err = g.ask(ctx, b, q); err == nil {
			return q, n, nil
		}
	}
	return format.Question{}, 0, err
}

// ask puts one question, and the one that its answer leads to.
func (g *Gateway) ask(ctx context.Context, b *gpu.Backend, q format.Question) (int64, error) {
	resp, err := b.Do(ctx, http.MethodPost, b.Path(q.Path, ""), q.Body, own(http.Header{"Content-Type": {"application/json"}}, q.Header))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenizeAnswer))
	switch {
	case err != nil:
		return 0, err
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusMethodNotAllowed, resp.StatusCode == http.StatusNotImplemented:
		g.engine(b).lacks(q.Path, g.now().Add(missingFor))
		return 0, errNotCounted
	case resp.StatusCode != http.StatusOK:
		return 0, errors.New("tokenizer answered " + resp.Status)
	}
	n, next, err := q.Answer(answer)
	if err != nil || next == nil {
		return n, err
	}
	return g.ask(ctx, b, *next) // its answer holds the count
}

// take makes a hold.
func (g *Gateway) take(x *exchange, r metering.Reservation) (*metering.Hold, error) {
	hold, err := g.ledger.Reserve(x.r.Context(), r)
	if err == nil {
		x.credited = true
	}
	return hold, err
}

// takeRest raises the part that was held for counting to the whole. Under a rate
// lock the part is given back instead, because it was held at other rates.
func (g *Gateway) takeRest(x *exchange, o *order, prefs preferences) (*metering.Hold, error) {
	if o.lock != nil {
		o.releasePart(x)
		return g.take(x, g.reservation(x, o, prefs))
	}
	err := o.part.Extend(x.r.Context(), max(o.required, o.part.Amount()))
	var short *metering.InsufficientError
	if errors.As(err, &short) { // what is held already counts for this request
		return nil, &metering.InsufficientError{Available: short.Available + o.part.Amount(), Required: o.required, Credited: short.Credited}
	}
	if err != nil {
		return nil, err
	}
	hold := o.part
	o.part = nil
	return hold, nil
}

// releasePart gives back what was held for counting, where nothing came of it.
func (o *order) releasePart(x *exchange) {
	if o.part == nil {
		return
	}
	ctx, cancel := x.detached(x.g.cfg.SettleWait)
	defer cancel()
	if err := o.part.Release(ctx, metering.OutcomeNotTaken); err != nil {
		x.g.log.Warn("hold for counting is not released yet", "error", err) // the ledger goes on with it
	}
	o.part = nil
}

// ceiling is the most that a request under this hold is charged: the part that was
// held for counting may be more than the whole turned out to be.
func (o *order) ceiling(hold *metering.Hold) l402.Msat { return min(hold.Amount(), o.required) }
