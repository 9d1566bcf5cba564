package gateway

import (
	"net/http"
	"time"

	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/metering/format"
)

// order parses a request, finds its model and computes the most that the request can cost at
// the price in force.
func (g *Gateway) order(x *exchange, f format.Format, body []byte) (*order, error) {
	req, err := f.Parse(x.r.URL.Path, body, x.service.policy)
	if err != nil {
		return nil, err
	}
	m := x.service.named[req.Model()]
	if m == nil {
		return nil, unknownModel()
	}
	o, err := g.orderOf(x, m, req.Model(), f, req, body)
	if err == nil && x.prefs.fallback != "" {
		o, err = g.withFallback(x, o)
	}
	if err != nil {
		return nil, err
	}
	x.model = o.model.Name
	return o, nil
}

// orderOf returns the order for a request to the model m, with the most that the request can
// cost. name is the name by which the client asked for the model.
func (g *Gateway) orderOf(x *exchange, m *model, name string, f format.Format, req format.Request, body []byte) (o *order, err error) {
	if !m.sells(f) {
		return nil, otherAPI(m)
	}
	o = &order{model: m, asked: name, format: f, path: x.r.URL.Path, body: body, req: req, limits: m.Limits}
	o.limits.TemplateBase += m.overhead(x.voter(), g.now())
	if o.whole, err = req.Bound(o.limits); err != nil {
		return nil, err
	}
	o.bound = req.Fit(o.whole, o.limits)
	var ok bool
	if o.epoch, ok = g.cfg.Board.Live(m.Name); !ok {
		return nil, problem.Retryable(problem.New(http.StatusServiceUnavailable, problem.BackendUnavailable, "the model has no price yet"), problem.BusyRetry)
	}
	o.quoteExpiry = x.quoteExpiry()
	return o, o.price()
}

// overhead returns how many tokens the templates of a model's backends add beyond the model's
// limits, as this voter may believe; see voter.
func (m *model) overhead(voter uint64, now time.Time) (most int64) {
	for _, l := range m.lessons.list() {
		most = max(most, l.overhead.For(voter, now))
	}
	return most
}

// policy returns what the owner of a model allows in requests. It is empty for a model that
// the service does not sell.
func (s *service) policy(model string) *format.Policy {
	if m := s.named[model]; m != nil {
		return &m.Policy
	}
	return new(format.Policy)
}

func unknownModel() *problem.Problem {
	p := problem.New(http.StatusNotFound, problem.InvalidRequest, "there is no such model here; GET /v1/models lists them")
	p.Param = "model"
	return p
}
