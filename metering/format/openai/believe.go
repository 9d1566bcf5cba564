package openai

import (
	"math"

	"sluice.example/sluice/metering/format"
)

// What makes a usage unbelievable. No text of more than fewBytes has more than
// MaxBytesPerToken bytes per token on average, not counting runs of white space or of
// one sign, which may be a token of 128 bytes; see dense. Text in members that are not
// known is left out, because it need not be the model's, such as documents that it was
// shown. Each event may also hold strangeBytes of other text, such as the name of a tool.
const (
	fewBytes     = 256
	strangeBytes = 48
)

// maxCompletion is the longest completion that is believed, in tokens: no model of
// 2026 generates more.
const maxCompletion = 1 << 20

// otherRatio is by how much the bytes per token that follow from a usage must differ
// from the usual ones before the usage is taken for that of one completion of
// several: the middle between all of two completions and one of them.
const otherRatio = 1.4

// manyBytes is how many bytes a token has on average in languages that have many, such as
// Hindi, Tamil and Thai. Texts of several prompts that have no more as the whole may be
// the whole.
const manyBytes = 8

// tooFew reports whether what was delivered cannot be so few tokens.
func tooFew(tokens int64, a *amount) bool {
	return a.dense > fewBytes && float64(a.dense) > format.MaxBytesPerToken*float64(tokens)+strangeBytes*float64(min(tokens, a.deltas))
}

// all is how many events and words were delivered of all choices.
func (m *Meter) all() (sum amount) {
	for i := range m.choices {
		a := &m.choices[i].all
		sum.deltas, sum.words, sum.dense = format.AddSat(sum.deltas, a.deltas), format.AddSat(sum.words, a.words), format.AddSat(sum.dense, a.dense)
	}
	return sum
}

// perSequence reports whether each completion has a usage of its own.
func (m *Meter) perSequence() bool {
	return m.opts.UsagePerSequence && m.bound.Sequences > 1 && !m.ofAll
}

// claimed is what a usage says of the completion, as far as that can be true. What
// only its total has and the cap does not allow is something else than reasoning,
// such as cached tokens. A number beyond what any model generates says nothing.
func (m *Meter) claimed(u usage) int64 {
	n := u.tokens()
	if u.beside > 0 && u.reasoning <= 0 && n > m.bound.Output {
		n = u.completion
	}
	if n > format.MulSat(maxCompletion, m.bound.Sequences) {
		return 0
	}
	return max(0, n)
}

// noteFinal keeps a usage that came in a chunk of its own: of everything before
// it, or, where each completion has its own, of the one that ended last.
func (m *Meter) noteFinal(u usage) {
	n := m.claimed(u)
	m.finals++
	m.sum = format.AddSat(m.sum, n)
	if m.perSequence() && !m.speaksOfAll(n) {
		m.noteSequence(u, n)
		return
	}
	m.ofAll = m.opts.UsagePerSequence
	if !m.hasFinal || m.better(n) {
		m.final, m.hasFinal, m.after = u, true, amount{}
	}
}

// better reports whether a later usage, of n tokens, stands above the one that
// is kept. Nothing stands above something, and fewer tokens above more only where
// there is no text for those.
func (m *Meter) better(n int64) bool {
	was := m.claimed(m.final)
	return n >= was || n > 0 && was > m.text()
}

// noteSequence keeps the usage of one completion.
func (m *Meter) noteSequence(u usage, n int64) {
	m.after = amount{}
	m.final = usage{prompt: max(m.final.prompt, u.prompt), cached: max(m.final.cached, u.cached), completion: m.sum}
	m.hasFinal = m.finals >= m.bound.Sequences
	for i := range m.choices {
		if c := &m.choices[i]; c.finished && !c.totalled {
			c.totalled, c.hasUsage, c.since = true, true, amount{}
			c.base, c.reported = max(c.base, n), max(c.reported, n)
			return
		}
	}
}

// speaksOfAll reports whether the first usage of a stream, of n tokens, is that of
// all its completions, though each should have its own: it came after all of them
// had ended, and their text is as many tokens.
func (m *Meter) speaksOfAll(n int64) bool {
	if m.finals > 1 || int64(len(m.choices)) < m.bound.Sequences || n < m.least() {
		return false
	}
	for i := range m.choices {
		if !m.choices[i].finished {
			return false
		}
	}
	return !m.fitsBetter(format.MulSat(n, m.bound.Sequences), n)
}

// fitsBetter reports whether the text delivered is rather many tokens than few:
// as few it had far more bytes per token than usual, and as many it comes closer.
// Languages differ in that, so that what is learned from one of few bytes per token does
// not count against others. A text of fewBytes says nothing.
func (m *Meter) fitsBetter(many, few int64) bool {
	return m.all().words > fewBytes && m.rather(many, few, otherRatio*m.usualBytes())
}

// usualBytes is how many bytes of a completion a token has as a rule.
func (m *Meter) usualBytes() float64 { return max(m.estimator().Bytes, format.DefaultBytesPerToken) }

// rather reports whether the text delivered is rather many tokens than few, be it short:
// as few it had more bytes per token than above, and as many it comes closer to what is
// usual. Engines that are known are not asked.
func (m *Meter) rather(many, few int64, above float64) bool {
	if m.opts.UsageOfAll || few <= 0 || many <= few {
		return false
	}
	text, usual := float64(m.all().words), m.usualBytes()
	off := math.Log(text / float64(few) / usual)
	return text/float64(few) > max(above, otherRatio*usual) && off > math.Abs(math.Log(text/float64(many)/usual))
}

// speaksOfOne reports whether the usage of a unary answer with several completions
// is that of one completion. others is the number of tokens of the other
// completions. It is so where the profile says so, where fewer tokens were
// reported than the backend listed, or where the text of all completions is rather
// that many. Those of several prompts need more than manyBytes for each token.
func (m *Meter) speaksOfOne(tokens, others int64) bool {
	switch {
	case len(m.choices) < 2, tokens <= 0, tokens > m.bound.Cap:
		return false
	case m.ofOne, m.opts.UsagePerSequence, tokens < m.least():
		return true
	case len(m.request.prompts) > 1:
		return m.all().words > fewBytes && m.rather(others, tokens, manyBytes)
	}
	return m.fitsBetter(others, tokens)
}

// others is the count of all completions of a unary answer whose usage speaks of
// the first one. The others have as many bytes per token, or as many tokens as the
// backend lists.
func (m *Meter) others(tokens int64) int64 {
	if len(m.choices) == 0 {
		return tokens
	}
	sum := tokens
	first := &m.choices[0].all
	for i := range m.choices[1:] {
		switch a := &m.choices[1+i].all; {
		case a.loose == 0:
			sum = format.AddSat(sum, a.exact)
		case first.bytes > 0:
			sum = format.AddSat(sum, max(1, int64(math.Round(float64(a.bytes)*float64(tokens)/float64(first.bytes)))))
		default:
			sum = format.AddSat(sum, a.tokens(m.estimator()))
		}
	}
	return sum
}

// tokenized is what the backend's tokenizer counted, and the tokens whose text it
// was not shown; ok is false where that cannot be true. A tokenizer is not believed
// where the text cannot be so many or so few tokens, nor where it is more than a
// quarter off what events show whose tokens are known.
func (m *Meter) tokenized() (tokens int64, ok bool) {
	if m.tokenText < 0 {
		return 0, false
	}
	tokens = m.tokenText
	var long int64
	for i := range m.choices {
		tokens = format.AddSat(tokens, m.choices[i].all.silent)
		long += m.choices[i].all.long
	}
	all, counted := m.all(), m.counted()
	known := m.estimator().Steady && !m.unary && long == 0
	switch {
	case m.tokenText > m.tokenMost, tooFew(tokens, &all), 4*format.AddSat(tokens, 1) < 3*m.least(),
		known && (4*format.AddSat(tokens, 1) < 3*counted || format.MulSat(4, tokens-1) > format.MulSat(5, counted)):
		return 0, false
	}
	return max(tokens, m.least()), true
}

// mostTokens is the most tokens that a text can be: vocabularies have each pair of
// letters, and at least one token for any byte.
func mostTokens(text []byte) int64 {
	var letters int64
	for _, b := range text {
		if b |= 0x20; b >= 'a' && b <= 'z' {
			letters++
		}
	}
	return int64(len(text)) - letters/2
}
