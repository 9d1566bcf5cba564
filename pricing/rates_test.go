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

// exact returns the cost by definition, in rationals. It returns nil if the cost is out of range.
func exact(r pricing.Rates, u pricing.Units) *big.Int {
	sum := new(big.Rat)
	for _, unit := range pricing.AllUnits() {
		rate, rest := r[unit], big.NewInt(u[unit])
		if whole := unit.Of(); whole != pricing.NoUnit && rate == 0 {
			rate = r[whole]
		}
		for _, part := range pricing.AllUnits() {
			if part.Of() == unit {
				rest.Sub(rest, big.NewInt(u[part]))
			}
		}
		if u[unit] < 0 || rest.Sign() < 0 {
			return nil
		}
		cost := new(big.Rat).SetInt(rest.Mul(rest, big.NewInt(rate)))
		sum.Add(sum, cost.Quo(cost, new(big.Rat).SetInt64(unit.Per())))
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

// magnitudes draws numbers of every size. Small numbers are as likely as large numbers.
func magnitudes(t *rapid.T, label string, most int64) int64 {
	shift := rapid.IntRange(0, 62).Draw(t, label+" bits")
	return min(rapid.Int64Range(0, math.MaxInt64>>shift).Draw(t, label), most)
}

func TestCostIsTheExactSumRoundedUpOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r pricing.Rates
		var u pricing.Units
		few := rapid.Bool().Draw(t, "few units")
		for _, unit := range pricing.AllUnits() {
			if few && rapid.IntRange(0, 3).Draw(t, "left out") > 0 {
				continue
			}
			r[unit] = magnitudes(t, unit.RateName(), pricing.MaxRate)
			u[unit] = magnitudes(t, unit.String(), math.MaxInt64)
		}
		if rapid.Bool().Draw(t, "parts within their wholes") {
			u = u.Clamped()
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
		var r pricing.Rates
		var top, u pricing.Units
		for _, unit := range pricing.AllUnits() {
			if rapid.Bool().Draw(t, "has a rate") {
				r[unit] = rapid.Int64Range(0, 1e6).Draw(t, unit.RateName())
			}
			if unit.Of() == pricing.NoUnit { // the number of parts is not known beforehand
				top[unit] = rapid.Int64Range(0, 1e6).Draw(t, "most "+unit.String())
				u[unit] = rapid.Int64Range(0, top[unit]).Draw(t, unit.String())
			}
		}
		rest := u
		for _, unit := range pricing.AllUnits() {
			if whole := unit.Of(); whole != pricing.NoUnit {
				u[unit] = rapid.Int64Range(0, rest[whole]).Draw(t, unit.String())
				rest[whole] -= u[unit]
			}
		}
		bound, err := r.Bound(top)
		if err != nil {
			t.Fatal(err)
		}
		if cost, err := r.Cost(u); err != nil || cost > bound {
			t.Fatalf("cost %d (%v) of %v is above the bound %d of %v", cost, err, u, bound, top)
		}
	})
}

// TestBoundHoldsTheDearestPart checks the bound for all parts, because it is not known beforehand to
// which part a token belongs.
func TestBoundHoldsTheDearestPart(t *testing.T) {
	r := pricing.Rates{pricing.InputTokens: 2e6, pricing.CachedInputTokens: 1e6, pricing.CacheWriteTokens: 3e6, pricing.LongCacheWriteTokens: 5e6,
		pricing.OutputTokens: 1e6}
	for _, c := range []struct {
		atMost pricing.Units
		want   l402.Msat
	}{
		{pricing.Units{pricing.InputTokens: 10}, 50},
		{pricing.Units{pricing.InputTokens: 10, pricing.CachedInputTokens: 10, pricing.OutputTokens: 4}, 54},
		{pricing.Units{pricing.OutputTokens: 4, pricing.AudioOutputTokens: 4}, 4},
	} {
		if got, err := r.Bound(c.atMost); err != nil || got != c.want {
			t.Errorf("bound of %v: %d, %v; want %d", c.atMost, got, err, c.want)
		}
	}
	for _, c := range []struct {
		rates  pricing.Rates
		atMost pricing.Units
	}{
		{pricing.Rates{pricing.InputTokens: -5}, pricing.Units{pricing.InputTokens: 10}},
		{r, pricing.Units{pricing.CachedInputTokens: -1}},
	} {
		if got, err := c.rates.Bound(c.atMost); !errors.Is(err, pricing.ErrUsage) {
			t.Errorf("%v at %v: a bound of %d, %v", c.atMost, c.rates, got, err)
		}
	}
}

func TestCost(t *testing.T) {
	card := pricing.Rates{pricing.InputTokens: 300_000, pricing.OutputTokens: 900_000}
	for name, c := range map[string]struct {
		rates pricing.Rates
		usage pricing.Units
		want  l402.Msat
	}{
		"nothing":                       {card, pricing.Units{}, 0},
		"a short chat":                  {card, pricing.Units{pricing.InputTokens: 20, pricing.OutputTokens: 32}, 35}, // 6 + 28.8
		"two thirds of a msat, twice":   {pricing.Rates{pricing.InputTokens: 666_667, pricing.OutputTokens: 666_667}, pricing.Units{pricing.InputTokens: 1, pricing.OutputTokens: 1}, 2},
		"one token of the cheapest":     {pricing.Rates{pricing.InputTokens: 1}, pricing.Units{pricing.InputTokens: 1}, 1},
		"cached tokens at their rate":   {pricing.Rates{pricing.InputTokens: 1e6, pricing.CachedInputTokens: 1e5}, pricing.Units{pricing.InputTokens: 100, pricing.CachedInputTokens: 90}, 19},
		"cached tokens without a rate":  {pricing.Rates{pricing.InputTokens: 1e6}, pricing.Units{pricing.InputTokens: 100, pricing.CachedInputTokens: 90}, 100},
		"a call":                        {pricing.Rates{pricing.Calls: 7}, pricing.Units{pricing.Calls: 3}, 21},
		"one byte":                      {pricing.Rates{pricing.Bytes: 1 << 20}, pricing.Units{pricing.Bytes: 1}, 1},
		"a third of a second":           {pricing.Rates{pricing.WallMicros: 3}, pricing.Units{pricing.WallMicros: 333_334}, 2},
		"gpu seconds":                   {pricing.Rates{pricing.GPUMicros: 1000}, pricing.Units{pricing.GPUMicros: 1_500_000}, 1500},
		"all the money there is":        {pricing.Rates{pricing.Calls: 1_000_000_000_000_000}, pricing.Units{pricing.Calls: 2100}, l402.MaxMsat},
		"many tokens at a high price":   {pricing.Rates{pricing.InputTokens: pricing.MaxRate}, pricing.Units{pricing.InputTokens: 1_000_000_000}, 1_000_000_000_000_000_000},
		"parts of sound and text":       {pricing.Rates{pricing.InputTokens: 1e6, pricing.AudioInputTokens: 3e6, pricing.CachedInputTokens: 1e5}, pricing.Units{pricing.InputTokens: 40, pricing.AudioInputTokens: 10, pricing.CachedInputTokens: 20}, 42},
		"three searches and a call":     {pricing.Rates{pricing.Searches: 2000, pricing.Calls: 5}, pricing.Units{pricing.Searches: 3, pricing.Calls: 1, pricing.Documents: 210}, 6005},
		"half a second of sound":        {pricing.Rates{pricing.AudioMicros: 60}, pricing.Units{pricing.AudioMicros: 500_000}, 30},
		"a text to be spoken":           {pricing.Rates{pricing.Characters: 15_000_000}, pricing.Units{pricing.Characters: 11}, 165},
		"rates that do not apply cost0": {pricing.Rates{}, pricing.Units{pricing.InputTokens: math.MaxInt64, pricing.Bytes: math.MaxInt64}, 0},
	} {
		if got, err := c.rates.Cost(c.usage); err != nil || got != c.want {
			t.Errorf("%s: %d, %v; want %d", name, got, err, c.want)
		}
	}
}

func TestCostRefusesWhatIsOutOfRange(t *testing.T) {
	one := pricing.Rates{pricing.InputTokens: 1, pricing.CachedInputTokens: 1, pricing.OutputTokens: 1, pricing.Calls: 1, pricing.Bytes: 1, pricing.WallMicros: 1, pricing.GPUMicros: 1}
	for name, u := range map[string]pricing.Units{
		"negative input":               {pricing.InputTokens: -1},
		"negative output":              {pricing.OutputTokens: -1},
		"negative calls":               {pricing.Calls: -1},
		"negative bytes":               {pricing.Bytes: -1},
		"negative time":                {pricing.WallMicros: -1},
		"negative gpu time":            {pricing.GPUMicros: -1},
		"negative cached":              {pricing.CachedInputTokens: -1},
		"the difference that wraps":    {pricing.InputTokens: math.MaxInt64, pricing.CachedInputTokens: -1},
		"more cached than there is":    {pricing.InputTokens: 1, pricing.CachedInputTokens: 2},
		"smallest integer":             {pricing.OutputTokens: math.MinInt64},
		"more than there is of money":  {pricing.Calls: math.MaxInt64},
		"sums beyond the money":        {pricing.Calls: int64(l402.MaxMsat), pricing.OutputTokens: 1},
		"negative, at a rate of zero":  {pricing.InputTokens: -5},
		"parts more than their whole":  {pricing.InputTokens: 4, pricing.CachedInputTokens: 3, pricing.CacheWriteTokens: 2},
		"parts that wrap together":     {pricing.InputTokens: 1, pricing.CachedInputTokens: math.MaxInt64, pricing.CacheWriteTokens: math.MaxInt64},
		"a count of no unit":           {pricing.NoUnit: 1},
		"cached more, at equal prices": {pricing.CachedInputTokens: 1},
	} {
		if got, err := one.Cost(u); !errors.Is(err, pricing.ErrUsage) {
			t.Errorf("%s: %d, %v; want ErrUsage", name, got, err)
		}
	}
	if _, err := (pricing.Rates{pricing.Calls: -1}).Cost(pricing.Units{pricing.Calls: 1}); !errors.Is(err, pricing.ErrUsage) {
		t.Error("a negative rate was taken")
	}
	if _, err := (pricing.Rates{pricing.Calls: 2_000_000_000_000_000}).Cost(pricing.Units{pricing.Calls: 1}); !errors.Is(err, pricing.ErrUsage) {
		t.Error("a rate above the maximum was taken")
	}
}

func TestValidate(t *testing.T) {
	if err := (pricing.Rates{pricing.InputTokens: pricing.MaxRate}).Validate(); err != nil {
		t.Error(err)
	}
	for _, r := range []pricing.Rates{
		{pricing.InputTokens: -1}, {pricing.CachedInputTokens: -1}, {pricing.OutputTokens: -1}, {pricing.GPUMicros: -1},
		{pricing.NoUnit: 1}, {pricing.Calls: -1}, {pricing.Bytes: -1}, {pricing.WallMicros: -1}, {pricing.Bytes: pricing.MaxRate + 1},
	} {
		if err := r.Validate(); !errors.Is(err, pricing.ErrUsage) {
			t.Errorf("%+v: %v; want ErrUsage", r, err)
		}
	}
}

func BenchmarkCost(b *testing.B) {
	r := pricing.Rates{pricing.InputTokens: 300_000, pricing.OutputTokens: 900_000, pricing.Bytes: 5, pricing.Calls: 1}
	u := pricing.Units{pricing.InputTokens: 900, pricing.OutputTokens: 256, pricing.Calls: 1, pricing.Bytes: 30_000, pricing.WallMicros: 4_000_000}
	for b.Loop() {
		if _, err := r.Cost(u); err != nil {
			b.Fatal(err)
		}
	}
}
