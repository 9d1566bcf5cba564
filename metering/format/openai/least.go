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

// leastContext is how many tokens of a text every model can read: fewer than the
// shortest context of 2026.
const leastContext = 128

// readOfEach is how many tokens of each text an engine reads at most, where members ask
// it to read less than all; else the largest int64.
func readOfEach(members []member) int64 {
	most := int64(format.MaxInt64)
	for i := range members {
		m := &members[i]
		cuts := strings.HasPrefix(m.key, "truncat") && !strings.HasSuffix(m.key, "side") || m.key == "max_tokens_per_doc"
		if !cuts || m.dropped || isNeutral(m.value) {
			continue
		}
		n, ok := rawjson.Whole(m.value)
		if !ok || n < 1 { // as many as the model can read
			n = leastContext
		}
		most = min(most, n)
	}
	return most
}

// truncation is how many tokens of each prompt the client asks the engine to read at
// most; the largest int64: all that the model can read.
func truncation(members []member) int64 {
	for i := range members {
		m := &members[i]
		if n, ok := rawjson.Whole(m.value); ok && n >= 1 && m.key == "truncate_prompt_tokens" && !m.dropped {
			return n
		}
	}
	return format.MaxInt64
}

// truncated is how many tokens of all prompts the client asks the engine to read at most.
func (r *Request) truncated() (tokens int64) {
	each := truncation(r.members)
	if r.messages != nil || each == format.MaxInt64 {
		return each
	}
	for i := range r.prompts {
		if p := &r.prompts[i]; p.text == nil {
			tokens = format.AddSat(tokens, min(each, p.tokens))
		} else {
			tokens = format.AddSat(tokens, each)
		}
	}
	return tokens
}

// floor adds up the fewest tokens that the texts of a request can be.
type floor struct {
	most  int64 // tokens that are read of each text, at most
	each  int64 // tokens, one text by one
	ids   int64 // those of each that were sent by their numbers
	dense int64 // dense bytes of all texts, as far as they are read
}

// addText adds a text, of so many dense bytes. One without any may be no token, because
// engines strip blanks.
func (f *floor) addText(dense int64) {
	if dense > 0 {
		f.each = format.AddSat(f.each, f.truncated(max(1, leastTokens(dense))))
	}
}

// addDense adds the dense bytes of a text, which one token takes MaxBytesPerToken of.
func (f *floor) addDense(dense int64) {
	f.dense = format.AddSat(f.dense, min(dense, format.MulSat(f.most, format.MaxBytesPerToken)))
}

// addIDs adds a text that was sent as so many tokens.
func (f *floor) addIDs(tokens int64) {
	f.ids, f.each = format.AddSat(f.ids, f.truncated(tokens)), format.AddSat(f.each, f.truncated(tokens))
}

// truncated is what an engine reads of a text of so many tokens.
func (f *floor) truncated(tokens int64) int64 { return min(f.most, tokens) }

// tokens is the fewest tokens that all of them can be. Many short texts are no fewer than
// one that is as long.
func (f *floor) tokens() int64 { return max(f.each, format.AddSat(f.ids, leastTokens(f.dense))) }

// least is the fewest tokens that the prompt can be: as many as token ids were sent,
// and one for each MaxBytesPerToken bytes of text. What templates may leave out counts
// as nothing: calls, definitions of tools, and what an assistant said before.
func (r *Request) least() int64 {
	f := floor{most: readOfEach(r.members)}
	for i := range r.prompts {
		if p := &r.prompts[i]; p.text == nil {
			f.addIDs(p.tokens)
		} else {
			bytes := p.dense()
			f.addText(bytes)
			f.addDense(bytes)
		}
	}
	if r.messages != nil {
		f.addText(r.denseMessages())
	}
	return f.tokens()
}

// dense is the dense bytes of a prompt; 0 where it is a list of tokens.
func (p *prompt) dense() int64 {
	if p.text == nil {
		return 0
	}
	return dense(p.text[1 : len(p.text)-1])
}

// denseMessages is the dense bytes of a conversation that every template writes.
func (r *Request) denseMessages() (n int64) {
	for c := rawjson.Elements(r.messages); c.More(); {
		n = format.AddSat(n, denseMessage(c.Value()))
	}
	return n
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
	prompts := int64(len(r.prompts))
	if tokens >= r.ids && tokens >= prompts && (r.size.text <= fewBytes || tokens >= prompts+r.size.text/format.MaxBytesPerToken) {
		return true
	}
	if !m.measured {
		m.fewest, m.measured = min(r.least(), m.bound.Input), true
	}
	return tokens >= m.fewest
}

// least is the fewest tokens that the texts and token ids can be, each at most as many
// as a model reads of one; 0: not known. In the sum over all texts, one that is read in
// several pairs counts once.
func (r *inputs) least(most int64) (n int64) {
	f := floor{most: readOfEach(r.members)}
	if most > 0 {
		f.most = min(f.most, most)
	}
	for _, tokens := range r.ids {
		f.addIDs(tokens)
	}
	var sides [2][]int64
	for i, v := range r.sides {
		sides[i] = denseOfEach(v)
		for _, bytes := range sides[i] {
			f.addDense(bytes)
		}
	}
	for i := range r.texts {
		var bytes int64
		for _, side := range sides {
			if len(side) > 0 {
				bytes += side[i%len(side)]
			}
		}
		f.addText(bytes)
	}
	return f.tokens()
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
	ids := m.request.idTokens(m.bound.Each)
	if tokens >= ids && tokens >= int64(len(m.request.texts))+m.request.PromptBytes()/format.MaxBytesPerToken {
		return true
	}
	return tokens >= min(m.request.least(m.bound.Each), m.bound.Input)
}
