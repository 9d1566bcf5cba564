package openai

import (
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// tokenCount is a count of tokens and where it came from.
type tokenCount struct {
	tokens int64
	source metering.Source
}

// worse is the less certain of two sources.
func worse(a, b metering.Source) metering.Source {
	for _, s := range [...]metering.Source{
		metering.SourcePace, metering.SourceCounted, metering.SourceTokenizer, metering.SourceRunning} {
		if a == s || b == s {
			return s
		}
	}
	return metering.SourceReported
}

// estimator is what was learned before this answer.
func (m *Meter) estimator() *format.Estimates {
	if !m.hasEst {
		m.est, m.hasEst = m.cal.Estimates(), true
		if m.unary { // there are no events
			m.est.By = format.ByBytes
		}
	}
	return &m.est
}

// prompt is the best count of the prompt, within its bound: what the backend
// said, its tokenizer, or an estimate from the bytes of its text and the number of
// its other parts. The latter two are of texts in full, of which the engine may be known to
// read less.
func (m *Meter) prompt() tokenCount {
	switch {
	case m.running.prompt > 0 && !(m.mixed && m.tokenPrompt > 0):
		return tokenCount{min(m.running.prompt, m.bound.Input), metering.SourceRunning}
	case m.tokenPrompt > 0:
		return tokenCount{min(max(m.said, min(m.tokenPrompt, m.most)), m.bound.Input), metering.SourceTokenizer}
	case m.bound.Counted > 0:
		return tokenCount{min(m.bound.Counted, m.most), metering.SourceTokenizer}
	}
	e := m.estimator()
	tokens := format.TokensFor(m.request.PromptBytes(), e.Prompt)
	if m.request.size.media > 0 {
		tokens = format.AddSat(tokens, int64(e.Part*float64(m.request.size.media)))
	}
	return tokenCount{min(max(tokens, m.fewest), m.most, m.bound.Input), metering.SourceCounted}
}

// completion is the best count of what was delivered.
func (m *Meter) completion() tokenCount {
	t := m.byChoice()
	if m.finals > 0 && m.perSequence() {
		return t
	}
	if m.hasFinal && !m.lost && (t.source != metering.SourceRunning || m.after.deltas == 0) {
		t.tokens = max(t.tokens, format.AddSat(m.claimed(m.final), m.after.tokens(m.estimator())))
	}
	return t
}

// byChoice counts what was delivered, choice by choice. A running usage is that
// of one completion where every completion has one (vLLM, SGLang); where only
// one of several has, it may be that of all.
func (m *Meter) byChoice() tokenCount {
	var sum, most int64
	with, credible := 0, true
	for i := range m.choices {
		c := &m.choices[i]
		tokens := m.tokens(c)
		sum = format.AddSat(sum, tokens)
		credible = credible && (c.base > 0 || c.all.events() == 0) && c.since.events() == 0 &&
			(c.all.events() <= c.base || c.totalled) && !tooFew(c.base, &c.all)
		if c.hasUsage && !c.totalled {
			with++
			most = tokens
		}
	}
	source := metering.SourceCounted
	if credible {
		source = metering.SourceRunning
	}
	if n, ok := m.tokenized(); ok && with == 0 && !m.hasFinal {
		return tokenCount{n, metering.SourceTokenizer}
	}
	switch wrote := m.wrote(); {
	case with == 0 && !wrote && m.running.prompt == 0:
		return tokenCount{0, metering.SourceCounted}
	case with == 1 && len(m.choices) > 1 && m.finals == 0:
		return tokenCount{max(most, m.counted()), source}
	}
	return tokenCount{sum, source}
}

// tokens is the best count of one choice: its running usage and what came
// after it, or what was counted where that is more, or where its text cannot be so
// few tokens.
func (m *Meter) tokens(c *choice) int64 {
	if c.all.deltas == 0 {
		return max(0, c.base, c.reported)
	}
	if c.base <= 0 {
		return max(c.reported, c.all.tokens(m.estimator()))
	}
	n := max(format.AddSat(c.base, c.since.tokens(m.estimator())), c.all.least())
	if tooFew(n, &c.all) {
		n = max(n, c.reported, c.all.tokens(m.estimator()))
	}
	return n
}

// counted is the count of all choices without any usage.
func (m *Meter) counted() (n int64) {
	for i := range m.choices {
		n = format.AddSat(n, m.choices[i].all.tokens(m.estimator()))
	}
	return n
}

// least is a count that is certain: a token for each event with text, or those
// that the backend listed.
func (m *Meter) least() (n int64) {
	for i := range m.choices {
		n = format.AddSat(n, m.choices[i].all.least())
	}
	return n
}

// Beyond reports whether it is certain that a backend goes on beyond what it was
// asked for: by its own running usage where there is text for it too, since some
// engines do not count hidden reasoning under the cap, or by events and bytes of which
// neither can be so many within the cap, since servers send a token in two events at
// most and tokens have 8 bytes at most on average. An estimate alone never says so,
// nor the usage of an answer that has ended.
func (m *Meter) Beyond() bool {
	if t := m.byChoice(); t.source == metering.SourceRunning && !m.Ended() {
		return t.tokens > m.bound.Output && m.counted() > m.bound.Output
	}
	return m.least() > format.MulSat(2, m.bound.Output) && m.text() > format.MulSat(8, m.bound.Output)
}

// wrote reports whether anything of what the model wrote was delivered.
func (m *Meter) wrote() bool {
	for i := range m.choices {
		if m.choices[i].all.deltas > 0 {
			return true
		}
	}
	return false
}

// text is the number of bytes of text delivered.
func (m *Meter) text() (n int64) {
	for i := range m.choices {
		n += m.choices[i].all.bytes
	}
	return n
}
