package openai

import "sluice.example/sluice/metering/format/rawjson"

// note keeps a member that stands beside the choices, and that no rule is known for,
// where there is text in it.
func (c *chunk) note(key, value []byte) {
	if hasText(value) {
		c.strange = append(c.strange, unknown{key, value})
	}
}

// readVerbose reads what llama.cpp shows of itself: the text and the tokens that it
// made, and much that it was asked for, which is left out.
func (c *chunk) readVerbose(v []byte) {
	for w := rawjson.Members(v); w.More(); {
		switch key, value := w.Member(); string(key) {
		case "content":
			c.note(memberVerbose, value)
		case "tokens":
			c.ids = max(c.ids, countNumbers(value))
		}
	}
}

var memberVerbose = []byte("__verbose")

// isSpeech reports whether a member with this name, beside the choices, is where APIs
// put what a model wrote.
func isSpeech(key []byte) bool {
	switch string(key) {
	case "delta", "content", "text", "response", "output", "outputs", "output_text", "generated_text", "completion", "refusal",
		"reasoning", "reasoning_content", "thinking":
		return true
	}
	return false
}

// countBeside counts what stands beside the choices.
//
// Where there is no choice it is the only place where text can be, and all of it counts.
// Where a choice of an event says something, nothing beside it counts, because it need
// not be the model's. Where none does, what is new counts, or the tokens that are listed;
// as one token where a choice has a place for words and says nothing there. A document
// comes once and whole: beside the text of its only choice, members count that are known
// to hold text of a model, and in place of that text all of them.
func (c *chunk) countBeside(keepText bool) {
	if len(c.strange) == 0 && c.ids == 0 {
		return
	}
	carries, finished, spoken := false, false, false
	for i := range c.deltas {
		d := &c.deltas[i]
		carries, finished, spoken = carries || d.carries(), finished || d.finished, spoken || d.spoken
	}
	r := &c.reader
	switch {
	case len(c.deltas) == 0:
		c.countAlone(keepText)
	case c.unary && carries:
		if r.unknown = r.unknown[:0]; len(c.deltas) == 1 { // r knows what it said
			c.addBeside(&c.deltas[0], false)
		}
	case c.unary:
		r.begin(&c.deltas[0], keepText)
		c.addBeside(&c.deltas[0], true)
	case !carries && !finished:
		d := &c.deltas[0]
		r.begin(d, keepText)
		d.spoken = spoken
		c.addBeside(d, true)
		odd := d.bytes > 0 || !spoken
		if spoken {
			d.reset(mark{})
			d.foreign = 0
		}
		d.exact, d.odd = max(d.exact, c.ids), d.odd || odd
	}
}

// countAlone counts what an event without a choice says, as of the first choice. Beside
// a usage, a constant is no text.
func (c *chunk) countAlone(keepText bool) {
	reports := c.usage != nil && !rawjson.IsNull(c.usage)
	if c.unary || !c.choices && !reports {
		return // no answer; noise
	}
	d := c.next()
	c.reader.begin(d, keepText)
	d.spoken = reports
	c.addBeside(d, true)
	d.exact = max(d.exact, c.ids)
	if c.beside = d.carries(); !c.beside {
		c.deltas = c.deltas[:0]
	}
}

// addBeside adds to a choice what stands beside it: where text of a model is known to
// be, and, where all says so, in any other member. The reader has begun with d.
func (c *chunk) addBeside(d *delta, all bool) {
	r := &c.reader
	for _, u := range c.strange {
		speech := isSpeech(u.key) || string(u.key) == "message" && u.value[0] == '{'
		switch r.place++; {
		case speech && !d.spoken && u.value[0] == '{':
			r.path = mix(mixNumber(2, 0), u.key)
			r.readMessage(u.value)
		case speech && (!d.spoken || !all):
			r.path = mix(mixNumber(2, 0), u.key)
			r.addOutput(u.value)
		case all:
			r.later(u.key, u.value)
		}
	}
	r.readUnknown(mixNumber(2, 0))
}
