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

// order is what one request asks for and what it costs at most.
type order struct {
	model       *model
	asked       string        // its name, as the client has it
	format      format.Format // whose path was called
	path        string        // of the request
	body        []byte        // as the client sent it
	req         format.Request
	limits      format.Limits // of the model, with what was learnt of its templates
	whole       format.Bound  // before the cap was made to fit
	bound       format.Bound
	epoch       pricing.Epoch
	quoteExpiry time.Time
	required    l402.Msat          // the cost of bound at the epoch's rates
	lock        *metering.RateLock // the quote that the caller's payment bought; nil: none, or none that is cheaper
	tokenized   bool               // a backend's tokenizer was asked
	part        *metering.Hold     // held for asking it, until the whole is held; nil: none
	next        *order             // for the model that may serve in place of this one; nil: none may
	own         l402.Msat          // with next: what required is without it
	tells       bool               // the answer says which model served
}

// price sets required, and what the lock has to cover, from the bound.
func (o *order) price() (err error) {
	if o.required, err = o.cost(o.epoch.Rates, o.bound); err == nil && o.lock != nil {
		o.lock.Amount, err = o.cost(o.lock.Rates, o.bound)
	}
	if err != nil {
		return problem.Invalid("the request's cost cannot be bounded; lower max_tokens or n, or send less at once")
	}
	if o.next != nil { // either may serve
		o.own = o.required
		o.required = max(o.required, o.next.required)
	}
	return nil
}

// cost is the most that a request within b costs, or of GPU time, which has no
// bound beforehand, the first slice.
func (o *order) cost(r pricing.Rates, b format.Bound) (l402.Msat, error) {
	units := b.Units()
	units[pricing.GPUMicros] = o.model.gpuSlice(r)
	return r.Bound(units)
}

// least is the lowest bound that the request may be held at.
func (o *order) least() l402.Msat {
	if o.lock != nil {
		return min(o.required, o.lock.Amount)
	}
	return o.required
}

// ceiling is the most that a request under this hold is charged: the part that was
// held for counting may be more than the whole turned out to be.
func (o *order) ceiling(hold *metering.Hold) l402.Msat { return min(hold.Amount(), o.required) }

// exceeds says whether the request may cost more than most, the client's own limit; below
// 0 there is none.
func (o *order) exceeds(most l402.Msat) bool { return most >= 0 && o.least() > most }

// truncate lowers the completion cap to what available covers and reports
// whether at least the model's minimum is left.
func (o *order) truncate(available l402.Msat) bool {
	if o.next != nil && !o.next.truncate(available) {
		o.next = nil // the balance is for the model that was asked for
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
	for low < high { // the largest cap that is covered: cost grows with it
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

// place takes a place in the pool for a request of an account that pays at most limit.
func (o *order) place(account l402.TokenID, limit l402.Msat) (*gpu.Ticket, error) {
	return o.model.pool.AdmitBid(gpu.Key(account), o.bid(limit))
}

// bid is what the pool needs to know of a request that pays at most limit.
func (o *order) bid(limit l402.Msat) gpu.Bid {
	if o.next != nil { // the rest is for the other model
		limit = min(limit, o.own)
	}
	return gpu.Bid{AtMost: o.bound.Units(), Limit: limit}
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

// aboveMaxCost refuses with the quote, so that the client can decide. most is the
// client's own limit.
func (o *order) aboveMaxCost(most, required l402.Msat) error {
	p := problem.New(http.StatusPreconditionFailed, problem.CostAboveMaximum,
		"this request may cost more than "+headerMaxCost+" allows; nothing was charged")
	p.Required, p.Maximum = &required, &most
	o.describe(p)
	return p
}

// describe adds the price in force to a problem.
func (o *order) describe(p *problem.Problem) {
	e, expiry := &o.epoch, o.quoteExpiry
	p.Model, p.Rates, p.Epoch, p.QuoteExpiry = o.asked, &e.Rates, &e.ID, &expiry
	p.Multiplier, p.Signal, p.BoundBy = &e.Multiplier, &e.Signal, e.BoundBy
}

// defaultGPUSlice is how much GPU time is held at a time. GPU time has no bound
// beforehand: a request holds a slice of it and asks for the next one when half of a slice
// is left; see watchGPU.
const defaultGPUSlice = 10 * time.Second

// gpuSlice is what a hold has of GPU time, in microseconds, where that costs.
func (m *model) gpuSlice(r pricing.Rates) int64 {
	switch {
	case r[pricing.GPUMicros] == 0:
		return 0
	case m.GPUSlice > 0:
		return m.GPUSlice.Microseconds()
	}
	return defaultGPUSlice.Microseconds()
}
