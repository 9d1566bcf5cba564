package gateway

import (
	"fmt"

	"sluice.example/sluice/backends/gpu"
)

// errNotServed refuses a payment or a hold that would buy nothing, because no backend serves. It
// wraps gpu.ErrNoBackend, so that the client gets a 503 with Retry-After.
var errNotServed = fmt.Errorf("not sold now: %w", gpu.ErrNoBackend)

// serves reports whether a backend can be used for the model now.
func (g *Gateway) serves(m *model) bool { return m.pool.Serves() }

// servesAny reports whether a model of the service can be served now.
func (g *Gateway) servesAny(svc *service) bool {
	for _, m := range svc.models {
		if g.serves(m) {
			return true
		}
	}
	return false
}

// sells reports whether the gateway can serve what an offer asks to be paid for: the model of
// the order, or any model of the service if no request was made.
func (g *Gateway) sells(o *offer) bool {
	if o.order != nil && o.required > 0 {
		return g.serves(o.order.model)
	}
	return g.servesAny(o.service)
}
