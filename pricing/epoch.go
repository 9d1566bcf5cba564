package pricing

import (
	"errors"
	"fmt"
	"time"

	"sluice.example/sluice/l402"
)

// The rules that can decide a price: the values of Epoch.BoundBy.
const (
	BoundFixed   = "fixed"   // the rate card, which follows no load
	BoundFloor   = "floor"   // the lowest multiplier allowed
	BoundCeiling = "ceiling" // the highest multiplier allowed
	BoundSlew    = "slew"    // the fastest change allowed
	BoundNone    = "none"    // the load signal alone
	BoundStale   = "stale"   // the load signal is too old to follow
)

// Epoch is one published price of one model. It never changes once it was
// published; a new price is a new epoch.
type Epoch struct {
	ID         int64     `json:"price_epoch"` // grows with each price published
	Model      string    `json:"model"`
	Rates      Rates     `json:"rates"`      // what is charged, multiplier applied
	Multiplier float64   `json:"multiplier"` // of the base rate card; 1 where the price is fixed
	Signal     float64   `json:"signal"`     // the smoothed pressure that was followed (Parts.Pressure); 0 where none was read
	BoundBy    string    `json:"bound_by"`
	At         time.Time `json:"published_at"`
}

// EpochQuery selects published prices.
type EpochQuery struct {
	Model string    // empty: all models
	After int64     // only ids above it
	Since time.Time // only those published since; zero: all
	Limit int       // how many at most; 0: as many as the record gives at once
}

// ErrArgument reports a price, a multiplier or a load that cannot be.
var ErrArgument = errors.New("invalid argument")

// Fixed is the epoch of a price that follows no load. Its ID is given by
// the process that publishes it.
func Fixed(model string, r Rates, at time.Time) Epoch {
	return Epoch{Model: model, Rates: r, Multiplier: 1, BoundBy: BoundFixed, At: at}
}

// Quote prices a request from above: no usage within atMost costs more at the
// rates of this epoch. It fails with ErrUsage when a count is negative or the
// bound exceeds l402.MaxMsat.
func (e Epoch) Quote(atMost Units, expires time.Time) (Quote, error) {
	bound, err := e.Rates.Bound(atMost)
	if err != nil {
		return Quote{}, fmt.Errorf("bound the cost of a request for %q: %w", e.Model, err)
	}
	return Quote{Model: e.Model, Bound: bound, Rates: e.Rates, Epoch: e.ID, ExpiresAt: expires}, nil
}

// Quote is the upper bound of what one request costs, and the price it was
// reckoned at.
type Quote struct {
	Model     string    `json:"model"`
	Bound     l402.Msat `json:"required_msat"`
	Rates     Rates     `json:"rates"`
	Epoch     int64     `json:"price_epoch"`
	ExpiresAt time.Time `json:"quote_expires_at"`
}
