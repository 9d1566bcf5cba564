package gateway

import (
	"context"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// permit refuses what must not be forwarded or sold: a model that nothing serves, and
// what the token's caveats or the client's own limit forbid. A rate lock that the token
// has is applied on the way. Of a caller with money the limit is looked at when the money
// is held, because counting tokens may lower the bound; see withinMaxCost.
func (g *Gateway) permit(x *exchange, o *order) error {
	if !g.serves(o.model) && !(x.who == holder && o.model.pool.Tries()) {
		return errNotServed
	}
	if x.who != holder {
		if o.exceeds(x.prefs.maxCost) {
			return o.aboveMaxCost(x.prefs.maxCost, o.least())
		}
		return nil
	}
	if err := x.allow(o); err != nil {
		return err
	}
	return g.applyLock(x, o)
}

// Prices is the record of published prices, which outlives this process.
type Prices interface {
	// Epoch finds one published price; one that is not on record is not found,
	// without an error.
	Epoch(ctx context.Context, id int64) (e pricing.Epoch, found bool, err error)
	// Epochs returns the prices that the query selects, by ascending id. It bounds
	// a query that asks for too many.
	Epochs(ctx context.Context, q pricing.EpochQuery) ([]pricing.Epoch, error)
}

// lockLookup bounds the search for an epoch that this process does not
// remember: one published before it started. Without an answer the price in
// force counts.
const lockLookup = time.Second

// applyLock finds the quote that the caller's payment bought: for a while after
// its challenge, and for no more than that payment, the model it was made for
// costs at most what it said. Whether the payment covers one more request is
// decided with the hold.
func (g *Gateway) applyLock(x *exchange, o *order) error {
	lock := x.token.RateLock
	if lock == (l402.RateLock{}) || !g.now().Before(lock.Until) || lock.Epoch == o.epoch.ID {
		return nil
	}
	quoted, ok := g.epoch(x.r.Context(), lock.Epoch)
	if !ok || quoted.Model != o.model.Name {
		return nil
	}
	rates := quoted.Rates.Min(o.epoch.Rates)
	if rates == o.epoch.Rates {
		return nil // the price has not risen
	}
	o.lock = &metering.RateLock{Hash: x.token.PaymentHash, Limit: x.token.Deposit, Rates: rates, Epoch: lock.Epoch}
	return o.price()
}

// epoch finds a published price.
func (g *Gateway) epoch(ctx context.Context, id int64) (pricing.Epoch, bool) {
	if e, ok := g.cfg.Board.Epoch(id); ok {
		return e, true
	}
	ctx, cancel := context.WithTimeout(ctx, lockLookup)
	defer cancel()
	e, found, err := g.cfg.Prices.Epoch(ctx, id)
	if err != nil || !found {
		return e, false
	}
	g.cfg.Board.Remember(e)
	return e, true
}
