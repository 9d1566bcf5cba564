package client

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// maxEvent bounds the data of one event, and the length of one line, in bytes.
const maxEvent = 16 << 20

// Event is one server-sent event of an answer.
type Event struct {
	Name     string   // value of the event line; "": an ordinary message
	Data     []byte   // the data lines, joined with \n; nil: the event has no data. Valid until the next call of Next
	Comments []string // the comment lines, each with its leading colon; see ParseCostComment
}

// EventReader reads an answer that comes as server-sent events (HTML standard, section 9.2). It
// returns the comments too, because a gateway sends the cost of a stream in a comment. Most event
// parsers drop comments.
//
//	for events := client.NewEventReader(resp.Body); ; {
//		event, err := events.Next()
//		if errors.Is(err, io.EOF) {
//			break
//		}
//		...
//	}
type EventReader struct {
	lines   *bufio.Scanner
	begun   bool // the first line was read
	afterCR bool // the line before ended with \r, so that a \n after it belongs to the same line end
	data    []byte
	held    int // bytes of the event's lines so far
}

// NewEventReader reads events from r.
func NewEventReader(r io.Reader) *EventReader {
	e := &EventReader{lines: bufio.NewScanner(r), data: make([]byte, 0, 256)}
	e.lines.Buffer(make([]byte, 0, 4096), maxEvent)
	e.lines.Split(e.splitLine)
	return e
}

// Next returns the next event as soon as the blank line after it has come. Comments that belong to
// no event are returned as an event without data. At the end of the stream the error is io.EOF. An
// event that the end of the stream cuts off is dropped, as the standard requires. An event or a
// line longer than 16 MiB, comments included, fails with an error that wraps bufio.ErrTooLong.
func (e *EventReader) Next() (Event, error) {
	var event Event
	e.held = 0
	for e.lines.Scan() {
		line := e.lines.Bytes()
		if !e.begun {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
			e.begun = true
		}
		if len(line) > 0 {
			if err := e.add(&event, line); err != nil {
				return Event{}, err
			}
			continue
		}
		if event.Name != "" || event.Data != nil || event.Comments != nil {
			return event, nil
		}
	}
	if err := e.lines.Err(); err != nil {
		return Event{}, fmt.Errorf("read the stream: %w", err)
	}
	return Event{}, io.EOF
}

// add adds one line to the event. It ignores fields other than data and event.
func (e *EventReader) add(event *Event, line []byte) error {
	// A line counts with the header of its string, because a server may send empty comments for ever.
	if e.held += len(line) + 16; e.held > maxEvent {
		return fmt.Errorf("read the stream: an event: %w", bufio.ErrTooLong)
	}
	if line[0] == ':' {
		event.Comments = append(event.Comments, string(line))
		return nil
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "event":
		event.Name = string(value)
	case "data":
		if event.Data == nil {
			e.data = e.data[:0]
		} else {
			e.data = append(e.data, '\n')
		}
		e.data = append(e.data, value...)
		event.Data = e.data
	}
	return nil
}

// splitLine is a bufio.SplitFunc for lines that end with \n, \r\n or \r. After a \r it does not
// wait for the next byte, which may take long to come. Bytes after the last line end are dropped.
func (e *EventReader) splitLine(data []byte, _ bool) (advance int, line []byte, err error) {
	if len(data) == 0 {
		return 0, nil, nil
	}
	begin := 0
	if e.afterCR && data[0] == '\n' {
		begin = 1
	}
	line = data[begin:]
	end := bytes.IndexByte(line, '\n')
	if end >= 0 {
		line = line[:end]
	}
	if cr := bytes.IndexByte(line, '\r'); cr >= 0 {
		end = cr
	}
	if end < 0 {
		return 0, nil, nil // afterCR stays as it is, because no byte was used
	}
	end += begin
	e.afterCR = data[end] == '\r'
	return end + 1, data[begin:end], nil
}
