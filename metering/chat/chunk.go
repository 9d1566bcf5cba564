package chat

import (
	"bytes"
	"unicode/utf8"
)

// delta is what one chunk, or a whole answer, adds to one choice.
type delta struct {
	index     int64
	bytes     int64 // of text, tool calls and reasoning included
	reasoning bool  // some of it is reasoning
	finished  bool  // it carries a finish_reason
	reported  bool  // tokens holds the running usage that came with it
	tokens    int64
	text      []byte // the text itself, where it is kept
}

// chunk is what the meter reads from one JSON object of an answer.
type chunk struct {
	deltas []delta
	usage  []byte // the value of the member usage, null included; nil: none
	failed bool   // it has an error
}

// read takes the JSON object v apart; checkValue accepted it. It reuses the
// memory of c.
func (c *chunk) read(v []byte, keepText bool) {
	c.deltas, c.usage, c.failed = c.deltas[:0], nil, false
	for w := members(v); w.more(); {
		key, value := w.member()
		switch string(key) {
		case "choices":
			for e := elements(value); e.more(); {
				c.readChoice(e.value(), keepText)
			}
		case "usage":
			c.usage = value
		case "error":
			c.failed = c.failed || !isNull(value)
		}
	}
}

// maxDeltas bounds the deltas of one chunk that are told apart; servers send
// one, or one for each choice.
const maxDeltas = 2 * maxChoices

// next is the next delta to fill, with the memory that it had. Beyond
// maxDeltas the last one takes all others.
func (c *chunk) next() *delta {
	if len(c.deltas) == maxDeltas {
		return &c.deltas[maxDeltas-1]
	}
	if len(c.deltas) < cap(c.deltas) {
		c.deltas = c.deltas[:len(c.deltas)+1]
	} else {
		c.deltas = append(c.deltas, delta{})
	}
	d := &c.deltas[len(c.deltas)-1]
	*d = delta{text: d.text[:0]}
	return d
}

func (c *chunk) readChoice(v []byte, keepText bool) {
	if v[0] != '{' {
		return
	}
	d := c.next()
	for w := members(v); w.more(); {
		key, value := w.member()
		switch string(key) {
		case "index":
			d.index, _ = number(value)
		case "delta", "message":
			d.readMessage(value, keepText)
		case "text":
			d.add(value, keepText)
		case "finish_reason":
			d.finished = d.finished || !isNull(value)
		}
	}
}

// readMessage adds what the model wrote: the content, a refusal, tool calls
// and reasoning, which some servers send under two names at once.
func (d *delta) readMessage(v []byte, keepText bool) {
	var reasoning []byte
	for w := members(v); w.more(); {
		key, value := w.member()
		switch string(key) {
		case "content":
			d.addContent(value, keepText)
		case "refusal":
			d.add(value, keepText)
		case "reasoning", "reasoning_content", "thinking":
			if len(value) > len(reasoning) && isString(value) {
				reasoning = value
			}
		case "tool_calls":
			for calls := elements(value); calls.more(); {
				d.addCall(calls.value(), keepText)
			}
		case "function_call":
			d.addFunction(value, keepText)
		}
	}
	before := d.bytes
	d.add(reasoning, keepText)
	d.reasoning = d.reasoning || d.bytes > before
}

// addContent adds text, or the texts of a list of parts.
func (d *delta) addContent(v []byte, keepText bool) {
	if len(v) > 0 && v[0] == '[' {
		for parts := elements(v); parts.more(); {
			for part := members(parts.value()); part.more(); {
				if key, value := part.member(); string(key) == "text" {
					d.add(value, keepText)
				}
			}
		}
		return
	}
	d.add(v, keepText)
}

// addCall adds the function of one tool call.
func (d *delta) addCall(v []byte, keepText bool) {
	for w := members(v); w.more(); {
		if key, value := w.member(); string(key) == "function" || string(key) == "custom" {
			d.addFunction(value, keepText)
		}
	}
}

// addFunction adds what the model wrote of a call: its name and arguments.
func (d *delta) addFunction(v []byte, keepText bool) {
	if len(v) == 0 || v[0] != '{' {
		return
	}
	for w := members(v); w.more(); {
		switch key, value := w.member(); string(key) {
		case "name", "input":
			d.add(value, keepText)
		case "arguments":
			if !isScalar(value) { // some servers send them parsed
				value = quote(string(value))
			}
			d.add(value, keepText)
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

// removeUsage appends to dst the object v, which checkValue accepted, without
// its members named usage.
func removeUsage(dst, v []byte) []byte {
	kept := 0 // v[:kept] is in dst
	first := true
	for c := members(v); ; {
		before := c.i // behind the member before, or the opening brace
		if !c.more() {
			return append(dst, v[kept:]...)
		}
		start := c.i
		key, _ := c.member()
		if string(key) != "usage" {
			first = false
			continue
		}
		if first { // drop it up to and with the comma behind it
			dst = append(dst, v[kept:start]...)
			if kept = c.i; c.more() {
				kept = c.i
			}
			continue
		}
		dst = append(dst, v[kept:before]...) // drop it from the comma before it
		kept = c.i
	}
}
