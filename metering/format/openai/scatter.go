package openai

import (
	"bytes"
	"strconv"

	"sluice.example/sluice/metering/format/rawjson"
)

// StreamOf is the document of a client that asked for a stream, which checkObject
// accepted, as the events of one: all of it in one chunk, and its usage in another
// one where withUsage says that the client asked for it. EndFrame ends it.
func StreamOf(document []byte, withUsage bool) []byte {
	return streamOf(document, "chat.completion.chunk", withUsage)
}

// streamOf is StreamOf for chunks that are called object.
func streamOf(document []byte, object string, withUsage bool) []byte {
	document = bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' { // white space between the tokens of JSON
			return ' '
		}
		return r
	}, document)
	head := append(make([]byte, 0, len(document)+128), "data: {"...)
	var choices, usage []byte
	for w := rawjson.Members(document[rawjson.SkipSpace(document, 0):]); w.More(); {
		key, value := w.Member()
		switch string(key) {
		case "choices":
			choices = value
		case "usage":
			usage = value
		case "object":
			head = appendRaw(head, key, rawjson.Quote(object))
		default:
			head = appendRaw(head, key, value)
		}
	}
	out := append(append([]byte(nil), rawjson.Next(head)...), `"choices":[`...)
	for e := rawjson.Elements(choices); e.More(); {
		out = appendDelta(rawjson.Next(out), e.Value())
	}
	out = append(out, "]}\n\n"...)
	if withUsage && usage != nil && !rawjson.IsNull(usage) {
		out = append(append(append(out, rawjson.Next(head)...), `"choices":[],"usage":`...), usage...)
		out = append(out, "}\n\n"...)
	}
	return out
}

// appendDelta adds one choice of a document as that of a chunk.
func appendDelta(out, choice []byte) []byte {
	out = append(out, '{')
	for w := rawjson.Members(choice); w.More(); {
		key, value := w.Member()
		if string(key) != "message" {
			out = appendRaw(out, key, value)
			continue
		}
		out = append(rawjson.Next(out), `"delta":{`...)
		if rawjson.IsString(value) { // the content without a name
			out = appendRaw(out, []byte("content"), value)
		}
		for m := rawjson.Members(value); m.More(); {
			name, part := m.Member()
			if string(name) != "tool_calls" || part[0] != '[' {
				out = appendRaw(out, name, part)
				continue
			}
			out = append(rawjson.Next(out), `"tool_calls":[`...)
			var n int64
			for e := rawjson.Elements(part); e.More(); n++ {
				out = strconv.AppendInt(append(rawjson.Next(out), `{"index":`...), n, 10)
				for c := rawjson.Members(e.Value()); c.More(); {
					if name, part := c.Member(); string(name) != "index" {
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
	out = append(append(rawjson.Next(out), rawjson.Quote(string(key))...), ':')
	return append(out, value...)
}
