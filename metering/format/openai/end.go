package openai

import "sluice.example/sluice/metering/format"

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

func (m *Meter) finishedChoices() (n int) {
	for i := range m.choices {
		if m.choices[i].finished {
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
