package chat

import (
	"bytes"
	"math/bits"

	"golang.org/x/text/unicode/norm"
)

// size is how long a prompt can become, gathered from the parts of a request.
type size struct {
	messages int64
	text     int64  // bytes of text as received: for estimates
	worst    int64  // bytes that the text can have when it reaches the tokenizer: for bounds
	open     string // the first thing whose length the bytes do not bound; empty: none
	repeated bool   // it is read once per sequence
	unseen   int64  // the part of worst that a tokenizer is not shown
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

// addField adds a field of the request that is neither messages nor a number.
func (s *size) addField(m member) {
	switch m.kind {
	case kindUnknown:
		s.unbound("the field " + clip(m.key))
	case kindHeavy:
		s.heavy("the field " + m.key)
	case kindRendered:
		s.add(int64(len(m.value)), rendered(m.value))
		s.unseen += rendered(m.value)
	case kindTools:
		s.addTools(m.value)
	case kindScalars:
		s.addScalars(m.key, m.value)
	case kindModalities:
		if m.value[0] != '[' {
			s.heavy("an output other than text")
		}
		for c := elements(m.value); c.more(); {
			if string(c.value()) != `"text"` {
				s.heavy("an output other than text")
			}
		}
	}
}

func (s *size) add(text, worst int64) {
	s.text += text
	s.worst += worst
}

// addTools adds the definitions of tools. Only functions, which the client
// runs, are bounded; a tool that the backend runs feeds its results back.
func (s *size) addTools(v []byte) {
	if v[0] != '[' {
		s.heavy("tools that are no list")
		return
	}
	for c := elements(v); c.more(); {
		tool := c.value()
		if tool[0] != '{' {
			s.heavy("a tool that is no object")
		}
		for t := members(tool); t.more(); {
			key, value := t.member()
			switch string(key) {
			case "function":
			case "type":
				if string(value) != `"function"` {
					s.heavy("a tool of type " + clip(string(unquoteAny(value))))
				}
			default:
				if !isScalar(value) {
					s.heavy("the member " + clip(string(key)) + " of a tool")
				}
			}
		}
	}
	s.add(int64(len(v)), rendered(v))
}

// addScalars adds arguments of a template. A template may write each of them
// into every message, and can make any list as long as it likes, so only
// plain values are bounded.
func (s *size) addScalars(name string, v []byte) {
	if v[0] != '{' {
		s.unbound("the field " + name)
		return
	}
	for c := members(v); c.more(); {
		key, value := c.member()
		if !isScalar(value) {
			s.unbound("the list or object " + clip(string(key)) + " in " + name)
			return
		}
		s.plain = append(s.plain, rendered(value))
	}
}

// isScalar reports whether v is neither an object nor an array.
func isScalar(v []byte) bool { return v[0] != '{' && v[0] != '[' }

// addMessages adds the conversation.
func (s *size) addMessages(v []byte) error {
	if v[0] != '[' {
		return refuse("messages must be a list of messages")
	}
	for c := elements(v); c.more(); {
		message := c.value()
		if message[0] != '{' {
			return refuse("messages[%d] must be an object with a role and a content", s.messages)
		}
		s.addMessage(message)
		s.messages++
		s.text += messageOverhead
	}
	return nil
}

// addMessage adds one message, an object.
func (s *size) addMessage(v []byte) {
	quoted := false // templates write the results of tools as JSON strings
	for c := members(v); c.more(); {
		if key, value := c.member(); string(key) == "role" {
			quoted = quoted || !isProse(value)
		}
	}
	for c := members(v); c.more(); {
		key, value := c.member()
		switch string(key) {
		case "content":
			s.addContent(value, quoted)
		case "role", "name", "tool_call_id", "refusal", "reasoning", "reasoning_content", "thinking":
			if !isString(value) && !isNull(value) {
				s.unbound("the member " + string(key) + " of a message")
			} else {
				s.addText(value, quoted)
			}
		case "tool_calls", "function_call", "tools":
			s.add(int64(len(value)), rendered(value)+nested(value))
		default:
			if isString(value) || !isScalar(value) {
				s.unbound("the member " + clip(string(key)) + " of a message")
			}
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

// addContent adds the content of a message: text, or a list of parts of which
// only text is bounded.
func (s *size) addContent(v []byte, quoted bool) {
	switch {
	case isString(v):
		s.addText(v, quoted)
	case v[0] == '[':
		for c := elements(v); c.more(); {
			s.addPart(c.value(), quoted)
		}
		if quoted {
			s.worst += rendered(v)
		}
	case !isNull(v):
		s.unbound("a message's content that is no text")
	}
}

// addPart adds one part of a content. A part is text only when all of its
// members are a text's: some servers go by the members, not by the type.
func (s *size) addPart(v []byte, quoted bool) {
	if isString(v) {
		s.addText(v, quoted)
		return
	}
	if v[0] != '{' {
		s.unbound("a content part that is no object")
	}
	for c := members(v); c.more(); {
		key, value := c.member()
		switch name := string(key); {
		case name == "type" && isTextType(value):
		case (name == "text" || name == "refusal" || name == "thinking") && (isString(value) || isNull(value)):
			s.addText(value, quoted)
		case name == "type" && isString(value):
			s.unbound("a content part of type " + clip(string(unquote(value))))
		case name != "cache_control":
			s.unbound("the member " + clip(name) + " of a content part")
		}
	}
	s.add(1, 2) // parts are joined with a line end or a space
}

// isTextType reports whether v is the type of a part that is text.
func isTextType(v []byte) bool {
	switch string(v) {
	case `"text"`, `"refusal"`, `"thinking"`, `"input_text"`, `"output_text"`:
		return true
	}
	return false
}

// addText adds a string, or nothing for null.
func (s *size) addText(v []byte, quoted bool) {
	if !isString(v) {
		return
	}
	text := v[1 : len(v)-1]
	s.text += int64(len(text))
	if quoted {
		s.worst += quotedBytes(text) + 2
	} else {
		s.worst += proseBytes(text)
	}
}

// proseBytes bounds the UTF-8 bytes of the text of a JSON string after a
// tokenizer has normalised it. An escape is never shorter than what it stands
// for. Normalisation form C, which many tokenizers apply, at most triples
// text that is not in that form already (Unicode FAQ on normalisation).
func proseBytes(raw []byte) int64 {
	n := int64(len(raw))
	if isASCII(raw) {
		return n
	}
	return n + 2*(n-int64(norm.NFC.QuickSpan(raw)))
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
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
			for i < len(v) && !isDelimiter(v[i]) {
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
		end := skipString(v, i)
		if text := unquote(v[i:end]); bytes.ContainsAny(text, "{[") {
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
		n = addSat(n, mulSat(p, s.messages+1))
	}
	return n
}

// mulSat is a·b, at most the largest int64; neither is negative.
func mulSat(a, b int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi != 0 || lo > maxInt64 {
		return maxInt64
	}
	return int64(lo)
}

// addSat is a+b, at most the largest int64; neither is negative.
func addSat(a, b int64) int64 {
	if a > maxInt64-b {
		return maxInt64
	}
	return a + b
}

const maxInt64 = 1<<63 - 1
