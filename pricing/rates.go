package pricing

import (
	"errors"
	"fmt"
	"math"
	"math/bits"

	"sluice.example/sluice/l402"
)

// Rates is what one model costs at one moment, indexed by Unit: msat for as many of
// the unit as Unit.Per says. A zero rate does not apply, except that a part of
// another unit costs the whole's rate then. Values compare with ==.
type Rates [unitEnd]int64

// of is what a unit costs: its own rate, or for a part without one the whole's.
func (r *Rates) of(u Unit) int64 {
	if whole := specs[u].of; r[u] == 0 && whole != NoUnit {
		return r[whole]
	}
	return r[u]
}

// MaxRate bounds every single rate, in its own unit, so that no sum of parts
// can overflow: 10^15 is 10 bitcoin per million tokens.
const MaxRate int64 = 1_000_000_000_000_000

// ErrUsage reports a usage or rate outside its bounds.
var ErrUsage = errors.New("usage or rate out of range")

// Validate fails with ErrUsage when a rate is negative or above MaxRate, or belongs
// to no unit.
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

// Cost is the exact rational sum of what u costs at the rates r, rounded up
// once, at the end, to a whole millisatoshi. It fails with ErrUsage when a
// count is negative, parts are more than their whole, a rate is not valid, or
// the sum exceeds l402.MaxMsat.
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

// Bound is the most that a request can cost whose usage is at most u: as
// Cost, with all of a unit that has parts at the dearest of their rates and its
// own. It is what a reservation holds.
func (r Rates) Bound(u Units) (l402.Msat, error) {
	if !r.canPrice(&u) { // looked at here, because a part may be dearer than a negative rate
		return 0, ErrUsage
	}
	top := r // of each whole, the dearest rate of its parts and its own
	for _, part := range parts {
		whole := specs[part].of
		u[part] = 0
		top[whole] = max(top[whole], r[part])
	}
	return top.Cost(u)
}

// canPrice reports whether all counts and rates are within their bounds.
func (r *Rates) canPrice(u *Units) bool {
	var signs int64 // negative if anything is
	for i := range u {
		signs |= u[i] | r[i] | (MaxRate - r[i])
	}
	return signs >= 0 && u[NoUnit] == 0
}

// The costs of units have three denominators: a million, 2^20 and 1. Their least
// common multiple is 2^20 · 5^6, in which every one is a whole number and the sum
// is exact.
const denominator = mebi * 15_625

// factors are the common denominator in terms of each unit's own: no division is
// left for a cost, which is reckoned after each event of a stream.
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

// add adds count·rate·factor/denominator. count is not negative, and rate is within
// 0..MaxRate.
func (f *fraction) add(count, rate int64, factor uint64) {
	// (hi, lo) = count · rate, below 2^113; times a factor below 2^34. Where
	// that leaves 128 bits, the cost is far beyond MaxMsat.
	hi, lo := bits.Mul64(uint64(count), uint64(rate))
	over, high := bits.Mul64(hi, factor)
	carried, low := bits.Mul64(lo, factor)
	high, c1 := bits.Add64(high, carried, 0)
	var c2, c3 uint64
	f.lo, c2 = bits.Add64(f.lo, low, 0)
	f.hi, c3 = bits.Add64(f.hi, high, c2)
	f.bad = f.bad || over != 0 || c1 != 0 || c3 != 0
}

// ceil rounds the sum up to whole millisatoshi.
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
