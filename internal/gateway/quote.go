package gateway

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
	"sluice.example/sluice/pricing"
)

// order is what one request asks for and what it costs at most.
type order struct {
	model       *model
	asked       string // its name, as the client has it
	path        string // of the request
	body        []byte // as the client sent it
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

// order parses a request, finds its model and bounds its cost from above
// at the price in force.
func (g *Gateway) order(x *exchange, svc *service, f format.Format, body []byte) (*order, error) {
	req, err := f.Parse(x.r.URL.Path, body, svc.policy)
	if err != nil {
		return nil, err
	}
	m := svc.named[req.Model()]
	if m == nil {
		return nil, unknownModel()
	}
	return g.orderOf(x, m, req.Model(), f, req, body)
}

// orderOf bounds the cost of a request to a model that the client knows as name.
func (g *Gateway) orderOf(x *exchange, m *model, name string, f format.Format, req format.Request, body []byte) (o *order, err error) {
	if !m.sells(f) {
		return nil, otherAPI(m)
	}
	o = &order{model: m, asked: name, path: x.r.URL.Path, body: body, req: req, limits: m.Limits}
	o.limits.TemplateBase += m.overhead(x.voter(), g.now())
	if o.whole, err = req.Bound(o.limits); err != nil {
		return nil, err
	}
	o.bound = req.Fit(o.whole, o.limits)
	var ok bool
	if o.epoch, ok = g.cfg.Board.Live(m.Name); !ok {
		return nil, retryable(newProblem(http.StatusServiceUnavailable, typeBackendUnavailable, "the model has no price yet"), busyRetry)
	}
	o.quoteExpiry = x.quoteExpiry()
	return o, o.price()
}

// overhead is how many tokens the templates of a model's backends add beyond what
// its limits say.
func (m *model) overhead(voter uint64, now time.Time) (most int64) {
	for _, l := range m.lessons.list() {
		most = max(most, l.overhead.For(voter, now))
	}
	return most
}

// voter stands for the account in what is learnt from answers; 0: there is none.
func (x *exchange) voter() uint64 {
	if x.token == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(x.token.ID[:8])
}

// policy is what the owner of a model allows in requests; nothing of one that is
// not sold here.
func (s *service) policy(model string) *format.Policy {
	if m := s.named[model]; m != nil {
		return &m.Policy
	}
	return new(format.Policy)
}

// quoteExpiry is until when a price named now is good for who pays for it.
func (x *exchange) quoteExpiry() time.Time {
	return x.g.now().Add(x.cat.QuoteTTL).UTC().Truncate(time.Second)
}

func unknownModel() *problem {
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
		return invalid("the request's cost cannot be bounded; lower max_tokens or n, or send less at once")
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

// blank says whether a body asks for nothing, as that of a directory's probe:
// no JSON, or an empty value.
func blank(body []byte) bool {
	body = bytes.TrimSpace(rawjson.TrimBOM(body))
	switch string(body) {
	case "", "{}", "null", "[]", `""`:
		return true
	}
	return !json.Valid(body)
}
