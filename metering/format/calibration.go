package format

import (
	"sync"
	"time"
)

// What a Calibration says before it has learned anything. 4 bytes per token
// is what English text takes with vocabularies of 32,000 to 200,000 tokens;
// 50 tokens per second is a mid-size model on one data-centre GPU; a picture is
// 256 to 3,000 tokens for most models that see; 256 tokens are a short answer. Most
// servers send an event for each token, and begin within a tenth of a second where
// the prompt is short and nobody else waits.
const (
	DefaultBytesPerToken = 4.0
	DefaultPerDelta      = 1.0
	DefaultPace          = 50.0
	DefaultBegin         = 0.1
	DefaultPartTokens    = 1024.0
	DefaultAnswer        = 256.0
)

// A token is at least one byte; no text that people write takes more than 16
// bytes per token on average.
const (
	minBytesPerToken = 1.0
	MaxBytesPerToken = 16.0
)

// unsteady is the spread above which events tell little of tokens: a server that
// sends what it has at fixed times puts now few tokens into one and now many.
const unsteady = 0.25

// maxTokensPerDelta bounds what servers put into one event, in tokens.
const maxTokensPerDelta = 64.0

// Calibration is what complete answers of one backend's model have taught about
// it. It estimates where the backend reports no usage. It is safe for concurrent
// use and is not stored.
//
// Everything in it is a median over accounts, in which each account has one vote and
// the default has four. It counts only while it stays within a tenth without any one
// of the accounts, so that no single account moves what others pay.
type Calibration struct {
	mu         sync.Mutex
	prompt     votes // bytes per token of prompts
	completion votes // bytes per token of completions
	perDelta   votes // tokens per event with text: a property of the server, not of what is asked
	pace       votes // tokens of one sequence per second
	begin      votes // seconds to the first token
	answer     votes // tokens of one sequence of an answer
	part       votes // tokens of a part of a prompt that is no text, such as a picture
	habits     [habits]habit
}

// NewCalibration starts from the defaults.
func NewCalibration() *Calibration {
	return &Calibration{
		prompt:     newVotes(DefaultBytesPerToken),
		completion: newVotes(DefaultBytesPerToken),
		perDelta:   newVotes(DefaultPerDelta),
		pace:       newVotes(DefaultPace),
		begin:      newVotes(DefaultBegin),
		answer:     newVotes(DefaultAnswer),
		part:       newVotes(DefaultPartTokens),
	}
}

// ExpectMedia says how many tokens a part of a prompt that is no text takes until
// answers have shown it: the owner's limit, because unknown is not free. It is called
// before the first answer; 0 is not known.
func (c *Calibration) ExpectMedia(tokens int64) {
	if tokens > 0 {
		c.part = newVotes(float64(tokens))
	}
}

// BytesPerToken are the ratios of prompts and of completions, each within
// 1..16.
func (c *Calibration) BytesPerToken() (prompt, completion float64) {
	e := c.Estimates()
	return e.Prompt, e.Bytes
}

// Pace is how many tokens of one sequence are generated per second, after the
// first one.
func (c *Calibration) Pace() float64 {
	return c.Estimates().Pace
}

// Estimates is what a calibration says now.
func (c *Calibration) Estimates() Estimates {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range [...]*votes{&c.prompt, &c.completion, &c.perDelta, &c.pace, &c.begin, &c.answer, &c.part} {
		v.refresh()
	}
	e := Estimates{Prompt: c.prompt.estimate, Bytes: c.completion.estimate, PerDelta: c.perDelta.estimate,
		Pace: c.pace.estimate, Begin: c.begin.estimate, Answer: c.answer.estimate, Part: c.part.estimate, Picture: c.part.fallback}
	e.Steady = c.perDelta.learnt && c.perDelta.spread <= unsteady
	if c.perDelta.known() && c.completion.learnt && c.perDelta.spread > unsteady && 2*c.completion.spread < c.perDelta.spread {
		e.By = ByBytes
	}
	return e
}

// LearnPrompt learns from a prompt whose tokens were reported. What is no
// plain text (more tokens than bytes, hardly any tokens) teaches nothing.
func (c *Calibration) LearnPrompt(voter uint64, bytes, tokens int64) {
	if teaches(bytes, tokens) {
		c.learn(&c.prompt, voter, float64(bytes)/float64(tokens))
	}
}

// LearnCompletion learns the same from a completion.
func (c *Calibration) LearnCompletion(voter uint64, bytes, tokens int64) {
	if teaches(bytes, tokens) {
		c.learn(&c.completion, voter, float64(bytes)/float64(tokens))
	}
}

func teaches(bytes, tokens int64) bool {
	return tokens >= 4 && bytes >= tokens && float64(bytes) <= MaxBytesPerToken*float64(tokens)
}

// LearnDeltas learns how many tokens come in one event. Tokens for which there is no
// text in the events, such as hidden reasoning, are no tokens of the events.
func (c *Calibration) LearnDeltas(voter uint64, tokens, deltas, bytes int64) {
	if r := float64(tokens) / float64(deltas); deltas >= 4 && r <= maxTokensPerDelta && teaches(bytes, tokens) {
		c.learn(&c.perDelta, voter, r)
	}
}

// LearnPart learns what a part of a prompt takes that is no text.
func (c *Calibration) LearnPart(voter uint64, tokens, parts int64) {
	if parts > 0 && tokens > 0 {
		c.learn(&c.part, voter, float64(tokens)/float64(parts))
	}
}

// LearnTime learns from an answer of so many tokens per sequence, whose first
// token came after begin and whose last one after took. A begin of 0 is not known.
func (c *Calibration) LearnTime(voter uint64, tokens float64, begin, took time.Duration) {
	if tokens < 4 || took <= begin {
		return
	}
	c.learn(&c.answer, voter, tokens)
	c.learn(&c.pace, voter, tokens/(took-begin).Seconds())
	if begin > 0 {
		c.LearnBegin(voter, begin)
	}
}

// LearnBegin learns when the first token of an answer came.
func (c *Calibration) LearnBegin(voter uint64, begin time.Duration) {
	c.learn(&c.begin, voter, begin.Seconds())
}

func (c *Calibration) learn(v *votes, voter uint64, value float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v.add(voter, value)
}
