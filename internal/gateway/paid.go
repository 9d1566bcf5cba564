package gateway

import (
	"sluice.example/sluice/metering/format"
)

// paid serves a POST to a path of an API that is sold. This file tells the way of such a
// request from its credential to its settlement, from top to bottom. Each step is a call
// into the file that is named beside the call. No later step enters the file of an earlier
// step again, with three exceptions. Where the client allows another model, quote.go calls
// fallback.go, which calls quote.go and permit.go for that model. If no backend took the
// first model, sellEither repeats the steps from sell on with the other model. The answer
// repeats forward once where a backend refused a cap that the gateway had chosen. The steps
// hand the exchange, the order and the call on to each other; see exchange.go, order.go and
// call.go.
func (g *Gateway) paid(x *exchange, f format.Format) error {
	if err := x.reach(); err != nil { // the service of the host: catalog.go
		return err
	}
	if err := x.readPreferences(); err != nil { // the client's own limits: preferences.go
		return err
	}
	if err := g.identify(x); err != nil { // what the credential is worth here: credential.go
		return err
	}
	body, err := x.readBody(x.cat.MaxBody) // body.go
	if err != nil {
		return err
	}
	o, err := g.order(x, f, body) // parsed by its format, and bounded at the price in force: quote.go
	switch {
	case err != nil && x.who == stranger && blank(body):
		return g.offer(x, forCredit, nil, nil)
	case err != nil:
		return err
	}
	defer o.releasePart(x)
	if err := g.permit(x, o); err != nil { // whether it may be: permit.go
		return err
	}
	if x.who != holder {
		return g.offer(x, forRequest, o, nil) // a 402: challenge.go
	}
	if o.next != nil {
		return g.sellEither(x, o) // another model may serve, as the client allows: fallback.go
	}
	return g.sell(x, o)
}

// sell goes on for a caller with money: from the hold to the end of the answer. Once it
// returns, the hold is over.
func (g *Gateway) sell(x *exchange, o *order) error {
	hold, short, err := g.reserve(x, o) // the money is held: reserve.go
	switch {
	case short != nil:
		return g.offer(x, forShortfall, o, &short.Available)
	case err != nil:
		return err
	}
	return newCall(x, o, hold).fulfil()
}

// fulfil gives what the hold pays for. A full pool has refused before anything was
// written, and nobody gets a place in the queue without money.
func (c *call) fulfil() error {
	defer c.leave()
	e := c.takeSlot() // a place in the queue, then a slot; nil if it has one: slot.go
	if e == nil {
		defer c.watchGPU()() // the hold grows with the GPU time: gputime.go
		e = c.answer()
	}
	return c.finish(e)
}

// answer forwards the request and passes the answer on while it is metered. It does so
// twice where the backend refused a cap that the gateway had chosen.
func (c *call) answer() *ending {
	for {
		resp, e := c.forward() // written for each backend that is tried: proxy.go
		if e != nil {
			return e
		}
		if e = c.relay(resp); e != nil { // by its content, then in stream.go, gather.go or unary.go: answer.go
			return e
		}
	}
}

// finish settles a call and closes its answer. What it needs stays off the stack of an
// answer that is still coming; see (*call).stream.
//
//go:noinline
func (c *call) finish(e *ending) error {
	entry, settled := c.settle(e)      // once, with the charge or without one: settle.go
	return c.close(e, &entry, settled) // the end of the answer, with what it cost: close.go
}
