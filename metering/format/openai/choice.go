package openai

import "sluice.example/sluice/metering/format"

// choice is what was delivered of one completion.
type choice struct {
	index    int64
	all      amount
	base     int64  // the largest credible running usage
	reported int64  // the largest running usage of any kind
	since    amount // what came after base
	hasUsage bool   // a running usage came, if only 0
	finish
	totalled   bool // a usage chunk of its own came
	prompted   bool // the usage chunk of its prompt came
	finalUsage bool // the usage came with the finish_reason
	reasoning  bool
	called     bool
	text       []byte
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
func (c *choice) add(d *delta, e *format.Estimates) {
	if d.carries() {
		c.all.add(d, e)
		c.since.add(d, e)
		c.reasoning = c.reasoning || d.reasoning
		c.called = c.called || d.called
	}
	c.text = append(c.text, d.text...)
	c.finish.note(d, c.index)
	if !d.reported {
		return
	}
	c.hasUsage = true
	c.finalUsage = c.finalUsage || d.finished
	c.reported = max(c.reported, d.tokens)
	if d.tokens > 0 && 2*min(d.tokens, c.all.events()) >= c.all.events() {
		c.base = max(c.base, d.tokens)
		c.since = amount{}
	}
}
