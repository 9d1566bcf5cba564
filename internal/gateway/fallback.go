package gateway

import (
	"errors"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/metering/format"
)

// A client may allow a second model to serve where no backend serves the first one, which it
// asked for. The client pays the price of the model that served. Before that, the gateway
// holds the larger bound of the two models, so that the balance covers either model.

// withFallback adds to o the order for the second model. If only the second model can be served
// now, withFallback returns the second order instead of o.
func (g *Gateway) withFallback(x *exchange, o *order) (*order, error) {
	m := x.service.named[x.prefs.fallback]
	if m == nil || !m.sells(o.format) {
		return nil, problem.InvalidParam(headerFallback, "the header "+headerFallback+" names a model that is not sold here; GET /v1/models lists them")
	}
	o.tells = true
	if m == o.model {
		return o, nil
	}
	req, err := o.req, error(nil)
	if !m.Policy.Equal(&o.model.Policy) { // the request reads otherwise for the second model
		req, err = o.format.Parse(o.path, o.body, func(string) *format.Policy { return &m.Policy })
	}
	if err != nil {
		return nil, err
	}
	next, err := g.orderOf(x, m, x.prefs.fallback, o.format, req, o.body)
	if err != nil {
		return nil, err
	}
	next.tells = true
	if x.who == holder {
		if err := x.allow(next); err != nil {
			return nil, err
		}
		if err := g.applyLock(x, next); err != nil {
			return nil, err
		}
	}
	if !g.serves(o.model) && g.serves(m) {
		next.replaces(o, errNotServed)
		return next, nil
	}
	o.next = next
	return o, o.price()
}

// sellEither sells an order that has an order for a second model. It sells the second order if
// no backend took the first one: then nothing was charged and the first hold is over.
//
//go:noinline
func (g *Gateway) sellEither(x *exchange, o *order) error {
	err := g.sell(x, o)
	if o.next == nil || !untaken(err) || x.billed || x.status != 0 || x.r.Context().Err() != nil {
		return err
	}
	if x.requestID != "" || o.part != nil && o.lock == nil { // the first order counted against the rate limits
		once := *x.token
		once.RateLimits = nil
		x.token = &once
	}
	o.releasePart(x) // makes the whole balance available again
	next := o.next
	defer next.releasePart(x)
	x.model = next.model.Name
	next.replaces(o, err)
	return g.sell(x, next)
}

// replaces notes that o serves in place of the first order, and why.
func (o *order) replaces(first *order, why error) { o.instead, o.why = first.model.Name, why }

// untaken reports whether err says that no backend took the order.
func untaken(err error) bool {
	var full *gpu.FullError
	if errors.As(err, &full) {
		return true
	}
	return errors.Is(err, gpu.ErrQueueTimeout) || errors.Is(err, gpu.ErrNotTaken) || errors.Is(err, gpu.ErrNoBackend)
}
