package gpu

import (
	"math"
	"math/bits"
)

// Quote is what is known of a request before it runs.
type Quote struct {
	Input, Output int64 // tokens, from above
	// Limit is what the request pays at most, in msat: backends that ask more
	// are not used. Zero: no limit.
	Limit int64
}

func (q Quote) pays(ask int64) bool { return q.Limit <= 0 || ask <= q.Limit }

// Ask is what a backend's owner asks for a request, in msat. It is called with
// the fleet's lock held: at once, without I/O, safe for concurrent use. What
// the buyer pays does not depend on it.
type Ask interface {
	Cost(inputTokens, outputTokens int64) (msat int64)
}

// FixedAsk is a rate card in msat per million tokens, 0..MaxAsk each.
type FixedAsk struct {
	Input  int64 `json:"input_msat_per_mtok"`
	Output int64 `json:"output_msat_per_mtok"`
}

// Cost implements Ask: the exact cost rounded up once, at most MaxInt64.
func (a FixedAsk) Cost(inputTokens, outputTokens int64) int64 {
	hi, lo := bits.Mul64(uint64(max(0, a.Input)), uint64(max(0, inputTokens)))
	hi2, lo2 := bits.Mul64(uint64(max(0, a.Output)), uint64(max(0, outputTokens)))
	const million = 1e6
	lo, carry := bits.Add64(lo, lo2, 0)
	hi, carry = bits.Add64(hi, hi2, carry)
	lo, up := bits.Add64(lo, million-1, 0)
	hi, over := bits.Add64(hi, 0, up)
	if carry+over > 0 || hi >= million/2 {
		return math.MaxInt64
	}
	cost, _ := bits.Div64(hi, lo, million)
	return int64(min(cost, math.MaxInt64))
}

// ask is what b asks for a request of quote q; nothing where it has no price of
// its own.
func (b *Backend) ask(q Quote) int64 {
	if b.set.Ask == nil {
		return 0
	}
	return max(0, b.set.Ask.Cost(q.Input, q.Output))
}
