package gpu

import (
	"math"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// Bid is what a request offers to backends that ask prices of their own. The zero Bid takes any
// backend.
type Bid struct {
	// AtMost is an upper bound of what the request consumes.
	AtMost pricing.Units
	// Limit is the most that the request pays, in msat. A backend that asks more is not used. Zero
	// means that there is no limit.
	Limit l402.Msat
}

func (b Bid) pays(ask l402.Msat) bool { return b.Limit <= 0 || ask <= b.Limit }

// Ask is what a backend's owner asks for requests. The price that the buyer pays does not depend on it.
type Ask interface {
	// Rates returns the owner's rate card that is in force now. The fleet calls Rates while it holds
	// its lock, so Rates must return at once, do no I/O, and be safe for concurrent use.
	Rates() pricing.Rates
}

// FixedAsk is a rate card that never changes.
type FixedAsk pricing.Rates

// Rates implements Ask.
func (a FixedAsk) Rates() pricing.Rates { return pricing.Rates(a) }

// beyond is what a backend asks if its rate card cannot give a cost. No request with a limit pays it.
const beyond l402.Msat = math.MaxInt64

// ask returns the most that b asks for a request, in msat. It is zero if b has no price of its own.
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
