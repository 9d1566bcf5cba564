package gateway

import (
	"net/http"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// order is what one request asks for, and the most that the request can cost.
type order struct {
	model       *model
	asked       string        // the model's name as the client wrote it
	format      format.Format // the API whose path was called
	path        string        // the path of the request
	body        []byte        // the body as the client sent it
	req         format.Request
	limits      format.Limits // of the model, with what the gateway learned about its templates
	whole       format.Bound  // the bound before the cap was lowered to fit the context
	bound       format.Bound
	epoch       pricing.Epoch
	quoteExpiry time.Time
	required    l402.Msat          // the cost of bound at the epoch's rates, or of next's, if that is more
	lock        *metering.RateLock // the quote that the caller's payment bought; nil: none, or not a cheaper one
	tokenized   bool               // a backend's tokenizer was asked
	part        *metering.Hold     // the hold for asking a tokenizer, until the whole bound is held; nil: none
	next        *order             // the order for the second model that the client allows; nil: none
	own         l402.Msat          // if next is set: the cost of bound for this model alone
	tells       bool               // the answer names the model that served
	instead     string             // the model that this order's model serves in place of; "": none
	why         error              // why the model instead did not serve
}

// price computes required, and the amount of the lock, from the bound.
func (o *order) price() (err error) {
	if o.required, err = o.cost(o.epoch.Rates, o.bound); err == nil && o.lock != nil {
		o.lock.Amount, err = o.cost(o.lock.Rates, o.bound)
	}
	if err != nil {
		return problem.Invalid("the request's cost cannot be bounded; lower max_tokens or n, or send less at once")
	}
	if o.next != nil { // either model may serve
		o.own = o.required
		o.required = max(o.required, o.next.required)
	}
	return nil
}

// cost returns the most that a request within b costs. GPU time has no bound beforehand, so cost
// counts the first slice of it.
func (o *order) cost(r pricing.Rates, b format.Bound) (l402.Msat, error) {
	units := b.Units()
	units[pricing.GPUMicros] = o.model.gpuSlice(r)
	return r.Bound(units)
}

// least returns the lowest amount that the request may be held at, in msat.
func (o *order) least() l402.Msat {
	if o.lock != nil {
		return min(o.required, o.lock.Amount)
	}
	return o.required
}

// ceiling returns the most that a request under this hold is charged. The hold may be larger,
// because the part that was held for counting may exceed the bound that the count allowed.
func (o *order) ceiling(hold *metering.Hold) l402.Msat { return min(hold.Amount(), o.required) }

// exceeds reports whether the request may cost more than most, the client's own limit in msat.
// A most below 0 means that the client set no limit.
func (o *order) exceeds(most l402.Msat) bool { return most >= 0 && o.least() > most }

// truncate lowers the completion cap to what available covers, and reports whether at least the
// model's minimum remains.
func (o *order) truncate(available l402.Msat) bool {
	if o.next != nil && !o.next.truncate(available) {
		o.next = nil // the balance covers only the first model
	}
	cost := func(limit int64) l402.Msat {
		cost, err := o.cost(o.epoch.Rates, o.bound.WithCap(limit))
		if err != nil {
			return l402.MaxMsat
		}
		return cost
	}
	low, high := max(o.model.Limits.MinCompletion, 1), o.bound.Cap
	if low > high || cost(low) > available {
		return false
	}
	for low < high { // finds the largest cap that is covered, because the cost grows with the cap
		middle := low + (high-low+1)/2
		if cost(middle) <= available {
			low = middle
		} else {
			high = middle - 1
		}
	}
	o.bound = o.bound.WithCap(low)
	return o.price() == nil && o.required <= available
}

// place takes a place in the pool for a request of an account that pays at most limit, in msat.
func (o *order) place(account l402.TokenID, limit l402.Msat) (*gpu.Ticket, error) {
	return o.model.pool.AdmitBid(gpu.Key(account), o.bid(limit))
}

// bid returns what the pool needs to know of a request that pays at most limit, in msat.
func (o *order) bid(limit l402.Msat) gpu.Bid {
	if o.next != nil { // the part above own is for the second model
		limit = min(limit, o.own)
	}
	return gpu.Bid{AtMost: o.bound.Units(), Limit: limit}
}

// releasePart releases the hold for counting, if it did not become the hold of the request.
func (o *order) releasePart(x *exchange) {
	if o.part == nil {
		return
	}
	ctx, cancel := x.detached(x.g.cfg.SettleWait)
	defer cancel()
	if err := o.part.Release(ctx, metering.OutcomeNotTaken); err != nil {
		x.g.log.Warn("hold for counting is not released yet", "error", err) // the ledger continues
	}
	o.part = nil
}

// aboveMaxCost returns the problem for a request that may cost more than most, the client's own
// limit. The problem has the quote, so that the client can decide.
func (o *order) aboveMaxCost(most, required l402.Msat) error {
	p := problem.New(http.StatusPreconditionFailed, problem.CostAboveMaximum,
		"this request may cost more than "+headerMaxCost+" allows; nothing was charged")
	p.Required, p.Maximum = &required, &most
	o.describe(p)
	return p
}

// describe adds the price in force, and until when it is quoted, to a problem.
func (o *order) describe(p *problem.Problem) {
	e, expiry := &o.epoch, o.quoteExpiry
	p.Model, p.Rates, p.Epoch, p.QuoteExpiry = o.asked, &e.Rates, &e.ID, &expiry
	p.Multiplier, p.Signal, p.BoundBy = &e.Multiplier, &e.Signal, e.BoundBy
}

// defaultGPUSlice is how much GPU time a request holds at once, because GPU time has no bound
// beforehand. When half of a slice is left, the request asks for the next slice; see watchGPU.
const defaultGPUSlice = 10 * time.Second

// gpuSlice returns how much GPU time is held at once, in µs; 0 where GPU time costs nothing.
func (m *model) gpuSlice(r pricing.Rates) int64 {
	switch {
	case r[pricing.GPUMicros] == 0:
		return 0
	case m.GPUSlice > 0:
		return m.GPUSlice.Microseconds()
	}
	return defaultGPUSlice.Microseconds()
}
