package chat

import (
	"math"
	"sync"
	"time"
)

// What a Calibration says before it has learned anything. 4 bytes per token
// is what English text takes with vocabularies of 32,000 to 200,000 tokens;
// 50 tokens per second is a mid-size model on one data-centre GPU.
const (
	DefaultBytesPerToken = 4.0
	DefaultPace          = 50.0
)

// A token is at least one byte; no text that people write takes more than 16
// bytes per token on average.
const (
	minBytesPerToken = 1.0
	maxBytesPerToken = 16.0
)

// calibrationDecay is the weight of all earlier answers after one more: the
// last 32 answers count for two thirds. Answers weigh by their length.
const calibrationDecay = 31.0 / 32

// Calibration is what complete answers of one model have taught about it: how
// many bytes of text a token takes, in prompts and in completions, and how
// many tokens it generates per second. It estimates where a backend reports
// no usage. It is safe for concurrent use and is not stored.
type Calibration struct {
	mu                       sync.Mutex
	prompt, completion, pace average
}

// average is a weighted mean, sum over weight.
type average struct{ sum, weight float64 }

func (a *average) add(sum, weight float64) {
	a.sum = a.sum*calibrationDecay + sum
	a.weight = a.weight*calibrationDecay + weight
}

func (a average) mean() float64 { return a.sum / a.weight }

// NewCalibration starts from the defaults, which weigh as much as one answer
// of 256 tokens.
func NewCalibration() *Calibration {
	return &Calibration{
		prompt:     average{DefaultBytesPerToken * 256, 256},
		completion: average{DefaultBytesPerToken * 256, 256},
		pace:       average{256, 256 / DefaultPace},
	}
}

// BytesPerToken are the ratios of prompts and of completions, each within
// 1..16.
func (c *Calibration) BytesPerToken() (prompt, completion float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	within := func(a average) float64 {
		return math.Min(maxBytesPerToken, math.Max(minBytesPerToken, a.mean()))
	}
	return within(c.prompt), within(c.completion)
}

// Pace is how many tokens of one sequence are generated per second of wall
// time, the wait for the first token included. It is learned from unary
// answers, whose time no slow reader can stretch.
func (c *Calibration) Pace() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pace.mean()
}

// learnPrompt learns from a prompt whose tokens were reported. What is no
// plain text (more tokens than bytes, hardly any tokens) teaches nothing.
func (c *Calibration) learnPrompt(bytes, tokens int64) {
	if teaches(bytes, tokens) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.prompt.add(float64(bytes), float64(tokens))
	}
}

// learnCompletion learns the same from a completion.
func (c *Calibration) learnCompletion(bytes, tokens int64) {
	if teaches(bytes, tokens) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.completion.add(float64(bytes), float64(tokens))
	}
}

func teaches(bytes, tokens int64) bool {
	return tokens >= 4 && bytes >= tokens && float64(bytes) <= maxBytesPerToken*float64(tokens)
}

// learnPace learns from an answer of so many tokens per sequence.
func (c *Calibration) learnPace(tokens float64, took time.Duration) {
	if tokens >= 4 && took > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.pace.add(tokens, took.Seconds())
	}
}

// tokensFor is how many tokens so many bytes are at a ratio, rounded up.
func tokensFor(bytes int64, bytesPerToken float64) int64 {
	return int64(math.Ceil(float64(bytes) / bytesPerToken))
}
