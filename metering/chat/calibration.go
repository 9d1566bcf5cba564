package chat

import (
	"math"
	"sync"
	"time"
)

// What a Calibration says before it has learned anything. 4 bytes per token
// is what English text takes with vocabularies of 32,000 to 200,000 tokens;
// 50 tokens per second is a mid-size model on one data-centre GPU; a picture is
// 256 to 3,000 tokens for most models that see; 256 tokens are a short answer.
const (
	DefaultBytesPerToken = 4.0
	DefaultPace          = 50.0
	DefaultPartTokens    = 1024.0
	DefaultAnswer        = 256.0
)

// A token is at least one byte; no text that people write takes more than 16
// bytes per token on average.
const (
	minBytesPerToken = 1.0
	maxBytesPerToken = 16.0
)

// maxTokensPerDelta bounds what servers put into one event, in tokens.
const maxTokensPerDelta = 64.0

// Calibration is what complete answers of one backend's model have taught about
// it. It estimates where the backend reports no usage. It is safe for concurrent
// use and is not stored.
//
// Everything in it is a median over the last answers, in which no account has
// more than eight votes and the default has nine, so that no single account moves
// what others pay; and each answer moves an estimate by at most a fifth.
type Calibration struct {
	mu         sync.Mutex
	prompt     votes // bytes per token of prompts
	completion votes // bytes per token of completions
	perDelta   votes // tokens per event with text: a property of the server, not of what is asked
	pace       votes // tokens of one sequence per second
	begin      votes // seconds to the first token
	answer     votes // tokens of one sequence of an answer
	part       votes // tokens of a part of a prompt that is no text, such as a picture
}

// NewCalibration starts from the defaults.
func NewCalibration() *Calibration {
	return &Calibration{
		prompt:     newVotes(DefaultBytesPerToken),
		completion: newVotes(DefaultBytesPerToken),
		pace:       newVotes(DefaultPace),
		answer:     newVotes(DefaultAnswer),
		part:       newVotes(DefaultPartTokens),
	}
}

// BytesPerToken are the ratios of prompts and of completions, each within
// 1..16.
func (c *Calibration) BytesPerToken() (prompt, completion float64) {
	e := c.estimator()
	return e.prompt, e.bytes
}

// Pace is how many tokens of one sequence are generated per second, after the
// first one.
func (c *Calibration) Pace() float64 {
	return c.estimator().pace
}

// estimator is what a calibration says now.
func (c *Calibration) estimator() estimator {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range [...]*votes{&c.prompt, &c.completion, &c.perDelta, &c.pace, &c.begin, &c.answer, &c.part} {
		v.refresh()
	}
	e := estimator{prompt: c.prompt.estimate, bytes: c.completion.estimate, perDelta: c.perDelta.estimate,
		pace: c.pace.estimate, begin: c.begin.estimate, answer: c.answer.estimate, part: c.part.estimate}
	bytesKnown, deltasKnown := c.completion.known(), c.perDelta.known()
	switch {
	case deltasKnown && (!bytesKnown || c.perDelta.spread < c.completion.spread):
		e.by = byDeltas
	case bytesKnown:
		e.by = byBytes
	}
	return e
}

// learnPrompt learns from a prompt whose tokens were reported. What is no
// plain text (more tokens than bytes, hardly any tokens) teaches nothing.
func (c *Calibration) learnPrompt(voter uint64, bytes, tokens int64) {
	if teaches(bytes, tokens) {
		c.learn(&c.prompt, voter, float64(bytes)/float64(tokens))
	}
}

// learnCompletion learns the same from a completion.
func (c *Calibration) learnCompletion(voter uint64, bytes, tokens int64) {
	if teaches(bytes, tokens) {
		c.learn(&c.completion, voter, float64(bytes)/float64(tokens))
	}
}

func teaches(bytes, tokens int64) bool {
	return tokens >= 4 && bytes >= tokens && float64(bytes) <= maxBytesPerToken*float64(tokens)
}

// learnDeltas learns how many tokens come in one event.
func (c *Calibration) learnDeltas(voter uint64, tokens, deltas int64) {
	if r := float64(tokens) / float64(deltas); deltas >= 4 && r >= 0.5 && r <= maxTokensPerDelta {
		c.learn(&c.perDelta, voter, r)
	}
}

// learnPart learns what a part of a prompt takes that is no text.
func (c *Calibration) learnPart(voter uint64, tokens, parts int64) {
	if parts > 0 && tokens > 0 {
		c.learn(&c.part, voter, float64(tokens)/float64(parts))
	}
}

// learnTime learns from an answer of so many tokens per sequence, whose first
// token came after begin and whose last one after took. A begin of 0 is not known.
func (c *Calibration) learnTime(voter uint64, tokens float64, begin, took time.Duration) {
	if tokens < 4 || took <= begin {
		return
	}
	c.learn(&c.answer, voter, tokens)
	c.learn(&c.pace, voter, tokens/(took-begin).Seconds())
	if begin > 0 {
		c.learn(&c.begin, voter, begin.Seconds())
	}
}

func (c *Calibration) learn(v *votes, voter uint64, value float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v.add(voter, value)
}

// basis is what a count of text without a usage rests on.
type basis uint8

const (
	byGuess  basis = iota // nothing was learned: an event is a token, unless it is longer than tokens are
	byDeltas              // events, and how many tokens come in one
	byBytes               // bytes, and how many a token takes
)

// estimator turns what was delivered into tokens.
type estimator struct {
	by                        basis
	prompt, bytes, perDelta   float64
	pace, begin, answer, part float64
}

// longToken is the length in bytes up to which a piece of text is taken for one
// token. Longer tokens are rare in the vocabularies of 2026.
const longToken = 16

// amount is what was delivered of one choice.
type amount struct {
	deltas     int64 // events in which the model wrote something
	bytes      int64 // of text in all of them
	exact      int64 // tokens that the backend listed one by one
	listed     int64 // bytes of the text of those tokens
	told       int64 // bytes of the text that came with them
	loose      int64 // events whose tokens it did not list
	looseBytes int64
	guess      int64 // tokens of the loose events, one by one, before anything was learned
}

// add adds what one event delivered. Where tokens are listed, text beyond them
// counts by its bytes: a list may lack reasoning or calls, or have been cut off. A
// third more text than the list has is the way in which some servers write tokens,
// and so is, in a stream, more that is no longer than these tokens can be.
func (a *amount) add(d *delta) {
	a.deltas++
	a.bytes += d.bytes
	if d.exact > 0 {
		a.exact += d.exact
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
			a.guess += tokensFor(rest, DefaultBytesPerToken)
		}
		return
	}
	a.loose++
	a.looseBytes += d.bytes
	a.guess++
	if d.bytes > longToken {
		a.guess += tokensFor(d.bytes, DefaultBytesPerToken) - 1
	}
}

// tokens is the best count of an amount: never less than one for each event, and
// never more than its bytes where it is only bytes.
func (e *estimator) tokens(a *amount) int64 {
	n := a.guess
	switch e.by {
	case byDeltas:
		n = max(int64(math.Round(float64(a.loose)*e.perDelta)), tokensFor(a.looseBytes, maxBytesPerToken))
	case byBytes:
		n = tokensFor(a.looseBytes, e.bytes)
	}
	return a.exact + max(min(n, a.looseBytes), a.loose)
}

// tokensFor is how many tokens so many bytes are at a ratio, rounded up.
func tokensFor(bytes int64, bytesPerToken float64) int64 {
	return int64(math.Ceil(float64(bytes) / bytesPerToken))
}
