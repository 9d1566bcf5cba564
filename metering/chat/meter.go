package chat

import (
	"bytes"
	"fmt"
	"time"
)

// MeterOptions says how an answer is metered.
type MeterOptions struct {
	Start           time.Time        // when the request was sent to the backend
	Now             func() time.Time // the clock; nil: time.Now
	ContinuousUsage bool             // Rewrite forced a usage into every chunk
	KeepText        bool             // keep the text, for NeedsTokenizer, as long as no usage was reported
}

// Meter reads one answer as it passes and knows at every moment what has been
// delivered. It is owned by one goroutine.
type Meter struct {
	request *Request
	bound   Bound
	cal     *Calibration
	opts    MeterOptions
	// Ratios as they were at the start, so that a count never shrinks.
	promptRatio, completionRatio float64

	choices []choice // what was delivered, by choice
	chunk   chunk    // the event seen last; its deltas are pending until Delivered
	pending int64    // bytes of the event seen last; 0: nothing to deliver
	lost    bool     // an event with text was never delivered
	started bool     // a part of the answer was delivered
	sent    int64    // bytes delivered

	final       usage // of the usage chunk or of a unary answer
	hasFinal    bool
	running     usage // prompt and cached tokens are the largest seen
	absurd      bool  // a running usage was negative
	failed      bool  // the backend reported an error in the answer
	done        bool  // [DONE] was seen
	unary       bool
	tokenPrompt int64 // counts of the backend's tokenizer; -1: none
	tokenText   int64

	joined, spliced []byte // reused memory
}

// choice is what was delivered of one completion.
type choice struct {
	index         int64
	deltas, bytes int64
	base          int64 // the largest credible running usage
	reported      int64 // the largest running usage of any kind
	sinceDeltas   int64 // what came after base
	sinceBytes    int64
	hasUsage      bool // a running usage came, if only 0
	finished      bool
	finalUsage    bool // it came with the finish_reason
	reasoning     bool
	text          []byte
}

// NewMeter meters the answer to r, which was bounded by b. cal may be nil:
// then the defaults apply and nothing is learned.
func NewMeter(r *Request, b Bound, cal *Calibration, o MeterOptions) *Meter {
	if cal == nil {
		cal = NewCalibration()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	m := &Meter{request: r, bound: b, cal: cal, opts: o, tokenPrompt: -1, tokenText: -1}
	m.promptRatio, m.completionRatio = cal.BytesPerToken()
	return m
}

// Event reads one event of the stream, as Events returns it. out is what the
// client gets: the event itself byte for byte, the event without a usage the
// client did not ask for, or nil when it gets nothing. out is valid until the
// next call or as long as event is. last reports the end of the answer,
// [DONE]: settle before sending it.
func (m *Meter) Event(event []byte) (out []byte, last bool) {
	m.drop()
	m.pending = int64(len(event))
	data, at, failure := m.eventData(event)
	m.failed = m.failed || failure
	switch {
	case len(data) == 0:
		return event, false
	case string(data) == "[DONE]":
		m.done = true
		return event, true
	}
	if checkObject(data) != nil {
		*m.chunk.next() = delta{bytes: int64(len(data))}
		return event, false
	}
	m.chunk.read(data, m.keepsText())
	m.failed = m.failed || m.chunk.failed
	if out = m.readUsage(event, data, at); out == nil {
		m.chunk.deltas = m.chunk.deltas[:0]
	}
	m.pending = int64(len(out))
	return out, false
}

// checkObject checks that data is one JSON object.
func checkObject(data []byte) error {
	start := skipSpace(data, 0)
	if start == len(data) || data[start] != '{' {
		return invalid(start)
	}
	end, err := checkValue(data, start, maxDepth)
	if err != nil {
		return err
	}
	if end = skipSpace(data, end); end != len(data) {
		return invalid(end)
	}
	return nil
}

// drop forgets the event seen last; what it held and was not delivered is
// lost.
func (m *Meter) drop() {
	m.lost = m.lost || (m.pending > 0 && m.pendingText())
	m.chunk.deltas, m.pending = m.chunk.deltas[:0], 0
}

func (m *Meter) pendingText() bool {
	for i := range m.chunk.deltas {
		if m.chunk.deltas[i].bytes > 0 {
			return true
		}
	}
	return false
}

// eventData is the data of an event without the blanks around it, and where
// in the event it begins; -1 when it was joined from several lines. failure
// reports an event named error.
func (m *Meter) eventData(event []byte) (data []byte, at int, failure bool) {
	lines := 0
	for i := 0; i < len(event); {
		end, next := lineAt(event, i)
		name, value := fieldOf(event[i:end])
		switch string(name) {
		case "event":
			failure = failure || string(value) == "error"
		case "data":
			if lines++; lines == 1 {
				data, at = value, end-len(value)
				break
			}
			if at >= 0 {
				m.joined, at = append(m.joined[:0], data...), -1
			}
			m.joined = append(append(m.joined, '\n'), value...)
			data = m.joined
		}
		i = next
	}
	return bytes.TrimRight(data, " \t"), at, failure
}

// readUsage notes the usage of the chunk just read and returns what the
// client gets of the event.
func (m *Meter) readUsage(event, data []byte, at int) []byte {
	raw := m.chunk.usage
	if raw == nil {
		return event
	}
	u, ok := readUsage(raw)
	if ok {
		m.note(u)
	}
	alone := len(m.chunk.deltas) == 0
	if !alone {
		if ok {
			d := &m.chunk.deltas[0]
			d.reported, d.tokens = true, max(u.completion, u.reasoning)
		}
		if m.showsRunning(raw) {
			return event
		}
	} else {
		if ok {
			m.final, m.hasFinal = u, true
		}
		if m.request.wantsUsage {
			return event
		}
		if !isNull(raw) && !m.chunk.failed {
			return nil
		}
	}
	return m.withoutUsage(event, data, at)
}

// showsRunning reports whether the client gets the usage, raw, of a chunk
// that has choices.
func (m *Meter) showsRunning(raw []byte) bool {
	if m.request.wantsContinuous {
		return true
	}
	return m.request.wantsUsage && (isNull(raw) || !m.opts.ContinuousUsage)
}

// note keeps what a usage says about the prompt, which does not change.
func (m *Meter) note(u usage) {
	m.running.prompt = max(m.running.prompt, u.prompt)
	m.running.cached = max(m.running.cached, u.cached)
	m.absurd = m.absurd || u.prompt < 0 || u.completion < 0 || u.cached < 0
}

// withoutUsage is the event with the usage cut out of its data, which begins
// at an index of it, or was joined from several lines.
func (m *Meter) withoutUsage(event, data []byte, at int) []byte {
	if at >= 0 {
		m.spliced = append(m.spliced[:0], event[:at]...)
		m.spliced = removeUsage(m.spliced, data)
		m.spliced = append(m.spliced, event[at+len(data):]...)
		return m.spliced
	}
	m.spliced = m.spliced[:0]
	for i, written := 0, false; i < len(event); {
		end, next := lineAt(event, i)
		if name, _ := fieldOf(event[i:end]); string(name) != "data" {
			m.spliced = append(m.spliced, event[i:next]...)
		} else if !written {
			written = true
			object := bytes.ReplaceAll(removeUsage(nil, data), []byte("\n"), []byte("\ndata: "))
			m.spliced = append(append(append(m.spliced, "data: "...), object...), event[end:next]...)
		}
		i = next
	}
	return m.spliced
}

// Delivered says that the event returned last was written to the client.
// Only what was delivered counts.
func (m *Meter) Delivered() {
	m.sent += m.pending
	for i := range m.chunk.deltas {
		m.started = true
		d := &m.chunk.deltas[i]
		m.choice(d.index).add(d)
	}
	m.chunk.deltas, m.pending = m.chunk.deltas[:0], 0
}

// maxChoices bounds the choices that are told apart; the API allows 128.
const maxChoices = 128

// choice is the choice with an index, made when it is new. Beyond maxChoices
// the last one stands for all others.
func (m *Meter) choice(index int64) *choice {
	for i := range m.choices {
		if m.choices[i].index == index {
			return &m.choices[i]
		}
	}
	if len(m.choices) < maxChoices {
		m.choices = append(m.choices, choice{index: index})
	}
	return &m.choices[len(m.choices)-1]
}

// add adds what was delivered. A running usage is credible when it is not far
// below the deltas: a token may arrive in two of them, not in more. A zero in
// between means nothing.
func (c *choice) add(d *delta) {
	if d.bytes > 0 {
		c.deltas++
		c.bytes += d.bytes
		c.sinceDeltas++
		c.sinceBytes += d.bytes
		c.reasoning = c.reasoning || d.reasoning
	}
	c.text = append(c.text, d.text...)
	c.finished = c.finished || d.finished
	if !d.reported {
		return
	}
	c.hasUsage = true
	c.finalUsage = c.finalUsage || d.finished
	c.reported = max(c.reported, d.tokens)
	if d.tokens > 0 && 2*min(d.tokens, c.deltas) >= c.deltas {
		c.base = max(c.base, d.tokens)
		c.sinceDeltas, c.sinceBytes = 0, 0
	}
}

// Unary reads a whole answer that is not a stream. It counts as delivered: a
// unary answer is charged before it is sent. What is no JSON object is
// counted by its bytes, and reported as an error.
func (m *Meter) Unary(body []byte) error {
	m.unary, m.pending = true, int64(len(body))
	if err := checkObject(body); err != nil {
		*m.chunk.next() = delta{bytes: int64(len(body)), finished: true}
		m.Delivered()
		return fmt.Errorf("read the answer of the backend: %w", err)
	}
	m.chunk.read(body[skipSpace(body, 0):], m.keepsText())
	m.failed = m.chunk.failed && len(m.chunk.deltas) == 0
	if m.chunk.usage != nil {
		if u, ok := readUsage(m.chunk.usage); ok {
			m.final, m.hasFinal = u, true
			m.note(u)
		}
	}
	m.Delivered()
	return nil
}

// keepsText reports whether text must be kept: until a usage was reported.
func (m *Meter) keepsText() bool {
	return m.opts.KeepText && m.running.prompt == 0 && !m.hasFinal
}

// Failed reports whether the backend reported an error within its answer.
func (m *Meter) Failed() bool { return m.failed }

// Finished reports whether the answer came to its end: [DONE], the usage
// chunk, or a finish_reason for every completion delivered. A stream that
// ends before that was cut by the backend.
func (m *Meter) Finished() bool {
	if m.done || m.hasFinal {
		return true
	}
	for i := range m.choices {
		if !m.choices[i].finished {
			return false
		}
	}
	return int64(len(m.choices)) >= min(m.bound.Sequences, maxChoices)
}
