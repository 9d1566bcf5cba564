package openai

import (
	"bytes"
	"encoding/json"

	"sluice.example/sluice/metering/format"
)

// block is what the lines of one event say.
type block struct {
	data    []byte // without the blanks around it
	at      int    // where in the event data begins; -1: it was joined from several lines
	odd     bool   // the event cannot be sent on as it came
	failure bool   // it says that the backend failed, by its name or by its form
}

// readBlock takes an event apart. The usual event, a data line and a blank
// line, is left as it is. An event is odd where clients would stumble over it:
// over id and retry lines (some SDKs yield an empty event at each blank line after
// an id), over data in several lines, over CR as a line end, over a missing
// blank line, over lines that are no field of an event.
func (m *Meter) readBlock(event []byte) (b block) {
	lines, blank := 0, false
	b.odd = len(event) > 0 && event[0] == format.ByteOrderMark[0]
	for i := 0; i < len(event); {
		end, next := format.LineAt(event, i)
		b.odd = b.odd || next-end != 1 || event[end] != '\n'
		if blank = end == i; blank {
			break
		}
		name, value := format.FieldOf(event[i:end])
		switch string(name) {
		case "data":
			if lines++; lines == 1 {
				b.data, b.at = value, end-len(value)
				break
			}
			b.odd = true
			if b.at >= 0 {
				m.joined, b.at = append(m.joined[:0], b.data...), -1
			}
			m.joined = append(append(m.joined, '\n'), value...)
			b.data = m.joined
		case "event":
			b.failure = b.failure || string(value) != "message" && format.SpeaksOfError(value)
		case "": // a comment
			b.odd = b.odd || isOurs(event[i:end])
		case "error": // llama.cpp before it spoke of events
			b.failure, b.odd, b.data, b.at = true, true, value, end-len(value)
		default:
			b.odd = true
			if lines == 0 && isOutcry(name, event[i:end]) {
				b.failure, b.data, b.at = true, event[i:end], i
			}
		}
		i = next
	}
	b.odd = b.odd || !blank
	if b.data = bytes.TrimRight(b.data, " \t\n"); len(b.data) > 0 && b.data[0] == '\n' { // of empty lines
		b.data = bytes.TrimLeft(b.data, " \t\n")
	}
	return b
}

// isOutcry reports whether a line that is no field of an event says that the
// backend failed: an object, or words. Servers write both into a stream that has
// begun, because they cannot change its status any more.
func isOutcry(name, line []byte) bool {
	switch {
	case string(name) == "id", string(name) == "retry":
		return false
	case line[0] == '{' && format.IsObject(line):
		return true
	}
	return format.SpeaksOfError(line)
}

// isOurs reports whether a comment looks like the gateway's own: no backend may
// tell a client what it paid.
func isOurs(comment []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(comment, []byte(format.ByteOrderMark)), ": \t"), []byte("l402"))
}

// reframe is the event as every client can read it: its data in one line, then
// its name, then its comments, each line ended by LF, and a blank line.
func (m *Meter) reframe(event, data []byte) []byte {
	m.framed = append(append(append(m.framed[:0], "data: "...), data...), '\n')
	for i := len(m.framed) - 1 - len(data); i < len(m.framed)-1; i++ {
		if m.framed[i] == '\n' { // white space between the tokens of JSON
			m.framed[i] = ' '
		}
	}
	for i := 0; i < len(event); {
		end, next := format.LineAt(event, i)
		if name, value := format.FieldOf(event[i:end]); string(name) == "event" {
			m.framed = append(append(append(m.framed, "event: "...), value...), '\n')
		}
		i = next
	}
	m.framed = m.appendComments(m.framed, event)
	return append(m.framed, '\n')
}

// comments is what a client gets of an event without data: its comments, since
// they are signs of life, without the blank line, which would make an event.
func (m *Meter) comments(event []byte) []byte {
	m.framed = m.appendComments(m.framed[:0], event)
	if len(m.framed) == 0 {
		return nil
	}
	return m.framed
}

func (m *Meter) appendComments(out, event []byte) []byte {
	for i := 0; i < len(event); {
		end, next := format.LineAt(event, i)
		if line := bytes.TrimPrefix(event[i:end], []byte(format.ByteOrderMark)); format.IsComment(line) && !isOurs(line) {
			out = append(append(out, line...), '\n')
		}
		i = next
	}
	return out
}

// ErrorFrame appends to dst the block that ends a stream which is not whole.
// The official SDKs raise on it: the data comes first, the name behind it, and the
// comment, one line with its colon, last. No end marker may follow.
func ErrorFrame(dst []byte, message, kind, code, comment string) []byte {
	frame := struct {
		Error struct {
			Message string  `json:"message"`
			Type    string  `json:"type"`
			Param   *string `json:"param"`
			Code    string  `json:"code"`
		} `json:"error"`
	}{}
	frame.Error.Message, frame.Error.Type, frame.Error.Code = message, kind, code
	data, err := json.Marshal(frame)
	if err != nil { // strings always encode
		data = []byte(`{"error":{"message":"the answer is not whole","type":"error","param":null,"code":null}}`)
	}
	dst = append(append(append(dst, "data: "...), data...), "\nevent: error\n"...)
	return append(append(dst, comment...), "\n\n"...)
}

// EndFrame appends to dst the block that ends a whole stream: the comment, one
// line with its colon, directly before the line of the end marker.
func EndFrame(dst []byte, comment string) []byte {
	return append(append(dst, comment...), "\ndata: "+format.EndMarker+"\n\n"...)
}
