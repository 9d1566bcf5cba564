package openai

import (
	"math"

	"sluice.example/sluice/metering/format"
)

// promptUsages is what the backend said of the prompts of a batch. A usage within a
// stream is often that of one of them: the index of a choice tells of which, or the
// completion that ended last.
type promptUsages struct {
	of     []promptUsage // by prompt
	sum    promptUsage   // of all in of
	most   int64         // tokens that the engine is known to read of each, at most
	silent int           // prompts of which nothing was said yet
	guess  int64         // what those take as a rule, where begun
	begun  bool
	alone  int64   // prompt tokens of usage chunks that each completion has for itself
	heard  []usage // usage chunks of which nothing has shown yet that they are such
}

// promptUsage is what the backend said of one prompt, in tokens; 0: nothing yet.
type promptUsage struct{ tokens, cached int64 }

// readApart takes from the event seen last what it says of one completion, of several,
// and of its prompt. finals is how many usage chunks came before it.
func (m *completionMeter) readApart(finals int64) {
	switch {
	case m.chunk.alone():
		if m.finals > finals {
			m.readAlone()
		}
	case m.prompts != nil && len(m.chunk.deltas) == 1:
		if i := m.promptOf(m.chunk.deltas[0].index); i >= 0 {
			m.tell(i, m.ofChoice(m.chunk.usage, readUsage))
			m.tell(i, m.ofChoice(m.chunk.timings, readTimings))
			m.sumUp()
		}
	}
}

// promptOf is the prompt that a choice goes on with; -1: none.
func (m *completionMeter) promptOf(choice int64) int {
	if i := choice / m.asked.sequences; choice >= 0 && i < int64(len(m.prompts.of)) {
		return int(i)
	}
	return -1
}

// readAlone takes the usage chunk that came last, which may be that of the completion
// that ended last and of its prompt.
func (m *completionMeter) readAlone() {
	u, _ := readUsage(m.chunk.usage)
	m.apart = m.isApart(u)
	p := m.prompts
	if p == nil {
		return
	}
	if !m.opts.UsageOfAll && m.finals <= m.bound.Sequences {
		p.heard = append(p.heard, u)
	}
	if !m.apart {
		if m.ofSome = m.isOfOnePrompt(m.final); m.ofSome && p.silent == len(p.of) {
			m.running.prompt = 0 // it was taken for that of all, and nothing tells of which one it is
		}
		return
	}
	for _, u := range p.heard {
		m.tellAlone(u)
	}
	p.heard = p.heard[:0]
	m.final.prompt = max(m.final.prompt, (p.alone+m.asked.sequences-1)/m.asked.sequences)
	m.ofSome = m.finals < m.bound.Sequences
	if m.sumUp(); p.silent == 0 {
		m.final.cached = min(p.sum.cached, m.final.prompt)
	}
}

// tellAlone takes the usage chunk of a completion: of those that have ended, the first
// one that has none yet.
func (m *completionMeter) tellAlone(u usage) {
	p := m.prompts
	p.alone = format.AddSat(p.alone, max(0, u.prompt))
	for i := range m.choices {
		if c := &m.choices[i]; c.finished && !c.prompted {
			c.prompted = true
			if i := m.promptOf(c.index); i >= 0 {
				m.tell(i, u)
			}
			return
		}
	}
}

// order is what the usage chunks of a stream have shown of whose they are.
type order struct {
	shown bool  // each seems to be that of one completion
	fell  bool  // one said less than the one before
	said  int64 // tokens of the completion, by the last one
	text  int64 // bytes that were delivered before it
}

// isApart reports whether the usage chunk that came last, u, speaks of one completion. It
// does where the profile says so. Where nothing is known of the backend, it does where as
// many usages came as completions have ended, the first of them before the last completion
// ended, or where the text is more than is said. Usages that never fall are those of
// all until then, as far as their last one can be all of the text.
func (m *completionMeter) isApart(u usage) bool {
	if m.opts.UsageOfAll || m.opts.UsagePerSequence {
		return m.perSequence()
	}
	ended, n, text, o := int64(m.finishedChoices()), m.claimed(u), m.text(), &m.order
	more := n > 0 && (n < m.least() || m.rather(m.sum, n, 0))
	stands := text > o.text && n <= o.said // though there was more text
	o.fell = o.fell || n < o.said
	o.shown = o.shown || m.finals == ended && (ended > 1 || ended < m.bound.Sequences) || m.finals > 1 && more
	o.said, o.text = n, text
	return o.shown && m.finals <= ended && m.asked.canBeOfOne(u.prompt) && (m.finals == 1 || o.fell || stands || more)
}

// tell notes what a usage says of prompt i. One of more tokens than it can be is that of
// all prompts.
func (m *completionMeter) tell(i int, u usage) {
	p := m.prompts
	if !p.begun {
		p.begun = true
		for i := range m.asked.prompts {
			p.guess += m.likely(i)
		}
	}
	if u.prompt <= 0 || !m.asked.canBe(i, u.prompt) {
		return
	}
	was := p.of[i]
	now := promptUsage{max(was.tokens, min(u.prompt, maxExcess)), max(was.cached, min(u.believedCache(), maxExcess))}
	if was.tokens == 0 {
		p.silent--
		p.guess -= m.likely(i)
	}
	p.sum.tokens += now.tokens - was.tokens
	p.sum.cached += now.cached - was.cached
	p.of[i] = now
}

// likely is what prompt i takes as a rule.
func (m *completionMeter) likely(i int) int64 {
	return min(m.prompts.most, m.asked.prompts[i].likely(m.estimator()))
}

// sumUp takes over what is known of all prompts. Those of which nothing was said yet
// count as they would if nothing had been said of any, because the backend was asked for
// them as well.
func (m *completionMeter) sumUp() {
	p := m.prompts
	if p.silent == len(p.of) {
		return
	}
	sum := p.sum.tokens
	switch m.mixed = p.silent > 0; {
	case m.mixed && m.bound.Counted > 0 && p.most == format.MaxInt64:
		sum = max(sum, m.bound.Counted)
	case m.mixed:
		sum = max(sum, min(sum+p.guess, m.bound.Input))
	}
	if !m.canBePrompt(sum) {
		sum = 0
	}
	m.running.prompt, m.running.cached, m.said = sum, p.sum.cached, p.sum.tokens
}

// readFirst takes the usage of a document that speaks of the first prompt. It does where
// the usage speaks of the first completion.
func (m *completionMeter) readFirst() {
	if m.prompts == nil || !m.hasFinal {
		return
	}
	n := m.claimed(m.final)
	switch others := m.others(n); {
	case m.ofOne:
	case m.asOne(m.final.prompt) > 0 && m.rather(others, n, manyBytes):
		m.ofSome, m.ofOne = true, true
	case !m.ofSome && m.speaksOfOne(n, others):
		m.ofSome = m.asked.canBe(0, m.final.prompt)
	}
	if m.ofSome {
		m.tell(0, m.final)
		m.sumUp()
	}
}

// ofChoice reads a usage; none where there is nothing to read.
func (m *completionMeter) ofChoice(v []byte, read func([]byte) (usage, bool)) (u usage) {
	if v != nil {
		u, _ = read(v)
	}
	return u
}

// canBe reports whether prompt i can be so many tokens.
func (r *Request) canBe(i int, tokens int64) bool {
	return r.size.open != "" || tokens <= format.AddSat(r.prompts[i].tokens, r.suffix+specialTokens)
}

// canBeOfOne reports whether one of the prompts can be so many tokens.
func (r *Request) canBeOfOne(tokens int64) bool {
	for i := range r.prompts {
		if r.canBe(i, tokens) {
			return true
		}
	}
	return false
}

// isOfOnePrompt reports whether the usage of a stream is that of one prompt of several.
// Where the texts of the prompts say so, but may be the whole, the completions must be
// more than it says as well.
func (m *completionMeter) isOfOnePrompt(u usage) bool {
	if m.isKnownOfOne(u.prompt) {
		return true
	}
	bytes, n := m.asOne(u.prompt), m.claimed(u)
	return bytes > manyBytes || bytes > 0 && n > 0 && (n < m.least() || m.rather(m.others(n), n, manyBytes))
}

// canBeOfSome reports whether a usage of so many prompt tokens can be that of one prompt
// of several.
func (m *Meter) canBeOfSome(tokens int64) bool {
	return len(m.request.prompts) > 1 && tokens > 0 && !m.opts.UsageOfAll && !m.ofAll && m.request.canBeOfOne(tokens)
}

// mayBeCut reports whether all prompts can be so few tokens because the client asks the
// engine to read less of each. More than it asks for shows that the engine reads all.
func (r *Request) mayBeCut(tokens int64) bool {
	each := readOfEach(r.members)
	return each < format.MaxInt64 && (each != truncation(r.members) || tokens <= format.MulSat(each, int64(len(r.prompts))))
}

// isKnownOfOne reports whether a usage of so many prompt tokens is that of one prompt of
// several for sure: the profile or earlier usages say so, or fewer tokens are reported than
// were sent by their numbers.
func (m *Meter) isKnownOfOne(tokens int64) bool {
	r := m.request
	switch {
	case !m.canBeOfSome(tokens):
		return false
	case m.opts.UsagePerSequence, m.apart:
		return true
	}
	return tokens < r.ids && !r.mayBeCut(tokens)
}

// asOne is how many bytes a token had if a usage of so many prompt tokens were that of all
// prompts, where their texts are rather that of one: as the whole they have far more bytes
// per token than usual, and as one they come closer. It is 0 where they are rather the
// whole, and where nothing tells how much of them is read.
func (m *Meter) asOne(tokens int64) float64 {
	r := m.request
	usual := max(m.estimator().Prompt, format.DefaultBytesPerToken)
	far := otherRatio * usual * float64(tokens)
	if !m.canBeOfSome(tokens) || r.size.text <= fewBytes || float64(r.size.text) <= far || r.mayBeCut(tokens) {
		return 0
	}
	if m.dense == nil {
		m.dense = make([]int64, len(r.prompts))
		for i := range r.prompts {
			m.dense[i] = r.prompts[i].dense()
		}
	}
	off := func(bytes int64) float64 { return math.Log(float64(bytes) / float64(tokens) / usual) }
	all, closest := int64(0), math.Inf(1)
	for i, bytes := range m.dense {
		all = format.AddSat(all, bytes)
		if bytes > 0 && (i == 0 || !m.unary) {
			closest = min(closest, math.Abs(off(bytes)))
		}
	}
	if all <= fewBytes || float64(all) <= far || off(all) <= closest {
		return 0
	}
	return float64(all) / float64(tokens)
}
