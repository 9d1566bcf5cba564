package gateway

import (
	"fmt"

	"sluice.example/sluice/backends/gpu"
)

// errNotServed refuses what nothing could be done for: a payment, or a hold,
// would buy nothing. It is a gpu.ErrNoBackend, and so a 503 with Retry-After.
var errNotServed = fmt.Errorf("not sold now: %w", gpu.ErrNoBackend)

// serves says whether some backend may be used for the model now.
func (g *Gateway) serves(m *model) bool { return m.pool.Serves() }

// servesAny says whether the service has a model that can be served.
func (g *Gateway) servesAny(svc *service) bool {
	for _, m := range svc.models {
		if g.serves(m) {
			return true
		}
	}
	return false
}

// sells says whether what an offer asks to pay for can be served: the model that
// was asked for, or any of the service where none was named.
func (g *Gateway) sells(o *offer) bool {
	if o.order != nil && o.required > 0 {
		return g.serves(o.order.model)
	}
	return g.servesAny(o.service)
}
