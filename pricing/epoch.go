package pricing

import (
	"errors"
	"fmt"
	"time"

	"sluice.example/sluice/l402"
)

// The rules that can decide a price. They are the values of Epoch.BoundBy.
const (
	BoundFixed   = "fixed"   // the rate card or the kill switch, which follow no load
	BoundFloor   = "floor"   // the lowest multiplier allowed
	BoundCeiling = "ceiling" // the highest multiplier allowed
	BoundSlew    = "slew"    // the fastest change allowed
	BoundNone    = "none"    // the load signal alone
	BoundStale   = "stale"   // the load signal is too old to follow
)

// Epoch is one published price of one model. An epoch never changes after its publication, because a
// new price is a new epoch.
type Epoch struct {
	ID         int64     `json:"price_epoch"` // grows with each published price
	Model      string    `json:"model"`
	Rates      Rates     `json:"rates"`      // the rates that are charged, with the multiplier applied
	Multiplier float64   `json:"multiplier"` // of the base rate card; 1 if the price is fixed
	Signal     float64   `json:"signal"`     // smoothed pressure that was followed (Parts.Pressure); 0 if unread
	BoundBy    string    `json:"bound_by"`
	At         time.Time `json:"published_at"`
}

// EpochQuery selects published prices.
type EpochQuery struct {
	Model string    // empty means all models
	After int64     // only epochs with a higher id
	Since time.Time // only epochs published since then; zero means all
	Limit int       // the most epochs to return; 0 means as many as the store returns at once
}

// ErrArgument reports an impossible price, multiplier or load.
var ErrArgument = errors.New("invalid argument")

// Fixed returns the epoch of a price that follows no load. The process that publishes the epoch sets
// its ID.
func Fixed(model string, r Rates, at time.Time) Epoch {
	return Epoch{Model: model, Rates: r, Multiplier: 1, BoundBy: BoundFixed, At: at}
}

// Quote returns an upper bound of what a request costs. A usage within atMost costs at most that bound
// at the rates of this epoch. Quote fails with ErrUsage if a count is negative or the bound exceeds
// l402.MaxMsat.
func (e Epoch) Quote(atMost Units, expires time.Time) (Quote, error) {
	bound, err := e.Rates.Bound(atMost)
	if err != nil {
		return Quote{}, fmt.Errorf("bound the cost of a request for %q: %w", e.Model, err)
	}
	return Quote{Model: e.Model, Bound: bound, Rates: e.Rates, Epoch: e.ID, ExpiresAt: expires}, nil
}

// Quote is the upper bound of what one request costs, and the price from which the bound was computed.
type Quote struct {
	Model     string    `json:"model"`
	Bound     l402.Msat `json:"required_msat"`
	Rates     Rates     `json:"rates"`
	Epoch     int64     `json:"price_epoch"`
	ExpiresAt time.Time `json:"quote_expires_at"`
}
