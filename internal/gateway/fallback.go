package gateway

import (
	"errors"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering/format"
)

// A client may allow another model to serve where the one that it asked for cannot. It
// pays for the one that served, at that one's price. What is held first is the bound of
// the dearer of the two, so that the balance covers either.

// withFallback adds the order for the model that the client allows in place of the one
// that it asked for, or returns that order where only the other model is served now.
func (g *Gateway) withFallback(x *exchange, svc *service, f format.Format, o *order, prefs preferences, who standing) (*order, error) {
	m := svc.named[prefs.fallback]
	if m == nil || !m.sells(f) {
		return nil, invalidParam(headerFallback, "the header "+headerFallback+" names a model that is not sold here; GET /v1/models lists them")
	}
	o.tells = true
	if m == o.model {
		return o, nil
	}
	req, err := f.Parse(o.path, o.body, func(string) *format.Policy { return &m.Policy })
	if err != nil {
		return nil, err
	}
	next, err := g.orderOf(x, m, prefs.fallback, f, req, o.body)
	if err != nil {
		return nil, err
	}
	next.tells = true
	if who == holder {
		if err := x.allow(next, f.Name()); err != nil {
			return nil, err
		}
		if err := g.applyLock(x, next); err != nil {
			return nil, err
		}
	}
	if !g.serves(o.model) && g.serves(m) {
		if who == holder { // else nothing is asked yet
			g.fellBack(o, next, errNotServed)
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
func (g *Gateway) sellEither(x *exchange, o *order, prefs preferences) error {
	err := g.sell(x, o, prefs)
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
	g.fellBack(o, next, err)
	return g.sell(x, next, prefs)
}

// fellBack notes that another model is asked, and why.
func (g *Gateway) fellBack(o, next *order, why error) {
	g.metrics.fallbacks.WithLabelValues(o.model.Name, next.model.Name).Inc()
	g.log.Info("another model is asked, as the client allows", "model", o.model.Name, "fallback", next.model.Name, "reason", why)
}

// untaken says whether an order failed because no backend took it now.
func untaken(err error) bool {
	var full *gpu.FullError
	if errors.As(err, &full) {
		return true
	}
	return errors.Is(err, gpu.ErrQueueTimeout) || errors.Is(err, gpu.ErrNotTaken) || errors.Is(err, gpu.ErrNoBackend)
}
