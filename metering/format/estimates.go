package format

import "math"

// basis is what a count of text without a usage rests on.
type basis uint8

// Estimates are the ratios by which what was delivered is turned into tokens.
type Estimates struct {
	By                        basis
	Steady                    bool // several accounts have shown how many tokens come in one event
	Prompt, Bytes, PerDelta   float64
	Pace, Begin, Answer, Part float64
	Picture                   float64 // what a picture takes that nothing was learned of
}

// LongToken is the length in bytes up to which a piece of text is taken for one
// token. Longer tokens are rare in the vocabularies of 2026.
const LongToken = 16

// Long is the length in bytes above which an event has more tokens than events
// usually have: what a server held back comes in one, such as a whole tool call.
func (e *Estimates) Long() float64 {
	return max(1, e.PerDelta) * max(LongToken, 4*e.Bytes)
}

// TokensFor is how many tokens so many bytes are at a ratio, rounded up.
func TokensFor(bytes int64, bytesPerToken float64) int64 {
	return int64(math.Ceil(float64(bytes) / bytesPerToken))
}

const (
	byEvents basis = iota // events, and how many tokens come in one; of long events, their bytes
	ByBytes               // bytes, and how many a token takes
)

// DenseBytes is how many bytes of text a token has at least, as a rule.
const DenseBytes = 2
