package pricing_test

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// exact is the cost by definition, in rationals: nil when it is out of range.
func exact(r pricing.Rates, u pricing.Usage) *big.Int {
	cached := r.CachedInputMsatPerMtok
	if cached == 0 {
		cached = r.InputMsatPerMtok
	}
	sum := new(big.Rat)
	for _, p := range [][3]int64{
		{u.InputTokens - u.CachedInputTokens, r.InputMsatPerMtok, 1e6},
		{u.CachedInputTokens, cached, 1e6},
		{u.OutputTokens, r.OutputMsatPerMtok, 1e6},
		{u.Calls, r.CallMsat, 1},
		{u.Bytes, r.MiBMsat, 1 << 20},
		{u.Micros, r.SecondMsat, 1e6},
		{u.GPUMicros, r.GPUSecondMsat, 1e6},
	} {
		if p[0] < 0 {
			return nil
		}
		part := new(big.Rat).SetInt64(p[0])
		part.Mul(part, new(big.Rat).SetInt64(p[1]))
		sum.Add(sum, part.Quo(part, new(big.Rat).SetInt64(p[2])))
	}
	q, rem := new(big.Int).QuoRem(sum.Num(), sum.Denom(), new(big.Int))
	if rem.Sign() != 0 {
		q.Add(q, big.NewInt(1))
	}
	if !q.IsInt64() || !l402.Msat(q.Int64()).Valid() {
		return nil
	}
	return q
}

// magnitudes draws numbers of every size, small ones as often as large ones.
func magnitudes(t *rapid.T, label string, most int64) int64 {
	shift := rapid.IntRange(0, 62).Draw(t, label+" bits")
	return min(rapid.Int64Range(0, math.MaxInt64>>shift).Draw(t, label), most)
}

func TestCostIsTheExactSumRoundedUpOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := func(l string) int64 { return magnitudes(t, l, pricing.MaxRate) }
		count := func(l string) int64 { return magnitudes(t, l, math.MaxInt64) }
		r := pricing.Rates{
			InputMsatPerMtok: rate("in"), CachedInputMsatPerMtok: rate("cached"), OutputMsatPerMtok: rate("out"),
			GPUSecondMsat: rate("gpu"), CallMsat: rate("call"), MiBMsat: rate("mib"), SecondMsat: rate("second"),
		}
		u := pricing.Usage{
			InputTokens: count("input"), CachedInputTokens: count("cached input"), OutputTokens: count("output"),
			Calls: count("calls"), Bytes: count("bytes"), Micros: count("micros"), GPUMicros: count("gpu micros"),
		}
		if rapid.Bool().Draw(t, "cached within input") {
			u.CachedInputTokens = min(u.CachedInputTokens, u.InputTokens)
		}
		want := exact(r, u)
		got, err := r.Cost(u)
		if want == nil {
			if !errors.Is(err, pricing.ErrUsage) {
				t.Fatalf("cost %d, error %v; want ErrUsage", got, err)
			}
			return
		}
		if err != nil || int64(got) != want.Int64() {
			t.Fatalf("cost %d, error %v; want %v", got, err, want)
		}
		bound, err := r.Bound(u)
		if err == nil && bound < got {
			t.Fatalf("bound %d is below the cost %d", bound, got)
		}
	})
}

func TestNoUsageWithinTheBoundCostsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := pricing.Rates{
			InputMsatPerMtok:       rapid.Int64Range(0, 1e9).Draw(t, "in"),
			CachedInputMsatPerMtok: rapid.Int64Range(0, 1e9).Draw(t, "cached"),
			OutputMsatPerMtok:      rapid.Int64Range(0, 1e9).Draw(t, "out"),
		}
		top := pricing.Usage{
			InputTokens: rapid.Int64Range(0, 1e6).Draw(t, "input"), OutputTokens: rapid.Int64Range(0, 1e6).Draw(t, "output"),
		}
		bound, err := r.Bound(top)
		if err != nil {
			t.Fatal(err)
		}
		u := pricing.Usage{
			InputTokens:  rapid.Int64Range(0, top.InputTokens).Draw(t, "used input"),
			OutputTokens: rapid.Int64Range(0, top.OutputTokens).Draw(t, "used output"),
		}
		u.CachedInputTokens = rapid.Int64Range(0, u.InputTokens).Draw(t, "used cached")
		if cost, err := r.Cost(u); err != nil || cost > bound {
			t.Fatalf("cost %d (%v) of %+v is above the bound %d of %+v", cost, err, u, bound, top)
		}
	})
}

func TestCost(t *testing.T) {
	card := pricing.Rates{InputMsatPerMtok: 300_000, OutputMsatPerMtok: 900_000}
	for name, c := range map[string]struct {
		rates pricing.Rates
		usage pricing.Usage
		want  l402.Msat
	}{
		"nothing":                       {card, pricing.Usage{}, 0},
		"a short chat":                  {card, pricing.Usage{InputTokens: 20, OutputTokens: 32}, 35}, // 6 + 28.8
		"two thirds of a msat, twice":   {pricing.Rates{InputMsatPerMtok: 666_667, OutputMsatPerMtok: 666_667}, pricing.Usage{InputTokens: 1, OutputTokens: 1}, 2},
		"one token of the cheapest":     {pricing.Rates{InputMsatPerMtok: 1}, pricing.Usage{InputTokens: 1}, 1},
		"cached tokens at their rate":   {pricing.Rates{InputMsatPerMtok: 1e6, CachedInputMsatPerMtok: 1e5}, pricing.Usage{InputTokens: 100, CachedInputTokens: 90}, 19},
		"cached tokens without a rate":  {pricing.Rates{InputMsatPerMtok: 1e6}, pricing.Usage{InputTokens: 100, CachedInputTokens: 90}, 100},
		"a call":                        {pricing.Rates{CallMsat: 7}, pricing.Usage{Calls: 3}, 21},
		"one byte":                      {pricing.Rates{MiBMsat: 1 << 20}, pricing.Usage{Bytes: 1}, 1},
		"a third of a second":           {pricing.Rates{SecondMsat: 3}, pricing.Usage{Micros: 333_334}, 2},
		"gpu seconds":                   {pricing.Rates{GPUSecondMsat: 1000}, pricing.Usage{GPUMicros: 1_500_000}, 1500},
		"all the money there is":        {pricing.Rates{CallMsat: 1_000_000_000_000_000}, pricing.Usage{Calls: 2100}, l402.MaxMsat},
		"many tokens at a high price":   {pricing.Rates{InputMsatPerMtok: pricing.MaxRate}, pricing.Usage{InputTokens: 1_000_000_000}, 1_000_000_000_000_000_000},
		"rates that do not apply cost0": {pricing.Rates{}, pricing.Usage{InputTokens: math.MaxInt64, Bytes: math.MaxInt64}, 0},
	} {
		if got, err := c.rates.Cost(c.usage); err != nil || got != c.want {
			t.Errorf("%s: %d, %v; want %d", name, got, err, c.want)
		}
	}
}

func TestCostRefusesWhatIsOutOfRange(t *testing.T) {
	one := pricing.Rates{InputMsatPerMtok: 1, CachedInputMsatPerMtok: 1, OutputMsatPerMtok: 1, CallMsat: 1, MiBMsat: 1, SecondMsat: 1, GPUSecondMsat: 1}
	for name, u := range map[string]pricing.Usage{
		"negative input":               {InputTokens: -1},
		"negative output":              {OutputTokens: -1},
		"negative calls":               {Calls: -1},
		"negative bytes":               {Bytes: -1},
		"negative time":                {Micros: -1},
		"negative gpu time":            {GPUMicros: -1},
		"negative cached":              {CachedInputTokens: -1},
		"the difference that wraps":    {InputTokens: math.MaxInt64, CachedInputTokens: -1},
		"more cached than there is":    {InputTokens: 1, CachedInputTokens: 2},
		"smallest integer":             {OutputTokens: math.MinInt64},
		"more than there is of money":  {Calls: math.MaxInt64},
		"sums beyond the money":        {Calls: int64(l402.MaxMsat), OutputTokens: 1},
		"negative, at a rate of zero":  {InputTokens: -5},
		"cached more, at equal prices": {CachedInputTokens: 1},
	} {
		if got, err := one.Cost(u); !errors.Is(err, pricing.ErrUsage) {
			t.Errorf("%s: %d, %v; want ErrUsage", name, got, err)
		}
	}
	if _, err := (pricing.Rates{CallMsat: -1}).Cost(pricing.Usage{Calls: 1}); !errors.Is(err, pricing.ErrUsage) {
		t.Error("a negative rate was taken")
	}
	if _, err := (pricing.Rates{CallMsat: 2_000_000_000_000_000}).Cost(pricing.Usage{Calls: 1}); !errors.Is(err, pricing.ErrUsage) {
		t.Error("a rate above the maximum was taken")
	}
}

func TestValidate(t *testing.T) {
	if err := (pricing.Rates{InputMsatPerMtok: pricing.MaxRate}).Validate(); err != nil {
		t.Error(err)
	}
	for _, r := range []pricing.Rates{
		{InputMsatPerMtok: -1}, {CachedInputMsatPerMtok: -1}, {OutputMsatPerMtok: -1}, {GPUSecondMsat: -1},
		{CallMsat: -1}, {MiBMsat: -1}, {SecondMsat: -1}, {MiBMsat: pricing.MaxRate + 1},
	} {
		if err := r.Validate(); !errors.Is(err, pricing.ErrUsage) {
			t.Errorf("%+v: %v; want ErrUsage", r, err)
		}
	}
}

func BenchmarkCost(b *testing.B) {
	r := pricing.Rates{InputMsatPerMtok: 300_000, OutputMsatPerMtok: 900_000, MiBMsat: 5, CallMsat: 1}
	u := pricing.Usage{InputTokens: 900, OutputTokens: 256, Calls: 1, Bytes: 30_000, Micros: 4_000_000}
	for b.Loop() {
		if _, err := r.Cost(u); err != nil {
			b.Fatal(err)
		}
	}
}
