package gateway

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"

	"sluice/l402"
	"sluice/metering"
	"sluice/metering/chat"
	"sluice/pricing"
)

// order is what one request asks for and what it costs at most.
type order struct {
	model       *model
	path        string // at the backend
	body        []byte // as the client sent it
	req         *chat.Request
	bound       chat.Bound
	epoch       pricing.Epoch
	quoteExpiry time.Time
	required    l402.Msat          // the cost of bound at the epoch's rates
	lock        *metering.RateLock // the quote that the caller's payment bought; nil: none, or none that is cheaper
	tokenized   bool               // a backend's tokenizer was asked
}

// order parses a chat request, finds its model and bounds its cost from above
// at the price in force.
func (g *Gateway) order(svc *service, path string, body []byte) (*order, error) {
	req, err := chat.Parse(body)
	if err != nil {
		return nil, err
	}
	m := svc.models[req.Model()]
	if m == nil {
		return nil, unknownModel()
	}
	o := &order{model: m, path: path, body: body, req: req}
	if o.bound, err = req.Bound(m.Limits); err != nil {
		return nil, err
	}
	var ok bool
	if o.epoch, ok = g.cfg.Board.Live(m.Name); !ok {
		return nil, retryable(newProblem(http.StatusServiceUnavailable, typeBackendUnavailable, "the model has no price yet"), busyRetry)
	}
	o.quoteExpiry = g.quoteExpiry()
	return o, o.price()
}

// quoteExpiry is until when a price named now is good for who pays for it.
func (g *Gateway) quoteExpiry() time.Time {
	return g.now().Add(g.cfg.QuoteTTL).UTC().Truncate(time.Second)
}

func unknownModel() error {
	p := newProblem(http.StatusNotFound, typeInvalidRequest, "there is no such model here; GET /v1/models lists them")
	p.Param = "model"
	return p
}

// price sets required, and what the lock has to cover, from the bound.
func (o *order) price() (err error) {
	if o.required, err = o.cost(o.epoch.Rates, o.bound); err == nil && o.lock != nil {
		o.lock.Amount, err = o.cost(o.lock.Rates, o.bound)
	}
	if err != nil {
		return invalid("the request's cost cannot be bounded; lower max_tokens or n")
	}
	return nil
}

// cost is the most that a request within b costs, or of GPU time, which has no
// bound beforehand, the first slice.
func (o *order) cost(r pricing.Rates, b chat.Bound) (l402.Msat, error) {
	return r.Bound(pricing.Usage{InputTokens: b.Input, OutputTokens: b.Output, Calls: 1, GPUMicros: o.model.gpuSlice(r)})
}

// least is the lowest bound that the request may be held at.
func (o *order) least() l402.Msat {
	if o.lock != nil {
		return min(o.required, o.lock.Amount)
	}
	return o.required
}

// truncate lowers the completion cap to what available covers and reports
// whether at least the model's minimum is left.
func (o *order) truncate(available l402.Msat) bool {
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

// blank says whether a body asks for nothing, as that of a directory's probe:
// no JSON, or an empty value.
func blank(body []byte) bool {
	switch string(bytes.TrimSpace(body)) {
	case "", "{}", "null", "[]", `""`:
		return true
	}
	return !json.Valid(body)
}
