package openai

import (
	"strings"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// leastTokens is the fewest tokens that so many dense bytes of text can be; 0: there
// are too few of them to say.
func leastTokens(dense int64) int64 {
	if dense <= fewBytes {
		return 0
	}
	return dense / format.MaxBytesPerToken
}

// shortens reports whether members ask an engine to read less than all of a text.
func shortens(members []member) bool {
	for i := range members {
		m := &members[i]
		cuts := strings.HasPrefix(m.key, "truncat") && !strings.HasSuffix(m.key, "side") || m.key == "max_tokens_per_doc"
		if cuts && !m.dropped && !isNeutral(m.value) {
			return true
		}
	}
	return false
}

// least is the fewest tokens that the prompt can be: as many as token ids were sent,
// and one for each MaxBytesPerToken bytes of text. What templates may leave out counts
// as nothing: calls, definitions of tools, and what an assistant said before.
func (r *Request) least() int64 {
	if shortens(r.members) {
		return 0
	}
	var bytes int64
	for i := range r.members {
		switch m := &r.members[i]; m.kind {
		case kindPrompt:
			bytes = format.AddSat(bytes, denseWithin(m.value))
		case kindMessages:
			for c := rawjson.Elements(m.value); c.More(); {
				bytes = format.AddSat(bytes, denseMessage(c.Value()))
			}
		}
	}
	return format.AddSat(r.ids, leastTokens(bytes))
}

// denseMessage is the dense bytes of a message that every template writes.
func denseMessage(v []byte) (n int64) {
	written := false
	for c := rawjson.Members(v); c.More(); {
		switch key, value := c.Member(); string(key) {
		case "role":
			written = string(value) != `"assistant"`
		case "content":
			n = denseWithin(value)
		}
	}
	if !written {
		return 0
	}
	return n
}

// denseWithin is the dense bytes of a text, or of the texts of a list. The parts of a
// message have theirs in the member text.
func denseWithin(v []byte) (n int64) {
	if rawjson.IsString(v) {
		return dense(v[1 : len(v)-1])
	}
	for c := rawjson.Elements(v); c.More(); {
		part := c.Value()
		if rawjson.IsString(part) {
			n = format.AddSat(n, dense(part[1:len(part)-1]))
		}
		for w := rawjson.Members(part); w.More(); {
			if key, value := w.Member(); string(key) == "text" && rawjson.IsString(value) {
				n = format.AddSat(n, dense(value[1:len(value)-1]))
			}
		}
	}
	return n
}

// canBePrompt reports whether the prompt can be so few tokens. The text is looked at
// once, and only where its length casts a doubt.
func (m *Meter) canBePrompt(tokens int64) bool {
	r := m.request
	if tokens >= r.ids && (r.size.text <= fewBytes || tokens >= r.size.text/format.MaxBytesPerToken) {
		return true
	}
	if !m.measured {
		m.fewest, m.measured = min(r.least(), m.bound.Input), true
	}
	return tokens >= m.fewest
}

// least is the fewest tokens that the texts and token ids can be, each at most as many
// as a model reads of one; 0: not known.
func (r *inputs) least(most int64) (n int64) {
	if shortens(r.members) {
		return 0
	}
	within := func(tokens int64) {
		if most > 0 {
			tokens = min(tokens, most)
		}
		n = format.AddSat(n, tokens)
	}
	for _, tokens := range r.ids {
		within(tokens)
	}
	var sides [2][]int64
	for i, v := range r.sides {
		sides[i] = denseOfEach(v)
	}
	for i := range r.texts {
		var bytes int64
		for _, side := range sides {
			if len(side) > 0 {
				bytes += side[i%len(side)]
			}
		}
		within(leastTokens(bytes))
	}
	return n
}

// denseOfEach is the dense bytes of a text, or of each text of a list.
func denseOfEach(v []byte) (all []int64) {
	if rawjson.IsString(v) {
		return []int64{dense(v[1 : len(v)-1])}
	}
	for c := rawjson.Elements(v); c.More(); {
		if text := textOf(c.Value()); text != nil {
			all = append(all, dense(text[1:len(text)-1]))
		}
	}
	return all
}

// canBeRead reports whether so few tokens can have been read.
func (m *inputMeter) canBeRead(tokens int64) bool {
	ids := m.request.idTokens()
	if tokens >= ids && tokens >= m.request.PromptBytes()/format.MaxBytesPerToken {
		return true
	}
	return tokens >= min(m.request.least(m.bound.Each), m.bound.Input)
}
