package openai

import (
	"slices"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// finish is what is known of the end of one completion.
type finish struct {
	finished bool
	resumed  bool     // text came after its finish_reason
	stopped  bool     // a finish_reason came that is known to be an end, whatever came after it
	why      string   // the finish_reason that came last and is an end
	open     []string // those that text came after: they are no end
}

// maxOpen bounds the words that are remembered as none of an end; a backend that has
// sent so many has no word for it.
const maxOpen = 8

// note takes in a delta of the completion with an index. Text that comes after a
// finish_reason proves that it was none: some servers send a word with each event.
func (f *finish) note(d *delta, index int64) {
	f.resumed = f.resumed || f.finished && d.bytes > 0
	if f.finished && d.bytes > d.foreign && d.index == index && len(f.open) < maxOpen {
		f.finished, f.open = false, append(f.open, f.why)
	}
	if d.finished && len(f.open) < maxOpen && !slices.Contains(f.open, d.why) {
		f.finished, f.why, f.resumed = true, d.why, false
		f.stopped = f.stopped || isEnd(d.why)
	}
}

// isEnd reports whether a finish_reason is one of those that APIs and engines have for an
// end.
func isEnd(why string) bool {
	switch why {
	case "stop", "length", "tool_calls", "function_call", "content_filter", "eos", "eos_token", "stop_sequence", "end_turn", "max_tokens":
		return true
	}
	return false
}

// noteEnd takes in the marker of the end, and what it shows of the backend's habits.
func (m *Meter) noteEnd() {
	m.done = true
	finished := m.finishedChoices()
	switch {
	case finished > 0:
		m.cal.Refute(format.EndsWithoutReason)
	case m.wrote():
		m.cal.Show(format.EndsWithoutReason, m.opts.Voter)
	}
	switch {
	case len(m.choices) > 1:
		m.cal.Refute(format.OneCompletion)
	case finished == 1 && m.bound.Sequences > 1:
		m.cal.Show(format.OneCompletion, m.opts.Voter)
	}
}

// finishedChoices is how many completions have ended. One that went on after a word for
// its end has ended all the same where the marker of the end followed.
func (m *Meter) finishedChoices() (n int) {
	for i := range m.choices {
		if f := &m.choices[i].finish; f.finished || f.stopped && m.done {
			n++
		}
	}
	return n
}

// Finished reports whether the answer is whole: every completion that was asked for
// has a finish_reason. A stream that ends before that was cut by the backend, be there
// a marker of the end or a usage: engines send the marker after an error as well, and
// some send the usage first. The exceptions are backends that are known to make one
// completion, or that have shown to several accounts that the marker is all they send.
func (m *Meter) Finished() bool {
	finished := m.finishedChoices()
	switch {
	case finished == 0:
		return m.done && m.wrote() && m.cal.Has(format.EndsWithoutReason)
	case finished < len(m.choices):
		return false
	case int64(finished) >= min(m.bound.Sequences, maxChoices):
		return true
	}
	return m.done && finished == 1 && (m.opts.OneCompletion || m.cal.Has(format.OneCompletion))
}

// Ended reports whether the answer is whole and nothing was written after that.
// Nothing that follows makes it less: neither a usage beyond the cap, nor silence, nor
// a connection that breaks.
func (m *Meter) Ended() bool {
	for i := range m.choices {
		if m.choices[i].resumed {
			return false
		}
	}
	return m.Finished()
}

// AfterEnd implements format.Meter.
func (m *Meter) AfterEnd(event []byte) {
	m.drop()
	m.data = nil
	b := m.readBlock(event)
	if b.failure || len(b.data) == 0 || format.CheckObject(b.data) != nil {
		return
	}
	object := b.data[rawjson.SkipSpace(b.data, 0):]
	if m.chunk.read(object, false); !m.chunk.failed && len(m.chunk.deltas) == 0 {
		m.data = object
		m.readUsage()
	}
	m.chunk.deltas = m.chunk.deltas[:0]
}
