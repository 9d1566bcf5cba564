package chat

import (
	"bytes"
	"unicode/utf8"
)

// readMessage adds what the model wrote: the content, a refusal, tool calls,
// reasoning, which some servers send under several names at once, sound, and
// whatever else carries text. fault is an error that stands there instead.
func (d *delta) readMessage(v []byte, keepText bool) (fault []byte) {
	var reasoning, details []byte
	for w := members(v); w.more(); {
		key, value := w.member()
		switch string(key) {
		case "content":
			d.addContent(value, keepText)
		case "refusal":
			d.add(value, keepText)
		case "reasoning", "reasoning_content", "thinking", "reasoning_text":
			if len(value) > len(reasoning) && isString(value) {
				reasoning = value
			} else if !isString(value) {
				details = value
			}
		case "reasoning_details", "thinking_blocks":
			details = value
		case "tool_calls":
			for calls := elements(value); calls.more(); {
				d.addCall(calls.value(), keepText)
			}
		case "function_call":
			d.addFunction(value, keepText)
		case "audio":
			d.addAudio(value, keepText)
		case "token_ids":
			d.exact = max(d.exact, count(value))
		case "role", "name", "id", "annotations", "citations", "tool_call_id":
		default:
			if isFault(key, value) {
				fault = value
				continue
			}
			d.addForeign(value, keepText)
		}
	}
	before := d.bytes
	if len(reasoning) > 2 {
		d.add(reasoning, keepText)
	} else if details != nil {
		d.addAny(details, keepText)
	}
	d.reasoning = d.reasoning || d.bytes > before
	return fault
}

// addContent adds text, or the texts of a list of parts.
func (d *delta) addContent(v []byte, keepText bool) {
	if len(v) > 0 && v[0] == '[' {
		for parts := elements(v); parts.more(); {
			d.addAny(parts.value(), keepText)
		}
		return
	}
	d.add(v, keepText)
}

// addAudio adds sound: its transcript is text, and nothing tells how many tokens
// its samples are, so that they count as one.
func (d *delta) addAudio(v []byte, keepText bool) {
	for w := members(v); w.more(); {
		switch key, value := w.member(); string(key) {
		case "transcript":
			d.add(value, keepText)
		case "data":
			d.opaque = d.opaque || !saysNothing(value)
		}
	}
}

// addAny adds every text within a value, whatever its members are called, but
// for those that only name things. An address, or data in one, is no text: it
// counts as one token.
func (d *delta) addAny(v []byte, keepText bool) {
	switch {
	case isString(v):
		if isAddress(v) {
			d.opaque = true
			return
		}
		d.add(v, keepText)
	case v[0] == '[':
		for e := elements(v); e.more(); {
			d.addAny(e.value(), keepText)
		}
	case v[0] == '{':
		for w := members(v); w.more(); {
			switch key, value := w.member(); string(key) {
			case "type", "id", "index", "role", "format", "status", "object":
			case "signature", "encrypted", "encrypted_content": // seals, not words
				d.opaque = d.opaque || hasText(value)
			default:
				d.addAny(value, keepText)
			}
		}
	}
}

// isAddress reports whether a string is an address rather than words.
func isAddress(v []byte) bool {
	for _, scheme := range [...]string{`"data:`, `"http://`, `"https://`} {
		if len(v) >= len(scheme) && string(v[:len(scheme)]) == scheme {
			return bytes.IndexByte(v, ' ') < 0
		}
	}
	return false
}

// hasText reports whether there is a string within a value that is not empty.
func hasText(v []byte) bool {
	switch v[0] {
	case '"':
		return len(v) > 2
	case '[':
		for e := elements(v); e.more(); {
			if hasText(e.value()) {
				return true
			}
		}
	case '{':
		for w := members(v); w.more(); {
			if _, value := w.member(); hasText(value) {
				return true
			}
		}
	}
	return false
}

// addCall adds one tool call.
func (d *delta) addCall(v []byte, keepText bool) {
	d.called = true
	for w := members(v); w.more(); {
		switch key, value := w.member(); string(key) {
		case "function", "custom":
			d.addFunction(value, keepText)
		case "id", "type", "index":
		default:
			d.addAny(value, keepText)
		}
	}
}

// addFunction adds what the model wrote of a call: its name and arguments.
func (d *delta) addFunction(v []byte, keepText bool) {
	if len(v) == 0 || v[0] != '{' {
		return
	}
	d.called = true
	for w := members(v); w.more(); {
		switch key, value := w.member(); string(key) {
		case "arguments":
			if !isScalar(value) { // some servers send them parsed
				value = quote(string(value))
			}
			d.add(value, keepText)
		default:
			d.addAny(value, keepText)
		}
	}
}

// add adds a string; anything else adds nothing.
func (d *delta) add(v []byte, keepText bool) {
	if !isString(v) {
		return
	}
	if keepText {
		text := unquote(v)
		d.bytes += int64(len(text))
		d.text = append(d.text, text...)
		return
	}
	d.bytes += textBytes(v[1 : len(v)-1])
}

// textBytes is the number of UTF-8 bytes that the inside of a JSON string
// stands for.
func textBytes(raw []byte) int64 {
	n := int64(len(raw))
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return n
		}
		if raw[i+1] != 'u' {
			n--
			raw = raw[i+2:]
			continue
		}
		r := hexRune(raw[i+2 : i+6])
		raw = raw[i+6:]
		if r >= 0xd800 && r < 0xdc00 && len(raw) >= 6 && raw[0] == '\\' && raw[1] == 'u' {
			if low := hexRune(raw[2:6]); low >= 0xdc00 && low < 0xe000 {
				raw = raw[6:]
				n -= 12 - 4
				continue
			}
		}
		size := utf8.RuneLen(r)
		if size < 0 {
			size = 3 // a lone surrogate becomes U+FFFD
		}
		n -= int64(6 - size)
	}
}

// hexRune is the number that four hexadecimal digits stand for.
func hexRune(b []byte) rune {
	var r rune
	for _, c := range b {
		switch {
		case c <= '9':
			r = r<<4 | rune(c-'0')
		default:
			r = r<<4 | rune(c|0x20-'a'+10)
		}
	}
	return r
}
