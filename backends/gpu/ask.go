package gpu

import (
	"math"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// Bid is what a request offers where backends ask prices of their own. The zero
// Bid takes any backend.
type Bid struct {
	AtMost pricing.Units // what the request consumes, from above
	// Limit is what the request pays at most: backends that ask more are not used.
	// Zero: no limit.
	Limit l402.Msat
}

func (b Bid) pays(ask l402.Msat) bool { return b.Limit <= 0 || ask <= b.Limit }

// Ask is what a backend's owner asks for requests. The buyer's price does not
// depend on it.
type Ask interface {
	// Rates is the owner's rate card at the moment. It is called with the fleet's
	// lock held: at once, without I/O, safe for concurrent use.
	Rates() pricing.Rates
}

// FixedAsk is a rate card that stays.
type FixedAsk pricing.Rates

// Rates implements Ask.
func (a FixedAsk) Rates() pricing.Rates { return pricing.Rates(a) }

// beyond is asked where the rate card gives no cost: no request pays it.
const beyond l402.Msat = math.MaxInt64

// ask is what b asks for a request at most; nothing where it has no price of its
// own.
func (b *Backend) ask(bid *Bid) l402.Msat {
	if b.set.Ask == nil {
		return 0
	}
	cost, err := b.set.Ask.Rates().Bound(bid.AtMost)
	if err != nil {
		return beyond
	}
	return cost
}
