package gateway

import (
	"errors"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/metering/format"
)

// A client may allow another model to serve where the one that it asked for cannot. It
// pays for the one that served, at that one's price. What is held first is the bound of
// the dearer of the two, so that the balance covers either.

// withFallback adds the order for the model that the client allows in place of the one
// that it asked for, or returns that order where only the other model is served now.
func (g *Gateway) withFallback(x *exchange, o *order) (*order, error) {
	m := x.service.named[x.prefs.fallback]
	if m == nil || !m.sells(o.format) {
		return nil, problem.InvalidParam(headerFallback, "the header "+headerFallback+" names a model that is not sold here; GET /v1/models lists them")
	}
	o.tells = true
	if m == o.model {
		return o, nil
	}
	req, err := o.format.Parse(o.path, o.body, func(string) *format.Policy { return &m.Policy })
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
		if x.who == holder { // else nothing is asked yet
			g.fellBack(x, o, next, errNotServed)
		}
		return next, nil
	}
	o.next = next
	return o, o.price()
}

// sellEither is sell for an order with a second one, which is served where no backend
// took the first. Nothing was charged then, and its hold is over.
//
//go:noinline
func (g *Gateway) sellEither(x *exchange, o *order) error {
	err := g.sell(x, o)
	if o.next == nil || !untaken(err) || x.status != 0 || x.r.Context().Err() != nil {
		return err
	}
	if x.requestID != "" || o.part != nil && o.lock == nil { // a hold has counted the request against the limits of the token
		once := *x.token
		once.RateLimits = nil
		x.token = &once
	}
	o.releasePart(x) // the balance is whole again
	next := o.next
	defer next.releasePart(x)
	x.model = next.model.Name
	g.fellBack(x, o, next, err)
	return g.sell(x, next)
}

// fellBack tells that another model is asked, and why.
func (g *Gateway) fellBack(x *exchange, o, next *order, why error) {
	g.observer.FellBack(x.r.Context(), o.model.Name, next.model.Name, why)
}

// untaken says whether an order failed because no backend took it now.
func untaken(err error) bool {
	var full *gpu.FullError
	if errors.As(err, &full) {
		return true
	}
	return errors.Is(err, gpu.ErrQueueTimeout) || errors.Is(err, gpu.ErrNotTaken) || errors.Is(err, gpu.ErrNoBackend)
}
