package pricing

import "math"

// Scale returns the rates, each multiplied by multiplier and rounded to the nearest msat. A rate above
// zero stays at least 1 and at most MaxRate. A multiplier that is not a positive number changes
// nothing.
func (r Rates) Scale(multiplier float64) Rates {
	if !(multiplier > 0) {
		return r
	}
	for i, v := range r {
		if v > 0 {
			r[i] = int64(math.Round(min(max(float64(v)*multiplier, 1), float64(MaxRate))))
		}
	}
	return r
}

// Min returns the lower rate of r and o for each unit, so that no usage costs more than at either rate
// card.
func (r Rates) Min(o Rates) Rates {
	low := r
	for i := range r {
		if u := Unit(i); r[u] != 0 || o[u] != 0 { // otherwise the unit still costs as its whole
			low[u] = min(r.of(u), o.of(u))
		}
	}
	return low
}
