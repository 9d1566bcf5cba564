package pricing

import (
	"errors"
	"fmt"
	"math"
	"math/bits"

	"sluice.example/sluice/l402"
)

// Rates is what one model costs at one moment, indexed by Unit. A rate is in msat, for as many of the
// unit as Unit.Per says. A zero rate means that the unit costs nothing, except that a unit which is a
// part of another unit then costs the rate of that whole. Values compare with ==.
type Rates [unitEnd]int64

// of returns the rate of a unit. For a part without a rate of its own it returns the rate of the whole.
func (r *Rates) of(u Unit) int64 {
	if whole := specs[u].of; r[u] == 0 && whole != NoUnit {
		return r[whole]
	}
	return r[u]
}

// MaxRate bounds every rate, in msat per Unit.Per of the unit, so that no sum can overflow. For tokens,
// 10^15 is 10 bitcoin per million tokens.
const MaxRate int64 = 1_000_000_000_000_000

// ErrUsage reports a usage or rate outside its bounds.
var ErrUsage = errors.New("usage or rate out of range")

// Validate fails with ErrUsage if a rate is negative or above MaxRate, or if NoUnit has a rate.
func (r Rates) Validate() error {
	for _, v := range r {
		if v < 0 || v > MaxRate {
			return fmt.Errorf("rate %d is not within 0..%d: %w", v, MaxRate, ErrUsage)
		}
	}
	if r[NoUnit] != 0 {
		return fmt.Errorf("rate %d of no unit: %w", r[NoUnit], ErrUsage)
	}
	return nil
}

// Cost returns the exact rational sum of what u costs at the rates r. It is rounded up once, at the
// end, to a whole msat. Cost fails with ErrUsage if a count is negative, parts are more than their
// whole, a rate is not valid, or the sum exceeds l402.MaxMsat.
func (r Rates) Cost(u Units) (l402.Msat, error) {
	if !r.canPrice(&u) || !u.takeApart() {
		return 0, ErrUsage
	}
	var sum fraction
	for i, count := range &u {
		if count != 0 {
			sum.add(count, r.of(Unit(i)), factors[i])
		}
	}
	return sum.ceil()
}

// Bound returns the most that a request can cost whose usage is at most u. It is like Cost, but a unit
// that has parts costs the highest of its own rate and its parts' rates. A reservation holds this
// amount.
func (r Rates) Bound(u Units) (l402.Msat, error) {
	if !r.canPrice(&u) { // checked here, because a part's rate may hide a whole's negative rate
		return 0, ErrUsage
	}
	top := r // for each whole, the highest of its parts' rates and its own
	for _, part := range parts {
		whole := specs[part].of
		u[part] = 0
		top[whole] = max(top[whole], r[part])
	}
	return top.Cost(u)
}

// canPrice says whether all counts and rates are within their bounds.
func (r *Rates) canPrice(u *Units) bool {
	var signs int64 // negative if any count or rate is out of bounds
	for i := range u {
		signs |= u[i] | r[i] | (MaxRate - r[i])
	}
	return signs >= 0 && u[NoUnit] == 0
}

// The costs of units have three denominators: a million, 2^20 and 1. Their least common multiple is
// 2^20 · 5^6. With this common denominator every cost has a whole numerator, and the sum is exact.
const denominator = mebi * 15_625

// factors holds, for each unit, the common denominator divided by the unit's own denominator. So
// computing a cost needs no division by the unit's denominator. This matters because the gateway
// computes a cost after each event of a stream.
var factors = func() (f [unitEnd]uint64) {
	for _, u := range AllUnits() {
		f[u] = uint64(denominator / specs[u].per)
	}
	return f
}()

// fraction is a 128-bit numerator over the common denominator.
type fraction struct {
	hi, lo uint64
	bad    bool
}

// add adds count·rate·factor/denominator. The caller ensures that count is not negative and that rate
// is within 0..MaxRate.
func (f *fraction) add(count, rate int64, factor uint64) {
	// (hi, lo) is count · rate, which is below 2^113. It is multiplied by a factor below 2^34. If the
	// product needs more than 128 bits, the cost is far beyond MaxMsat.
	hi, lo := bits.Mul64(uint64(count), uint64(rate))
	over, high := bits.Mul64(hi, factor)
	carried, low := bits.Mul64(lo, factor)
	high, c1 := bits.Add64(high, carried, 0)
	var c2, c3 uint64
	f.lo, c2 = bits.Add64(f.lo, low, 0)
	f.hi, c3 = bits.Add64(f.hi, high, c2)
	f.bad = f.bad || over != 0 || c1 != 0 || c3 != 0
}

// ceil returns the sum, rounded up to whole msat.
func (f *fraction) ceil() (l402.Msat, error) {
	if f.bad || f.hi >= denominator {
		return 0, ErrUsage
	}
	q, rem := bits.Div64(f.hi, f.lo, denominator)
	if rem != 0 {
		q++
	}
	if q > math.MaxInt64 || !l402.Msat(q).Valid() {
		return 0, ErrUsage
	}
	return l402.Msat(q), nil
}
