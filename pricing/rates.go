package pricing

import (
	"errors"
	"fmt"
	"math"
	"math/bits"

	"sluice.example/sluice/l402"
)

// Rates is what one model costs at one moment, all integers. A zero rate does
// not apply. The JSON names are those of every challenge, quote and model
// listing.
type Rates struct {
	InputMsatPerMtok       int64 `json:"input_msat_per_mtok,omitempty"`        // msat per million prompt tokens
	CachedInputMsatPerMtok int64 `json:"cached_input_msat_per_mtok,omitempty"` // msat per million prompt tokens served from a cache; zero: the input rate
	OutputMsatPerMtok      int64 `json:"output_msat_per_mtok,omitempty"`       // msat per million completion tokens
	GPUSecondMsat          int64 `json:"gpu_second_msat,omitempty"`            // msat per second of GPU busy time
	CallMsat               int64 `json:"call_msat,omitempty"`                  // msat per answered call
	MiBMsat                int64 `json:"mib_msat,omitempty"`                   // msat per 2^20 bytes delivered
	SecondMsat             int64 `json:"second_msat,omitempty"`                // msat per second of wall time
}

// MaxRate bounds every single rate, in its own unit, so that no sum of parts
// can overflow: 10^15 is 10 bitcoin per million tokens.
const MaxRate int64 = 1_000_000_000_000_000

// Usage is what one request consumed. Negative counts are invalid.
type Usage struct {
	InputTokens       int64 `json:"input_tokens,omitempty"`        // prompt tokens, cached ones included
	CachedInputTokens int64 `json:"cached_input_tokens,omitempty"` // the part of InputTokens that a prompt cache served
	OutputTokens      int64 `json:"output_tokens,omitempty"`       // completion tokens, reasoning and tool calls included
	Calls             int64 `json:"calls,omitempty"`
	Bytes             int64 `json:"bytes,omitempty"`      // delivered to the client
	Micros            int64 `json:"micros,omitempty"`     // wall time in microseconds
	GPUMicros         int64 `json:"gpu_micros,omitempty"` // GPU busy time in microseconds
}

// ErrUsage reports a usage or rate outside its bounds.
var ErrUsage = errors.New("usage or rate out of range")

// Validate fails with ErrUsage when a rate is negative or above MaxRate.
func (r Rates) Validate() error {
	for _, v := range []int64{r.InputMsatPerMtok, r.CachedInputMsatPerMtok, r.OutputMsatPerMtok,
		r.GPUSecondMsat, r.CallMsat, r.MiBMsat, r.SecondMsat} {
		if v < 0 || v > MaxRate {
			return fmt.Errorf("rate %d is not within 0..%d: %w", v, MaxRate, ErrUsage)
		}
	}
	return nil
}

// Cost is the exact rational sum of the parts of u at the rates r, rounded up
// once, at the end, to a whole millisatoshi. It fails with ErrUsage when a
// count is negative or the sum exceeds l402.MaxMsat.
func (r Rates) Cost(u Usage) (l402.Msat, error) {
	cachedRate := r.CachedInputMsatPerMtok
	if cachedRate == 0 {
		cachedRate = r.InputMsatPerMtok
	}
	var sum fraction
	sum.add(u.InputTokens-u.CachedInputTokens, r.InputMsatPerMtok, tokenUnit)
	sum.add(u.CachedInputTokens, cachedRate, tokenUnit)
	sum.add(u.OutputTokens, r.OutputMsatPerMtok, tokenUnit)
	sum.add(u.Calls, r.CallMsat, 1)
	sum.add(u.Bytes, r.MiBMsat, byteUnit)
	sum.add(u.Micros, r.SecondMsat, microUnit)
	sum.add(u.GPUMicros, r.GPUSecondMsat, microUnit)
	return sum.ceil()
}

// Bound is the most that a request can cost whose usage is at most u: as
// Cost, with every input token at the dearer of its two rates. It is what a
// reservation holds.
func (r Rates) Bound(u Usage) (l402.Msat, error) {
	u.CachedInputTokens = 0
	if r.CachedInputMsatPerMtok > r.InputMsatPerMtok {
		u.CachedInputTokens = u.InputTokens
	}
	return r.Cost(u)
}

// The parts of a cost have three denominators: a million tokens, a million
// microseconds and 2^20 bytes. Their least common multiple is 2^20 · 5^6, in
// which every part is a whole number and the sum is exact.
const (
	tokenUnit   = 1_000_000
	microUnit   = 1_000_000
	byteUnit    = 1 << 20
	denominator = byteUnit * 15_625
)

// fraction is a 128-bit numerator over the common denominator.
type fraction struct {
	hi, lo uint64
	bad    bool
}

// add adds count·rate/unit. unit divides denominator.
func (f *fraction) add(count, rate, unit int64) {
	if count < 0 || rate < 0 || rate > MaxRate {
		f.bad = true
		return
	}
	// (hi, lo) = count · rate, below 2^113; times a factor below 2^34. Where
	// that leaves 128 bits, the cost is far beyond MaxMsat.
	hi, lo := bits.Mul64(uint64(count), uint64(rate))
	factor := uint64(denominator / unit)
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
