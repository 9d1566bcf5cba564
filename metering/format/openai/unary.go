package openai

import (
	"errors"
	"fmt"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// ErrNoAnswer reports a document that is no answer of the chat format.
var ErrNoAnswer = errors.New("it is no chat completion")

// Unary reads a whole answer that is not a stream. It counts as delivered: a
// unary answer is charged before it is sent. It fails with ErrNoAnswer for
// anything but an object with at least one choice, such as a page of a proxy or
// an error (see Failure), and where a choice says nothing and has no end; and with
// format.ErrNotWhole where there are fewer choices than were asked for, unless the
// backend is known to make one for any number. Nothing is counted then. clean is the
// answer as it can be sent on: body, which may be changed, or a copy without the numbers
// that are no JSON.
func (m *Meter) Unary(body []byte) (clean []byte, err error) {
	m.unary, m.chunk.unary = true, true
	if err := format.CheckObject(body); err != nil {
		repaired := format.RepairNumbers(body)
		if repaired == nil || format.CheckObject(repaired) != nil {
			m.fail(format.Failure{})
			return nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
		}
		body = repaired
	}
	object := body[rawjson.SkipSpace(body, 0):]
	m.chunk.read(object, m.keepsText())
	if m.chunk.failed || !m.chunk.objects || !m.chunk.partial && !m.chunk.answers() {
		var f format.Failure
		if m.chunk.failed {
			f = m.chunk.failure(object)
		}
		m.fail(f)
		return nil, ErrNoAnswer
	}
	if n := int64(len(m.chunk.deltas)); !m.chunk.partial && !m.enough(n) {
		m.chunk.deltas = m.chunk.deltas[:0]
		return nil, fmt.Errorf("%w: %d choices, and %d were asked for", format.ErrNotWhole, n, m.bound.Sequences)
	}
	raw := m.chunk.usage
	if raw == nil {
		raw = groqUsage(object)
	}
	m.readInner()
	if u, ok := m.usageOf(raw); ok {
		m.note(u)
		m.final, m.hasFinal, m.finals = u, true, 1
		m.ofOne = m.isKnownOfOne(u.prompt)
		m.ofSome = m.ofOne || m.asOne(u.prompt) > manyBytes
	}
	if m.renames() {
		body = m.renamed(object)
	}
	m.pending = int64(len(body))
	m.Delivered()
	m.after = amount{}
	return body, nil
}

// enough reports whether so many choices are a whole document, and takes in what they
// show of the backend's habits.
func (m *Meter) enough(choices int64) bool {
	asked := min(m.bound.Sequences, maxChoices)
	switch {
	case asked <= 1:
		return true
	case choices > 1:
		m.cal.Refute(format.OneCompletion)
		return choices >= asked
	}
	m.cal.Show(format.OneCompletion, m.opts.Voter)
	return m.opts.OneCompletion || m.cal.Has(format.OneCompletion)
}

// UnaryPart reads the beginning of an answer that is not a stream, as far as it
// came. What was read before is forgotten. A beginning without any text is no part of an
// answer: servers send it before they make one.
func (m *Meter) UnaryPart(body []byte) {
	m.choices, m.begun = m.choices[:0], len(body) > 0
	m.chunk.partial, m.chunk.reader.past = true, nil
	if whole := rawjson.Complete(body); whole != nil {
		_, _ = m.Unary(whole) // a beginning without a choice counts nothing
		m.failed = false
	}
	m.started = m.wrote()
}
