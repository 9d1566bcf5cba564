package openai

import (
	"math"
	"strconv"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// completionMeter meters an answer whose choices have texts. What it keeps of several
// prompts is in promptUsages.
type completionMeter struct {
	Meter
	asked   *completionRequest
	prompts *promptUsages // nil: there is one prompt
	order   order
}

// Meter implements format.Request.
func (r *completionRequest) Meter(b format.Bound, cal *format.Calibration, o format.MeterOptions) format.Meter {
	m := &completionMeter{Meter: *NewMeter(&r.Request, b, cal, o), asked: r}
	if len(r.prompts) > 1 {
		m.prompts = &promptUsages{of: make([]promptUsage, len(r.prompts)), silent: len(r.prompts), most: math.MaxInt64}
		if o.TruncatesPrompts {
			m.prompts.most = truncation(r.members)
		}
	}
	return m
}

// Event implements format.Meter.
func (m *completionMeter) Event(event []byte) (out []byte, last bool) {
	finals := m.finals
	out, last = m.Meter.Event(event)
	if m.bound.Sequences > 1 && m.data != nil {
		m.readApart(finals)
	}
	return out, last
}

// AfterEnd implements format.Meter.
func (m *completionMeter) AfterEnd(event []byte) {
	finals := m.finals
	m.Meter.AfterEnd(event)
	if m.bound.Sequences > 1 && m.data != nil {
		m.readApart(finals)
	}
}

// Unary implements format.Meter.
func (m *completionMeter) Unary(body []byte) (clean []byte, err error) {
	if clean, err = m.Meter.Unary(body); err == nil {
		m.readFirst()
	}
	return clean, err
}

// UnaryPart implements format.Meter.
func (m *completionMeter) UnaryPart(body []byte) {
	m.Meter.UnaryPart(body)
	m.readFirst()
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
	case g.alone && (g.finals < 2 || !m.apart && !m.perSequence()), len(m.choices) < 2:
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
