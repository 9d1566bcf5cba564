package openai

import (
	"math"

	"sluice.example/sluice/metering/format"
)

// amount is what was delivered of one choice.
type amount struct {
	deltas     int64 // events in which the model wrote something
	bytes      int64 // of text in all of them
	words      int64 // of these, what is in members that are known to hold words of the model
	dense      int64 // of these, what tokens must have been spent on
	odd        int64 // events of which nothing tells whether the model wrote something
	pictures   int64
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
func (a *amount) add(d *delta, e *format.Estimates) {
	a.deltas++
	a.bytes += d.bytes
	a.words += d.bytes - d.foreign
	a.dense += d.dense
	a.pictures += d.pictures
	if !d.certain() {
		a.odd++
	}
	if d.bytes == 0 {
		a.silent = format.AddSat(a.silent+max(1, d.exact), picturesFor(d.pictures, e))
	}
	if d.exact > 0 {
		a.exact += d.exact
		a.addRest(d, e)
		return
	}
	a.loose++
	size := d.size()
	a.looseBytes += size
	if float64(size) > e.Long() {
		a.long++
		a.longBytes += size
		a.longTokens += max(format.TokensFor(size, e.Bytes), int64(math.Round(e.PerDelta)))
	}
}

// size is how many bytes of an event are counted as text: all, but for runs of signs,
// whose tokens are long, where they are most of it.
func (d *delta) size() int64 {
	return d.foreign + min(d.bytes-d.foreign, 4*d.dense+format.LongToken)
}

// addRest counts text beyond the tokens that are listed by its bytes: a list may lack
// reasoning or calls, or have been cut off. A third more text than the list has is the
// way in which some servers write tokens, and so is, in a stream, more that is no
// longer than these tokens can be.
func (a *amount) addRest(d *delta, e *format.Estimates) {
	switch {
	case d.listed > 0:
		a.listed, a.told = a.listed+d.listed, a.told+d.bytes
	case d.partial:
		a.listed, a.told = a.listed+d.exact*format.DefaultBytesPerToken, a.told+d.bytes
	}
	slack := int64(format.LongToken)
	switch {
	case d.partial:
	case d.document:
		slack = max(slack, a.listed/3)
	default:
		slack = max(slack, a.listed/3, a.exact*format.LongToken-a.listed)
	}
	if rest := a.told - a.listed; rest > slack {
		a.told -= rest
		a.looseBytes += rest
		a.longBytes += rest
		a.longTokens += format.TokensFor(rest, e.Bytes)
	}
}

// events is in how many of them the model wrote something for sure.
func (a *amount) events() int64 { return a.deltas - a.odd }

// least is a count that is certain: the tokens that the backend listed, and one for
// each other event in which the model wrote something for sure.
func (a *amount) least() int64 { return a.exact + a.loose - a.odd }

// picturesFor is how many tokens so many pictures are, of which a model makes none in
// words: as many as one takes in a prompt.
func picturesFor(n int64, e *format.Estimates) int64 { return format.MulSat(n, int64(e.Picture)) }

// tokens is the best count of an amount: never less than one for each event, and
// never more than its bytes where it is only bytes.
func (a *amount) tokens(e *format.Estimates) int64 {
	made := picturesFor(a.pictures, e)
	if e.By == format.ByBytes {
		return made + a.exact + max(min(format.TokensFor(a.looseBytes, e.Bytes), a.looseBytes), a.loose)
	}
	short := a.loose - a.long
	usual := int64(math.Round(float64(short) * e.PerDelta))
	return made + a.exact + max(min(usual, a.looseBytes-a.longBytes), short) + a.longTokens
}
