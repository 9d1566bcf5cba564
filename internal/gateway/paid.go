package gateway

import (
	"sluice.example/sluice/metering/format"
)

// paid serves a POST to a path of an API that is sold. This file tells the life of such a
// request from its credential to its settlement, from top to bottom. Each step is a call into
// the file that is named beside the call. No later step enters the file of an earlier step
// again, with three exceptions. If the client allows a second model, quote.go calls
// fallback.go, which calls quote.go and permit.go for that model. If no backend took the first
// model, sellEither repeats the steps from sell on with the second model. If a backend refused
// a cap that the gateway had chosen, answer repeats forward and relay once. The steps hand the
// exchange, the order and the call on to each other; see exchange.go, order.go and call.go.
func (g *Gateway) paid(x *exchange, f format.Format) error {
	if err := x.reach(); err != nil { // finds the service of the host: catalog.go
		return err
	}
	if err := x.readPreferences(); err != nil { // reads the client's own limits: preferences.go
		return err
	}
	if err := g.identify(x); err != nil { // finds out what the credential is worth for the service: credential.go
		return err
	}
	body, err := x.readBody(x.cat.MaxBody) // reads the whole body: body.go
	if err != nil {
		return err
	}
	o, err := g.order(x, f, body) // parses the body and bounds the cost at the price in force: quote.go
	switch {
	case err != nil && x.who == stranger && blank(body):
		return g.offer(x, forCredit, nil, nil)
	case err != nil:
		return err
	}
	defer o.releasePart(x)
	if err := g.permit(x, o); err != nil { // refuses what is not allowed: permit.go
		return err
	}
	if x.who != holder {
		return g.offer(x, forRequest, o, nil) // sends a 402: challenge.go
	}
	if o.next != nil {
		return g.sellEither(x, o) // sells the second model if no backend took the first: fallback.go
	}
	return g.sell(x, o)
}

// sell serves a caller with money, from the hold to the end of the answer. The hold has ended
// when sell returns.
func (g *Gateway) sell(x *exchange, o *order) error {
	hold, short, err := g.reserve(x, o) // holds the money: reserve.go
	switch {
	case short != nil:
		return g.offer(x, forShortfall, o, &short.Available)
	case err != nil:
		return err
	}
	if o.instead != "" { // a caller who cannot pay for the second model does not ask it
		g.observer.FellBack(x.r.Context(), o.instead, o.model.Name, o.why)
	}
	return newCall(x, o, hold).fulfil()
}

// fulfil serves the request that the hold pays for. reserve has refused the request if the pool
// was full, so that nothing was written to the store then. Nobody gets a place in the queue
// without a hold.
func (c *call) fulfil() error {
	defer c.leave()
	e := c.takeSlot() // waits in the queue for a slot; nil: the call has a slot: slot.go
	if e == nil {
		defer c.watchGPU()() // lets the hold grow with the GPU time: gputime.go
		e = c.answer()
	}
	return c.finish(e)
}

// answer forwards the request, and passes the answer on while it is metered. It does both once
// more if the backend refused a cap that the gateway had chosen.
func (c *call) answer() *ending {
	for {
		resp, e := c.forward() // writes the request for each backend that it tries: proxy.go
		if e != nil {
			return e
		}
		if e = c.relay(resp); e != nil { // chooses stream.go, gather.go or unary.go by the content: answer.go
			return e
		}
	}
}

// finish settles a call and closes its answer. finish is a function of its own so that its
// variables take no room on the stack of an answer that still comes; see (*call).stream.
//
//go:noinline
func (c *call) finish(e *ending) error {
	entry, settled := c.settle(e)      // settles once, with a charge or without: settle.go
	c.x.billed = e.bill != billNothing // no other model may be sold after a charge: fallback.go
	return c.close(e, entry, settled)  // sends the end of the answer with its cost: close.go
}
