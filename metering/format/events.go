package format

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// DefaultMaxEvent is the longest event taken unless told otherwise, in bytes.
const DefaultMaxEvent = 16 << 20

// ErrPartial reports an event that the end of the stream cut off; ErrTooLong
// an event above the limit.
var (
	ErrPartial = errors.New("the stream ended within an event")
	ErrTooLong = errors.New("event is too long")
)

// Events splits a stream of server-sent events (HTML standard, section 9.2)
// into its events. Every byte of the stream is in exactly one event.
//
// Two things differ from the standard, because backends differ from it. A
// comment line before an event is an event of its own and is returned at once:
// it is a sign of life, which servers send without a blank line behind it. A
// data line ends the event before it where that event's data is whole, one JSON
// object or [DONE]: some servers separate events by one line end only.
type Events struct {
	r          io.Reader
	max        int
	buf        []byte
	start, end int  // the bytes of buf not yet returned
	scanned    int  // the bytes from start on that were looked at
	line       int  // where the current line begins, from start on
	data       bool // a line before it is data
	previous   ending
	full       bool // the last read filled buf
	err        error
}

// ending is how a line ended.
type ending uint8

const (
	endingNone ending = iota
	endingLF
	endingCRLF
	endingCR
)

// NewEvents splits r. maxEvent bounds the bytes of one event; 0 is
// DefaultMaxEvent. Memory grows with the events that come, not with the bound.
func NewEvents(r io.Reader, maxEvent int) *Events {
	if maxEvent <= 0 {
		maxEvent = DefaultMaxEvent
	}
	return &Events{r: r, max: maxEvent}
}

// Next is the next event, its blank line included, as soon as that has
// arrived. It is valid until the next call. At the end of the stream it fails
// with io.EOF, or returns what is left of an event without its blank line with
// an error that wraps ErrPartial (and the error of the reader, if it was not
// EOF); see Whole. An event above the limit fails with ErrTooLong, for good.
func (e *Events) Next() ([]byte, error) {
	for idle := 0; ; {
		if n := e.scan(); n > 0 {
			return e.take(n), nil
		}
		switch {
		case e.end-e.start > e.max:
			e.err, e.end = ErrTooLong, e.start
		case e.err != nil && e.end > e.start:
			if n := e.scanLast(); n > 0 {
				return e.take(n), nil
			}
			return e.take(e.end - e.start), e.partial()
		}
		if e.err != nil {
			return nil, e.err
		}
		n := e.fill()
		if idle++; n > 0 {
			idle = 0
		} else if idle == 100 {
			e.err = io.ErrNoProgress
		}
	}
}

// Held returns the next event if all of it has arrived already, and else nil. The event is
// valid until the next call, as that of Next is. If the last read filled the buffer within an
// event, the rest of the event has arrived too, and Held reads once more.
func (e *Events) Held() []byte {
	n := e.scan()
	if n == 0 && e.full && e.start < e.end && e.err == nil {
		e.fill()
		n = e.scan()
	}
	if n > 0 {
		return e.take(n)
	}
	return nil
}

// partial is the error of an unfinished event.
func (e *Events) partial() error {
	if errors.Is(e.err, io.EOF) {
		return ErrPartial
	}
	return fmt.Errorf("%w: %w", ErrPartial, e.err)
}

// take removes and returns the next n bytes.
func (e *Events) take(n int) []byte {
	event := e.buf[e.start : e.start+n]
	e.start += n
	e.scanned, e.line, e.data, e.previous = 0, 0, false, endingNone
	return event
}

// firstBuffer is the size of the buffer in bytes until an event needs more. Each open stream
// holds one, and most events of engines have some 250 bytes.
const firstBuffer = 2048

// fill reads more.
func (e *Events) fill() int {
	if e.start == e.end {
		e.start, e.end = 0, 0
	}
	if e.end == len(e.buf) {
		held := e.buf[e.start:e.end]
		if len(held) > len(e.buf)/2 || len(e.buf) == 0 {
			e.buf = make([]byte, max(firstBuffer, 2*len(e.buf)))
		}
		e.end = copy(e.buf, held)
		e.start = 0
	}
	n, err := e.r.Read(e.buf[e.end:])
	e.end += max(0, n)
	e.full = e.end == len(e.buf)
	if err != nil {
		e.err = err
	}
	return n
}

// scan is the length of the first event held; 0 when its blank line has not
// arrived yet. Lines end with LF, CRLF or CR. After a CR the next byte is
// waited for only where the line before ended with CRLF; so the split never
// depends on how the bytes arrived.
func (e *Events) scan() int {
	held := e.buf[e.start:e.end]
	for e.scanned < len(held) {
		at := lineEnd(held[e.scanned:])
		if at < 0 {
			e.scanned = len(held)
			return 0
		}
		at += e.scanned
		blank := at == e.line
		next, how := at+1, endingLF
		if held[at] == '\r' {
			how = endingCR
			if !blank || e.previous == endingCRLF {
				if next == len(held) {
					e.scanned = at
					return 0
				}
				if held[next] == '\n' {
					next, how = next+1, endingCRLF
				}
			}
		}
		if blank {
			return next
		}
		if n := e.endsBefore(held[e.line:at], next); n > 0 {
			return n
		}
		e.scanned, e.line, e.previous = next, next, how
	}
	return 0
}

// endsBefore says how many bytes an event has that a line ends, which goes on
// to next: a comment ends with itself, and data ends the event before it. It is
// 0 where the line belongs to the event.
func (e *Events) endsBefore(line []byte, next int) int {
	if e.line == 0 && IsComment(line) {
		return next
	}
	if !isData(line) {
		return 0
	}
	if e.data && Whole(e.buf[e.start:e.start+e.line]) {
		return e.line
	}
	e.data = true
	return 0
}

// scanLast is the length of the first event of what is left at the end of the
// stream, where another one without a line end follows it.
func (e *Events) scanLast() int {
	return e.endsBefore(e.buf[e.start+e.line:e.end], 0)
}

// Whole reports whether the data lines of an event make one JSON object or
// [DONE]: what the end of the stream, or the next event, can be behind. An object
// that stands there without a name, as an error may, is whole as well.
func Whole(event []byte) bool {
	var data []byte
	for i := 0; i < len(event); {
		end, next := LineAt(event, i)
		if line := event[i:end]; isData(line) {
			_, value := FieldOf(line)
			if data == nil {
				data = value
			} else {
				data = append(append(data[:len(data):len(data)], '\n'), value...)
			}
		}
		i = next
	}
	if data == nil {
		data = bytes.TrimSpace(event)
	}
	data = bytes.TrimRight(data, " \t")
	return string(data) == EndMarker || IsObject(data)
}

// EndMarker is the data of the event that ends a stream.
const EndMarker = "[DONE]"

// ByteOrderMark may stand before the first line of a stream.
const ByteOrderMark = "\ufeff"

func IsComment(line []byte) bool {
	if len(line) > 0 && line[0] == ByteOrderMark[0] {
		line = bytes.TrimPrefix(line, []byte(ByteOrderMark))
	}
	return len(line) > 0 && line[0] == ':'
}

func isData(line []byte) bool {
	const name = "data:"
	if len(line) > 0 && line[0] == ByteOrderMark[0] {
		line = bytes.TrimPrefix(line, []byte(ByteOrderMark))
	}
	return len(line) >= len(name) && string(line[:len(name)]) == name
}

// lineEnd is the index of the first CR or LF; -1 when there is none.
func lineEnd(b []byte) int {
	at := bytes.IndexByte(b, '\n')
	if at >= 0 {
		b = b[:at]
	}
	if cr := bytes.IndexByte(b, '\r'); cr >= 0 {
		return cr
	}
	return at
}

// LineAt is where the line that begins at b[i] ends, and where the next one
// begins.
func LineAt(b []byte, i int) (end, next int) {
	n := lineEnd(b[i:])
	if n < 0 {
		return len(b), len(b)
	}
	end, next = i+n, i+n+1
	if b[end] == '\r' && next < len(b) && b[next] == '\n' {
		next++
	}
	return end, next
}

// FieldOf takes a line apart: the name of its field, and its value without
// the blanks before it. A comment has no name.
func FieldOf(line []byte) (name, value []byte) {
	line = bytes.TrimPrefix(line, []byte(ByteOrderMark))
	name, value, _ = bytes.Cut(line, []byte(":"))
	return name, bytes.TrimLeft(value, " \t")
}
