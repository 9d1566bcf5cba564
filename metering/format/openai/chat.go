package openai

import (
	"sluice.example/sluice/metering/format"
)

// Chat is POST /v1/chat/completions.
var Chat format.Format = chat{}

type chat struct{}

// Name implements format.Format.
func (chat) Name() string { return "chat" }

// Paths implements format.Format.
func (chat) Paths() []string { return []string{"/v1/chat/completions"} }

// Smallest implements format.Format: one word of prompt, one token of an answer.
func (chat) Smallest() (path, body string) {
	return "/v1/chat/completions", `{"model":"-","messages":[{"role":"user","content":"Hi"}],"max_tokens":1}`
}

// Parse implements format.Format.
func (chat) Parse(_ string, body []byte, policy func(model string) *format.Policy) (format.Request, error) {
	r, err := ParseFor(body, policy)
	if err != nil {
		return nil, err // a nil *Request would be no nil format.Request
	}
	return r, nil
}

// Meter implements format.Request.
func (r *Request) Meter(b format.Bound, cal *format.Calibration, o format.MeterOptions) format.Meter {
	return NewMeter(r, b, cal, o)
}

// Gather implements format.Meter.
func (m *Meter) Gather() int {
	if m.data == nil {
		return 0
	}
	if m.gathering == nil {
		m.gathering = new(Gathering)
	}
	return m.gathering.Add(m.data)
}

// Document implements format.Meter.
func (m *Meter) Document(capped bool) []byte {
	if m.gathering == nil {
		m.gathering = new(Gathering)
	}
	m.gathering.name(m.opts.Public)
	return m.gathering.Document(m.opts.UsagePerSequence, capped)
}

// Scatter implements format.Meter.
func (m *Meter) Scatter(document []byte) []byte { return StreamOf(document, m.request.WantsUsage()) }

// Close implements format.Meter.
func (m *Meter) Close(c format.Closing) []byte {
	if c.End == format.Complete {
		return EndFrame(nil, c.Comment)
	}
	return ErrorFrame(nil, c.Message, c.Kind, c.Code, c.Comment)
}
