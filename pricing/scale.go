package pricing

import "math"

// parts are the rates in a fixed order, for arithmetic over all of them.
func (r *Rates) parts() [7]*int64 {
	return [...]*int64{&r.InputMsatPerMtok, &r.CachedInputMsatPerMtok, &r.OutputMsatPerMtok,
		&r.GPUSecondMsat, &r.CallMsat, &r.MiBMsat, &r.SecondMsat}
}

// Scale multiplies every rate, rounded to the nearest msat. A rate that applies
// stays at least 1 and at most MaxRate. A multiplier that is not a positive
// number changes nothing.
func (r Rates) Scale(multiplier float64) Rates {
	if !(multiplier > 0) {
		return r
	}
	for _, v := range r.parts() {
		if *v > 0 {
			*v = int64(math.Round(min(max(float64(*v)*multiplier, 1), float64(MaxRate))))
		}
	}
	return r
}

// Min is the lower of two rate cards, rate by rate, so that no usage costs
// more than at either.
func (r Rates) Min(o Rates) Rates {
	both := r.CachedInputMsatPerMtok == 0 && o.CachedInputMsatPerMtok == 0
	for _, c := range []*Rates{&r, &o} {
		if c.CachedInputMsatPerMtok == 0 {
			c.CachedInputMsatPerMtok = c.InputMsatPerMtok
		}
	}
	other := o.parts()
	for i, v := range r.parts() {
		*v = min(*v, *other[i])
	}
	if both {
		r.CachedInputMsatPerMtok = 0 // as the input rate, still
	}
	return r
}
