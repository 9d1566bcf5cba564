package openai

import (
	"strconv"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// completionMeter meters an answer whose choices have texts. Where there are several
// prompts, a usage within a stream is that of one of them: the index of a choice
// tells of which.
type completionMeter struct {
	Meter
	asked   *completionRequest
	prompts []promptUsage // by prompt; nil: there is only one
	alone   int64         // prompt tokens of usage chunks that each completion has for itself
}

// promptUsage is what the backend said of one prompt; 0: nothing yet.
type promptUsage struct{ tokens, cached int64 }

// Meter implements format.Request.
func (r *completionRequest) Meter(b format.Bound, cal *format.Calibration, o format.MeterOptions) format.Meter {
	m := &completionMeter{Meter: *NewMeter(&r.Request, b, cal, o), asked: r}
	if len(r.prompts) > 1 {
		m.prompts = make([]promptUsage, len(r.prompts))
	}
	return m
}

// Event implements format.Meter.
func (m *completionMeter) Event(event []byte) (out []byte, last bool) {
	finals := m.finals
	out, last = m.Meter.Event(event)
	if m.prompts != nil && m.data != nil {
		m.readPrompts(finals)
	}
	return out, last
}

// AfterEnd implements format.Meter.
func (m *completionMeter) AfterEnd(event []byte) {
	finals := m.finals
	m.Meter.AfterEnd(event)
	if m.prompts != nil && m.data != nil {
		m.readPrompts(finals)
	}
}

// readPrompts takes from the event seen last what it says of the prompts, of several.
// finals is how many usage chunks came before it.
func (m *completionMeter) readPrompts(finals int64) {
	switch {
	case m.chunk.alone():
		if m.finals > finals && m.perSequence() {
			m.addAlone()
		}
	case len(m.chunk.deltas) == 1:
		if i := m.chunk.deltas[0].index / m.asked.sequences; i >= 0 && i < int64(len(m.prompts)) {
			m.readPrompt(int(i))
		}
	}
}

// addAlone adds the usage chunk that one completion has for itself: that of its
// prompt, which each of the prompt's completions repeats.
func (m *completionMeter) addAlone() {
	u, _ := readUsage(m.chunk.usage)
	m.alone = format.AddSat(m.alone, max(0, u.prompt))
	m.final.prompt = max(m.final.prompt, (m.alone+m.asked.sequences-1)/m.asked.sequences)
}

// readPrompt takes what the usage of a choice of prompt i says, and adds up what is
// known of all prompts. Those of which nothing was said yet count as they would if
// nothing had been said of any, because the backend was asked for them as well.
func (m *completionMeter) readPrompt(i int) {
	p := &m.prompts[i]
	for _, u := range [...]usage{m.ofChoice(m.chunk.usage, readUsage), m.ofChoice(m.chunk.timings, readTimings)} {
		p.tokens, p.cached = max(p.tokens, u.prompt), max(p.cached, u.cached)
	}
	if p.tokens == 0 {
		return
	}
	sum, known, cached := int64(0), true, int64(0)
	for i := range m.prompts {
		n := m.prompts[i].tokens
		if n == 0 {
			known, n = false, m.asked.prompts[i].likely(m.estimator())
		}
		sum, cached = format.AddSat(sum, n), format.AddSat(cached, m.prompts[i].cached)
	}
	if !known {
		sum = max(sum, m.bound.Counted)
	}
	if !m.canBePrompt(sum) {
		sum = 0
	}
	m.running.prompt, m.running.cached = sum, cached
}

// ofChoice reads a usage; none where there is nothing to read.
func (m *completionMeter) ofChoice(v []byte, read func([]byte) (usage, bool)) (u usage) {
	if v != nil {
		u, _ = read(v)
	}
	return u
}

// Document implements format.Meter.
func (m *completionMeter) Document(capped bool) []byte {
	g := m.gathering
	if g == nil {
		g = new(Gathering)
	}
	g.name(m.opts.Public)
	out := make([]byte, 0, g.size+256)
	out = append(g.top.appendFields(append(out, '{')), ',')
	if len(g.top.fields) == 0 {
		out = out[:1]
	}
	out = append(out, `"object":"text_completion","choices":[`...)
	for i := range g.choices {
		out = g.choices[i].appendText(rawjson.Next(out), capped)
	}
	out = append(out, ']')
	if u := m.gatheredUsage(g); u != nil {
		out = append(append(out, `,"usage":`...), u...)
	}
	return append(out, '}')
}

// appendText writes a choice of a document of this API.
func (c *gathered) appendText(out []byte, capped bool) []byte {
	if text := c.choice.field([]byte("text")); text.kind == 0 {
		text.replace([]byte(`""`))
	}
	if why := c.choice.field([]byte("finish_reason")); why.kind == 0 && capped {
		why.replace([]byte(`"length"`))
	}
	out = append(out, `{"index":`...)
	out = strconv.AppendInt(out, c.index, 10)
	return append(c.choice.appendFields(out), '}')
}

// gatheredUsage is the usage of a document made of a stream: the one that spoke of
// all, else the sum of those of the completions; nil where there was none.
func (m *completionMeter) gatheredUsage(g *Gathering) []byte {
	prompt, completion := m.running.prompt, int64(0)
	switch {
	case g.alone && (g.finals < 2 || !m.perSequence()), len(m.choices) < 2:
		return g.usage
	case g.alone:
		prompt, completion = m.final.prompt, g.total.completion
	default:
		for i := range m.choices {
			c := &m.choices[i]
			if !c.hasUsage {
				return g.usage
			}
			completion = format.AddSat(completion, max(c.base, c.reported))
		}
	}
	out := strconv.AppendInt([]byte(`{"prompt_tokens":`), prompt, 10)
	out = strconv.AppendInt(append(out, `,"completion_tokens":`...), completion, 10)
	out = strconv.AppendInt(append(out, `,"total_tokens":`...), format.AddSat(prompt, completion), 10)
	return append(out, '}')
}

// Scatter implements format.Meter.
func (m *completionMeter) Scatter(document []byte) []byte {
	return streamOf(document, "text_completion", m.asked.wantsUsage)
}
