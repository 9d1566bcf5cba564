package pricing_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"sluice.example/sluice/pricing"
)

func TestScale(t *testing.T) {
	r := pricing.Rates{pricing.InputTokens: 100, pricing.CachedInputTokens: 1, pricing.OutputTokens: pricing.MaxRate, pricing.Calls: 3}
	for m, want := range map[float64]pricing.Rates{
		1:           r,
		1.5:         {pricing.InputTokens: 150, pricing.CachedInputTokens: 2, pricing.OutputTokens: pricing.MaxRate, pricing.Calls: 5}, // 4.5 is rounded up
		0.1:         {pricing.InputTokens: 10, pricing.CachedInputTokens: 1, pricing.OutputTokens: pricing.MaxRate / 10, pricing.Calls: 1},
		math.Inf(1): {pricing.InputTokens: pricing.MaxRate, pricing.CachedInputTokens: pricing.MaxRate, pricing.OutputTokens: pricing.MaxRate, pricing.Calls: pricing.MaxRate},
		0:           r,
		-2:          r,
		math.NaN():  r,
	} {
		if got := r.Scale(m); got != want {
			t.Errorf("times %g: %+v, want %+v", m, got, want)
		}
	}
	if r[pricing.InputTokens] != 100 {
		t.Error("scaling changed the card it began with")
	}
}

func TestMinNeverCostsMoreThanEither(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		card := func(label string) (r pricing.Rates) {
			for _, unit := range pricing.AllUnits() {
				if unit.Of() == pricing.NoUnit || rapid.Bool().Draw(t, label+" has a rate of "+unit.String()) {
					r[unit] = rapid.Int64Range(0, 1000).Draw(t, label+" "+unit.RateName()) * 1000
				}
			}
			return r
		}
		a, b := card("a"), card("b")
		low := a.Min(b)
		if low != b.Min(a) || low.Min(a) != low || a.Min(a) != a {
			t.Fatalf("%+v of %+v and %+v", low, a, b)
		}
		cost := func(r pricing.Rates, u pricing.Units) int64 {
			c, err := r.Cost(u)
			if err != nil {
				t.Fatal(err)
			}
			return int64(c)
		}
		var all pricing.Units
		for _, unit := range pricing.AllUnits() {
			var one pricing.Units // one of this unit, and so one of its whole
			one[unit], one[unit.Of()] = 1000, 1000
			one[pricing.NoUnit] = 0
			if c := cost(low, one); c != min(cost(a, one), cost(b, one)) {
				t.Fatalf("%v costs %d at %v, but %d and %d", one, c, low, cost(a, one), cost(b, one))
			}
			all[unit] = rapid.Int64Range(0, 1e6).Draw(t, unit.String())
		}
		all = all.Clamped()
		if c := cost(low, all); c > cost(a, all) || c > cost(b, all) {
			t.Fatalf("%d at %v, but %d and %d", c, low, cost(a, all), cost(b, all))
		}
	})
}
