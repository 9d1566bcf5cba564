package openai

import (
	"bytes"
	"slices"
	"time"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// Meter reads one answer as it passes and knows at every moment what has been
// delivered. It is owned by one goroutine.
type Meter struct {
	request *Request
	bound   format.Bound
	cal     *format.Calibration
	opts    format.MeterOptions
	// The estimates as they were when they were first needed, so that a count
	// never shrinks.
	est     format.Estimates
	hasEst  bool
	choices []choice // what was delivered, by choice
	chunk   chunk    // the event seen last; its deltas are pending until Delivered
	growing growing  // what the stream repeats
	pending int64    // bytes of the event seen last; 0: nothing to deliver
	lost    bool     // an event with text was never delivered
	started bool     // a part of the answer was delivered
	begun   bool     // the beginning of a document came
	sent    int64    // bytes delivered
	first   time.Time

	final    usage  // of the usage chunks, or of a unary answer
	hasFinal bool   // final speaks of everything that came before it
	finals   int64  // usage chunks seen
	sum      int64  // of their completions
	ofAll    bool   // final speaks of all completions, though the profile says that each has its own
	after    amount // what was delivered after final
	running  usage  // the largest prompt, cached and reasoning tokens seen
	absurd   bool   // a running usage was negative, or had more cached tokens than prompt
	fewest   int64  // the fewest tokens that the prompt can be, where measured
	measured bool
	most     int64   // tokens that the engine is known to read of all prompts, at most
	said     int64   // tokens of running.prompt that the backend said of some prompts of several
	apart    bool    // each usage chunk speaks of one prompt of several, as those that came have shown
	ofSome   bool    // final speaks of one prompt of several
	ofOne    bool    // and of one completion, for more reasons than the text of its prompts
	dense    []int64 // dense bytes of each of them, where measured
	mixed    bool    // running.prompt has an estimate for some prompts of several
	failed   bool    // the backend reported an error in the answer, or sent half a chunk
	failure  format.Failure
	done     bool // [DONE] was seen
	unary    bool
	silent   bool  // the backend showed nobody a sign of life
	noise    int64 // events that are none of the format
	excess   format.Overrun

	tokenPrompt int64 // counts of the backend's tokenizer; -1: none
	tokenText   int64
	tokenMost   int64 // the most tokens that the text which the tokenizer was shown can be

	data                    []byte     // of the event seen last
	gathering               *Gathering // nil: nothing was gathered
	joined, framed, spliced []byte     // reused memory
}

// NewMeter meters the answer to r, which was bounded by b. cal may be nil:
// then the defaults apply and nothing is learned.
func NewMeter(r *Request, b format.Bound, cal *format.Calibration, o format.MeterOptions) *Meter {
	if cal == nil {
		cal = format.NewCalibration()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	m := &Meter{request: r, bound: b, cal: cal, opts: o, most: format.MaxInt64, tokenPrompt: -1, tokenText: -1}
	if o.TruncatesPrompts {
		m.most = r.truncated()
	}
	return m
}

// Event reads one event of the stream, as Events returns it. out is what the
// client gets, as every client can read it: one data line, without the id and
// retry lines and the usage that the client did not ask for; comments alone where
// there is no data; nil when the client gets nothing. out is valid until the next
// call or as long as event is. last reports the marker of the end, [DONE], which says
// nothing of whether the answer is whole: where Finished reports true settle, then
// send EndFrame instead of it. Once Failed reports true nothing more may be
// passed on.
//
// Data that is no chunk is noise, such as a heartbeat: it is dropped and costs
// nothing. What speaks of an error is a failure of the backend, in whatever form,
// and so is half an object, because something of the answer was in it.
func (m *Meter) Event(event []byte) (out []byte, last bool) {
	m.drop()
	m.data = nil
	b := m.readBlock(event)
	switch {
	case b.failure:
		m.fail(format.ReadFailure(b.data))
		return nil, false
	case len(b.data) == 0:
		out = m.comments(event)
		m.pending = int64(len(out))
		return out, false
	case string(b.data) == format.EndMarker:
		m.noteEnd()
		return event, true
	}
	out = m.readData(event, b)
	if out == nil {
		m.chunk.deltas = m.chunk.deltas[:0]
	}
	m.pending = int64(len(out))
	return out, false
}

// readData reads an event that has data and returns what the client gets of it.
func (m *Meter) readData(event []byte, b block) []byte {
	if format.CheckObject(b.data) != nil {
		repaired := format.RepairNumbers(b.data)
		switch {
		case repaired != nil && format.CheckObject(repaired) == nil:
			b.data, b.at, b.odd = repaired, -1, true
		case b.data[rawjson.SkipSpace(b.data, 0)] == '{':
			m.fail(format.Failure{Message: "an event is not valid JSON"})
			return nil
		case format.SpeaksOfError(b.data):
			m.fail(format.ReadFailure(b.data))
			return nil
		default:
			m.noise++
			return nil
		}
	}
	object := b.data[rawjson.SkipSpace(b.data, 0):]
	m.chunk.reader.growing = &m.growing
	m.chunk.read(object, m.keepsText())
	switch {
	case m.chunk.failed:
		m.fail(m.chunk.failure(object))
		return nil
	case !m.chunk.choices && (m.chunk.usage == nil || rawjson.IsNull(m.chunk.usage)):
		m.noise++ // an event of another kind, on which clients would stumble
		return nil
	}
	m.data = object
	if m.first.IsZero() && m.carries() {
		m.first = m.opts.Now()
	}
	h, drop := m.readUsage()
	if drop {
		return nil
	}
	h.model = m.renames()
	return m.shown(event, b, h)
}

// Data is the chunk in the event seen last, which Event has passed on or kept
// back: what a Gathering takes. It is nil where there is none, as of noise.
func (m *Meter) Data() []byte { return m.data }

// IsPart implements format.Meter.
func (m *Meter) IsPart() bool { return m.data != nil }

// fail notes that the answer is not whole.
func (m *Meter) fail(f format.Failure) {
	m.chunk.deltas = m.chunk.deltas[:0]
	if !m.failed {
		m.failed, m.failure = true, f
	}
}

// shown is the event as the client gets it, without what it must not see.
func (m *Meter) shown(event []byte, b block, h hidden) []byte {
	switch {
	case h == (hidden{}) && !b.odd:
		return event
	case b.odd:
		data := b.data
		if h != (hidden{}) {
			m.spliced = removeHidden(m.spliced[:0], data, h, m.opts.Public)
			data = m.spliced
		}
		return m.reframe(event, data)
	}
	m.spliced = append(m.spliced[:0], event[:b.at]...)
	m.spliced = removeHidden(m.spliced, b.data, h, m.opts.Public)
	m.spliced = append(m.spliced, event[b.at+len(b.data):]...)
	return m.spliced
}

// renames reports whether the object seen last names the model otherwise than the
// client knows it.
func (m *Meter) renames() bool {
	return m.opts.Public != nil && m.chunk.model != nil && !bytes.Equal(m.chunk.model, m.opts.Public)
}

// renamed is the object v with the public name of the model. It may change v.
func (m *Meter) renamed(v []byte) []byte {
	for c := rawjson.Members(v); c.More(); {
		if key, value := c.Member(); string(key) == format.MemberModel {
			return slices.Replace(v, c.At()-len(value), c.At(), m.opts.Public...)
		}
	}
	return v
}

// drop forgets the event seen last; what it held and was not delivered is
// lost.
func (m *Meter) drop() {
	m.lost = m.lost || (m.pending > 0 && m.carries())
	m.chunk.deltas, m.pending = m.chunk.deltas[:0], 0
}

// carries reports whether the model wrote something in the event seen last.
func (m *Meter) carries() bool {
	for i := range m.chunk.deltas {
		if m.chunk.deltas[i].carries() {
			return true
		}
	}
	return false
}

// readUsage notes the usage of the chunk just read, and says what of it the
// client does not get: some members, or the whole event.
func (m *Meter) readUsage() (h hidden, drop bool) {
	alone := m.chunk.alone()
	h.timings = m.readTimings()
	raw := m.chunk.usage
	m.readInner()
	if raw == nil && !alone && m.chunk.deltas[0].finished {
		raw = groqUsage(m.data)
	}
	if raw == nil {
		return h, false
	}
	u, ok := m.usageOf(raw)
	if ok {
		m.note(u)
	}
	if !alone {
		if ok {
			d := &m.chunk.deltas[0]
			d.reported, d.tokens = true, u.tokens()
		}
		h.usage = !m.showsRunning(raw)
		return h, false
	}
	if ok {
		m.noteFinal(u)
		m.chunk.told = true
	}
	if m.request.wantsUsage {
		return h, false
	}
	h.usage = true
	return h, !rawjson.IsNull(raw) && !m.chunk.beside
}

// readInner takes the usages that stand within the choices: each is that of its
// completion.
func (m *Meter) readInner() {
	for i := range m.chunk.deltas {
		d := &m.chunk.deltas[i]
		if u, ok := m.usageOf(d.usage); ok {
			m.note(u)
			d.reported, d.tokens = true, u.tokens()
		}
	}
}

// usageOf reads a usage. Of one that has only a total, the prompt is what it is
// elsewhere, and the rest is the completion.
func (m *Meter) usageOf(raw []byte) (u usage, ok bool) {
	if u, ok = readUsage(raw); ok && u.total > 0 {
		u.prompt = min(m.prompt().tokens, u.total)
		u.completion = u.total - u.prompt
	}
	return u, ok
}

// readTimings takes llama.cpp's running counts, which are exact, and reports
// whether they were asked for by the gateway alone.
func (m *Meter) readTimings() bool {
	if m.chunk.timings == nil {
		return false
	}
	if !m.chunk.alone() {
		if u, ok := readTimings(m.chunk.timings); ok {
			m.note(u)
			d := &m.chunk.deltas[0]
			d.reported, d.tokens = true, u.completion
		}
	}
	return m.opts.Timings
}

// showsRunning reports whether the client gets the usage, raw, of a chunk
// that has choices.
func (m *Meter) showsRunning(raw []byte) bool {
	if m.request.wantsContinuous {
		return true
	}
	return m.request.wantsUsage && (rawjson.IsNull(raw) || !m.opts.ContinuousUsage)
}

// note keeps what a usage says about the prompt, which does not change.
func (m *Meter) note(u usage) {
	if m.canBePrompt(u.prompt) && !m.isKnownOfOne(u.prompt) && m.asOne(u.prompt) <= manyBytes {
		m.running.prompt = max(m.running.prompt, u.prompt)
		m.running.cached = max(m.running.cached, u.believedCache())
	}
	m.running.reasoning = max(m.running.reasoning, u.reasoning)
	m.absurd = m.absurd || u.prompt < 0 || u.completion < 0 || u.cached != u.believedCache()
}

// Delivered says that the event returned last was written to the client.
// Only what was delivered counts.
func (m *Meter) Delivered() {
	m.sent += m.pending
	e := m.estimator()
	for i := range m.chunk.deltas {
		m.started = true
		d := &m.chunk.deltas[i]
		if m.finals > 0 && !m.chunk.told && (d.certain() || d.carries() && !m.Finished()) { // a usage in between is a snapshot
			m.after.add(d, e)
		}
		if m.chunk.beside && len(m.choices) > 0 {
			d.index = m.choices[0].index
		}
		m.choice(d.index).add(d, e)
	}
	m.chunk.deltas, m.pending = m.chunk.deltas[:0], 0
}

// keepsText reports whether text must be kept: until a usage was reported.
func (m *Meter) keepsText() bool {
	return m.opts.KeepText && m.running.prompt == 0 && !m.hasFinal
}

// Failed reports whether the backend reported an error within its answer, or
// sent a part of it that cannot be read.
func (m *Meter) Failed() bool { return m.failed }

// Started reports whether a part of the answer was delivered.
func (m *Meter) Started() bool { return m.started }

// Failure is what the backend said, where Failed.
func (m *Meter) Failure() format.Failure { return m.failure }

// Noise is how many events were dropped because they are none of the format.
func (m *Meter) Noise() int64 { return m.noise }
