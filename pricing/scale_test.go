package pricing_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"sluice.example/sluice/pricing"
)

func TestScale(t *testing.T) {
	r := pricing.Rates{InputMsatPerMtok: 100, CachedInputMsatPerMtok: 1, OutputMsatPerMtok: pricing.MaxRate, CallMsat: 3}
	for m, want := range map[float64]pricing.Rates{
		1:           r,
		1.5:         {InputMsatPerMtok: 150, CachedInputMsatPerMtok: 2, OutputMsatPerMtok: pricing.MaxRate, CallMsat: 5}, // 4.5 up
		0.1:         {InputMsatPerMtok: 10, CachedInputMsatPerMtok: 1, OutputMsatPerMtok: pricing.MaxRate / 10, CallMsat: 1},
		math.Inf(1): {InputMsatPerMtok: pricing.MaxRate, CachedInputMsatPerMtok: pricing.MaxRate, OutputMsatPerMtok: pricing.MaxRate, CallMsat: pricing.MaxRate},
		0:           r,
		-2:          r,
		math.NaN():  r,
	} {
		if got := r.Scale(m); got != want {
			t.Errorf("times %g: %+v, want %+v", m, got, want)
		}
	}
	if r.InputMsatPerMtok != 100 {
		t.Error("scaling changed the card it began with")
	}
}

func TestMinNeverCostsMoreThanEither(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		card := func(label string) pricing.Rates {
			rate := func(l string) int64 { return rapid.Int64Range(0, 1000).Draw(t, label+l) * 1000 }
			r := pricing.Rates{InputMsatPerMtok: rate("in"), OutputMsatPerMtok: rate("out"), GPUSecondMsat: rate("gpu"), CallMsat: rate("call"), MiBMsat: rate("mib"), SecondMsat: rate("s")}
			if rapid.Bool().Draw(t, label+"has a cached rate") {
				r.CachedInputMsatPerMtok = rate("cached")
			}
			return r
		}
		a, b := card("a"), card("b")
		low := a.Min(b)
		if low != b.Min(a) || low.Min(a) != low || a.Min(a) != a {
			t.Fatalf("%+v of %+v and %+v", low, a, b)
		}
		input := rapid.Int64Range(0, 1e6).Draw(t, "input")
		u := pricing.Usage{InputTokens: input, CachedInputTokens: rapid.Int64Range(0, input).Draw(t, "cached"), OutputTokens: rapid.Int64Range(0, 1e6).Draw(t, "output"), Calls: 1, Bytes: 5e6, Micros: 7e6, GPUMicros: 3e6}
		cost := func(r pricing.Rates) int64 {
			c, err := r.Cost(u)
			if err != nil {
				t.Fatal(err)
			}
			return int64(c)
		}
		if c := cost(low); c > cost(a) || c > cost(b) {
			t.Fatalf("%d at %+v, but %d and %d", c, low, cost(a), cost(b))
		}
	})
}
