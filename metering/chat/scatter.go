package chat

import (
	"bytes"
	"strconv"
)

// StreamOf is the document of a client that asked for a stream, which checkObject
// accepted, as the events of one: all of it in one chunk, and its usage in another
// one where withUsage says that the client asked for it. EndFrame ends it.
func StreamOf(document []byte, withUsage bool) []byte {
	document = bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' { // white space between the tokens of JSON
			return ' '
		}
		return r
	}, document)
	head := append(make([]byte, 0, len(document)+128), "data: {"...)
	var choices, usage []byte
	for w := members(document[skipSpace(document, 0):]); w.more(); {
		key, value := w.member()
		switch string(key) {
		case "choices":
			choices = value
		case "usage":
			usage = value
		case "object":
			head = append(next(head), `"object":"chat.completion.chunk"`...)
		default:
			head = appendRaw(head, key, value)
		}
	}
	out := append(append([]byte(nil), next(head)...), `"choices":[`...)
	for e := elements(choices); e.more(); {
		out = appendDelta(next(out), e.value())
	}
	out = append(out, "]}\n\n"...)
	if withUsage && usage != nil && !isNull(usage) {
		out = append(append(append(out, next(head)...), `"choices":[],"usage":`...), usage...)
		out = append(out, "}\n\n"...)
	}
	return out
}

// appendDelta adds one choice of a document as that of a chunk.
func appendDelta(out, choice []byte) []byte {
	out = append(out, '{')
	for w := members(choice); w.more(); {
		key, value := w.member()
		if string(key) != "message" {
			out = appendRaw(out, key, value)
			continue
		}
		out = append(next(out), `"delta":{`...)
		if isString(value) { // the content without a name
			out = appendRaw(out, []byte("content"), value)
		}
		for m := members(value); m.more(); {
			name, part := m.member()
			if string(name) != "tool_calls" || part[0] != '[' {
				out = appendRaw(out, name, part)
				continue
			}
			out = append(next(out), `"tool_calls":[`...)
			var n int64
			for e := elements(part); e.more(); n++ {
				out = strconv.AppendInt(append(next(out), `{"index":`...), n, 10)
				for c := members(e.value()); c.more(); {
					if name, part := c.member(); string(name) != "index" {
						out = appendRaw(out, name, part)
					}
				}
				out = append(out, '}')
			}
			out = append(out, ']')
		}
		out = append(out, '}')
	}
	return append(out, '}')
}

// appendRaw adds a member to an object that is open.
func appendRaw(out, key, value []byte) []byte {
	out = append(append(next(out), quote(string(key))...), ':')
	return append(out, value...)
}
