package openai

import (
	"bytes"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// size is how long a prompt can become, gathered from the parts of a request.
type size struct {
	messages int64
	media    int64   // pictures, sounds, films and files
	text     int64   // UTF-8 bytes of text, however it is written: for estimates
	worst    int64   // bytes that the text can have when it reaches the tokenizer: for bounds
	open     string  // the first thing whose length the bytes do not bound; empty: none
	repeated bool    // it is read once per sequence
	unseen   int64   // the part of worst that a tokenizer of conversations is not shown
	tools    int64   // the part of worst that are definitions of tools
	prose    int64   // the part of worst that is plain text
	sink     *[]byte // collects the plain text; nil: it is only measured
	plain    []int64
}

// messageOverhead is what a template adds to a message, in bytes of text, for
// estimates: about 4 tokens.
const messageOverhead = 16

// unbound notes that what is named has a length that the bytes do not bound.
func (s *size) unbound(what string) {
	if s.open == "" {
		s.open = what
	}
}

// heavy notes the same of something that is read once per sequence.
func (s *size) heavy(what string) {
	if !s.repeated {
		s.open, s.repeated = what, true
	}
}

// addField adds a field of the request that is neither messages nor a number,
// and that Parse let through.
func (s *size) addField(m *member) {
	switch m.kind {
	case kindUnknown:
		s.addRendered(m.value)
	case kindRisky:
		s.addRisky(m)
	case kindRendered:
		s.addRendered(m.value)
	case kindTools:
		s.add(rawjson.TextBytes(m.value), rendered(m.value))
		s.tools += rendered(m.value)
	case kindScalars:
		s.addScalars(m.value)
	}
}

// addRendered adds JSON that a template may write into the prompt, and that a
// tokenizer is not shown.
func (s *size) addRendered(v []byte) {
	s.add(rawjson.TextBytes(v), rendered(v))
	s.unseen += rendered(v)
}

// addRisky adds what the owner allowed although it can lengthen a prompt.
func (s *size) addRisky(m *member) {
	switch m.key {
	case "audio":
		s.heavy("the field " + m.key)
	case "echo", "prompt_logprobs", "return_token_ids", "return_tokens_as_token_ids", "return_prompt_text", "guidance_scale", "cfg_scale":
	case "negative_prompt":
		s.addRendered(m.value)
	default:
		s.unbound("the field " + m.key)
	}
}

func (s *size) add(text, worst int64) {
	s.text += text
	s.worst += worst
}

// addScalars adds arguments of a template. A template may write each of them
// into every message.
func (s *size) addScalars(v []byte) {
	if rawjson.IsScalar(v) {
		s.plain = append(s.plain, rendered(v))
	}
	for c := rawjson.Members(v); c.More(); {
		_, value := c.Member()
		s.plain = append(s.plain, rendered(value))
	}
}

// addMessages adds a conversation that was screened.
func (s *size) addMessages(v []byte) {
	for c := rawjson.Elements(v); c.More(); {
		s.addMessage(c.Value())
		s.messages++
		s.text += messageOverhead
	}
}

// addMessage adds one message, an object.
func (s *size) addMessage(v []byte) {
	quoted := false // templates write the results of tools as JSON strings
	for c := rawjson.Members(v); c.More(); {
		if key, value := c.Member(); string(key) == "role" {
			quoted = quoted || !isProse(value)
		}
	}
	for c := rawjson.Members(v); c.More(); {
		key, value := c.Member()
		switch string(key) {
		case "content":
			s.addContent(value, quoted)
		case "role", "name", "tool_call_id", "refusal", "reasoning", "reasoning_content", "thinking":
			s.addText(value, quoted)
		case "tool_calls", "function_call", "tools":
			s.add(rawjson.TextBytes(value), rendered(value)+nested(value))
		}
	}
}

// isProse reports whether role, a value, is one whose content every template
// writes as it is.
func isProse(role []byte) bool {
	switch string(role) {
	case `"user"`, `"system"`, `"assistant"`, `"developer"`:
		return true
	}
	return false
}

// addContent adds the content of a message: text, or a list of parts.
func (s *size) addContent(v []byte, quoted bool) {
	if rawjson.IsString(v) {
		s.addText(v, quoted)
		return
	}
	media := s.media
	for c := rawjson.Elements(v); c.More(); {
		s.addPart(c.Value(), quoted)
	}
	if quoted && media == s.media {
		s.worst += rendered(v)
	}
}

// addPart adds one part of a content: text, or media whose length is not that of
// its bytes.
func (s *size) addPart(v []byte, quoted bool) {
	if rawjson.IsString(v) {
		s.addText(v, quoted)
		return
	}
	media := false
	for c := rawjson.Members(v); c.More(); {
		key, value := c.Member()
		switch string(key) {
		case "type":
			media = media || isMediaType(value)
		case "text", "refusal", "thinking", "reasoning":
			s.addText(value, quoted)
		case "image_url", "audio_url", "video_url", "input_audio", "file":
			media = true
		}
	}
	if media {
		s.media++
	}
	s.add(1, 2) // parts are joined with a line end or a space
}

// isTextType reports whether v is the type of a part that is text.
func isTextType(v []byte) bool {
	switch string(v) {
	case `"text"`, `"refusal"`, `"thinking"`, `"reasoning"`, `"input_text"`, `"output_text"`:
		return true
	}
	return false
}

// addText adds a string, or nothing for null.
func (s *size) addText(v []byte, quoted bool) {
	if !rawjson.IsString(v) {
		return
	}
	if quoted {
		text := v[1 : len(v)-1]
		s.add(rawjson.TextBytes(text), quotedBytes(text)+2)
		return
	}
	size := sizeOf(v)
	s.add(size.bytes, size.most)
	s.prose += size.most
	if s.sink != nil {
		*s.sink = append(append(*s.sink, rawjson.Unquote(v)...), '\n')
	}
}

// rendered bounds the bytes of the JSON value v after a template wrote it
// anew: indented by 4, every character outside ASCII as a \u escape, the
// characters that HTML reserves as well, and numbers as Python writes them.
// v need not be valid.
func rendered(v []byte) int64 {
	var n, depth int64
	for i := 0; i < len(v); {
		switch c := v[i]; c {
		case '"':
			end := stringEnd(v, i)
			n += 2 + quotedBytes(v[i+1:max(i+1, end-1)])
			i = end
			continue
		case '{', '[':
			depth++
			n += 2 + 4*depth
		case '}', ']':
			n += 2 + 4*depth
			depth = max(0, depth-1)
		case ',':
			n += 2 + 4*depth
		case ':':
			n += 2
		case ' ', '\n', '\r', '\t':
		default:
			start := i
			for i < len(v) && !rawjson.IsDelimiter(v[i]) {
				i++
			}
			n += scalarBytes(v[start:i])
			continue
		}
		i++
	}
	return n
}

// stringEnd is the index behind the string at v[i], or the end of v.
func stringEnd(v []byte, i int) int {
	for i++; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(v)
}

// scalarBytes bounds a number or literal. Python writes 1e5 as 100000.0; no
// float takes more than 24 characters.
func scalarBytes(v []byte) int64 {
	n := int64(len(v))
	if (v[0] == '-' || v[0] <= '9') && bytes.ContainsAny(v, ".eE") {
		return max(n, 24)
	}
	return n
}

// quotedBytes bounds the bytes of the inside of a JSON string after it was
// escaped anew: a character outside ASCII becomes a \u escape (6 bytes for 2 or 3)
// or a surrogate pair (12 for 4), and <, >, & and ' become escapes where a
// template engine guards HTML.
func quotedBytes(raw []byte) int64 {
	n := int64(len(raw))
	for _, c := range raw {
		switch {
		case c >= 0x80:
			n += 2
		case c == '<' || c == '>' || c == '&' || c == '\'':
			n += 5
		}
	}
	return n
}

// nested bounds what the strings within v add that are themselves JSON, such
// as the arguments of a tool call: templates parse and render them.
func nested(v []byte) int64 {
	var n int64
	for i := 0; i < len(v); i++ {
		if v[i] != '"' {
			continue
		}
		end := rawjson.SkipString(v, i)
		if text := rawjson.Unquote(v[i:end]); bytes.ContainsAny(text, "{[") {
			n += rendered(text)
		}
		i = end - 1
	}
	return n
}

// bytes bounds the prompt in tokens: a token is never shorter than a byte.
func (s *size) bytes() int64 {
	n := s.worst
	for _, p := range s.plain {
		n = format.AddSat(n, format.MulSat(p, s.messages+1))
	}
	return n
}
