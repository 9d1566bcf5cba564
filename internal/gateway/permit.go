package gateway

import (
	"context"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// permit refuses an order for a model that no backend serves, and an order that the token's
// caveats or the client's own limit forbid. It applies the token's rate lock, if any. For a
// caller with money, withinMaxCost checks the client's limit later, because counting tokens may
// lower the bound.
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

// Prices is the stored record of published prices, which outlives this process.
type Prices interface {
	// Epoch returns the published price with this id. found is false, without an error, for an
	// id that is not on record.
	Epoch(ctx context.Context, id int64) (e pricing.Epoch, found bool, err error)
	// Epochs returns the prices that the query selects, by ascending id. It lowers a limit of
	// the query that is too large.
	Epochs(ctx context.Context, q pricing.EpochQuery) ([]pricing.Epoch, error)
}

// lockLookup bounds the search for a price that this process does not remember because it was
// published before the process started. If the record does not answer in time, the price in
// force applies.
const lockLookup = time.Second

// applyLock applies the quote that the caller's payment bought. Until the quote expires, the
// model of the quote costs at most the quoted rates, and only as far as that payment reaches.
// The hold decides whether the payment covers one more request.
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
		return nil // the price in force is not above the quote
	}
	o.lock = &metering.RateLock{Hash: x.token.PaymentHash, Limit: x.token.Deposit, Rates: rates, Epoch: lock.Epoch}
	return o.price()
}

// epoch returns a published price by its id; false means that it was not found.
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
