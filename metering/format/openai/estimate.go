package openai

import "math"

// basis is what a count of text without a usage rests on.
type basis uint8

const (
	byEvents basis = iota // events, and how many tokens come in one; of long events, their bytes
	byBytes               // bytes, and how many a token takes
)

// estimator turns what was delivered into tokens.
type estimator struct {
	by                        basis
	steady                    bool // several accounts have shown how many tokens come in one event
	prompt, bytes, perDelta   float64
	pace, begin, answer, part float64
}

// longToken is the length in bytes up to which a piece of text is taken for one
// token. Longer tokens are rare in the vocabularies of 2026.
const longToken = 16

// long is the length in bytes above which an event has more tokens than events
// usually have: what a server held back comes in one, such as a whole tool call.
func (e *estimator) long() float64 {
	return max(1, e.perDelta) * max(longToken, 4*e.bytes)
}

// amount is what was delivered of one choice.
type amount struct {
	deltas     int64 // events in which the model wrote something
	bytes      int64 // of text in all of them
	words      int64 // of these, what is in members that are known to hold words of the model
	exact      int64 // tokens that the backend listed one by one
	listed     int64 // bytes of the text of those tokens
	told       int64 // bytes of the text that came with them
	loose      int64 // events whose tokens it did not list
	looseBytes int64
	long       int64 // of the loose ones, those that are long
	longBytes  int64
	longTokens int64
	silent     int64 // tokens of events without text, which a tokenizer is not shown
}

// add adds what one event delivered.
func (a *amount) add(d *delta, e *estimator) {
	a.deltas++
	a.bytes += d.bytes
	a.words += d.bytes - d.foreign
	if d.bytes == 0 {
		a.silent += max(1, d.exact)
	}
	if d.exact > 0 {
		a.exact += d.exact
		a.addRest(d, e)
		return
	}
	a.loose++
	a.looseBytes += d.bytes
	if float64(d.bytes) > e.long() {
		a.long++
		a.longBytes += d.bytes
		a.longTokens += max(tokensFor(d.bytes, e.bytes), int64(math.Round(e.perDelta)))
	}
}

// addRest counts text beyond the tokens that are listed by its bytes: a list may lack
// reasoning or calls, or have been cut off. A third more text than the list has is the
// way in which some servers write tokens, and so is, in a stream, more that is no
// longer than these tokens can be.
func (a *amount) addRest(d *delta, e *estimator) {
	switch {
	case d.listed > 0:
		a.listed, a.told = a.listed+d.listed, a.told+d.bytes
	case d.partial:
		a.listed, a.told = a.listed+d.exact*DefaultBytesPerToken, a.told+d.bytes
	}
	slack := int64(longToken)
	switch {
	case d.partial:
	case d.document:
		slack = max(slack, a.listed/3)
	default:
		slack = max(slack, a.listed/3, a.exact*longToken-a.listed)
	}
	if rest := a.told - a.listed; rest > slack {
		a.told -= rest
		a.looseBytes += rest
		a.longBytes += rest
		a.longTokens += tokensFor(rest, e.bytes)
	}
}

// least is a count that is certain: the tokens that the backend listed, and one for
// each other event.
func (a *amount) least() int64 { return a.exact + a.loose }

// tokens is the best count of an amount: never less than one for each event, and
// never more than its bytes where it is only bytes.
func (e *estimator) tokens(a *amount) int64 {
	if e.by == byBytes {
		return a.exact + max(min(tokensFor(a.looseBytes, e.bytes), a.looseBytes), a.loose)
	}
	short := a.loose - a.long
	usual := int64(math.Round(float64(short) * e.perDelta))
	return a.exact + max(min(usual, a.looseBytes-a.longBytes), short) + a.longTokens
}

// tokensFor is how many tokens so many bytes are at a ratio, rounded up.
func tokensFor(bytes int64, bytesPerToken float64) int64 {
	return int64(math.Ceil(float64(bytes) / bytesPerToken))
}
