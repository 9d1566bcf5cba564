package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// eventStream is the content type of server-sent events.
const eventStream = "text/event-stream"

// errNoAnswer reports a 2xx whose body is not an answer of the API: for example a proxy's
// page, an empty body, or lines of another protocol.
var errNoAnswer = errors.New("the body is no answer of the API")

// relay passes a backend's answer on and returns how the call ended. The content of the
// answer decides how relay passes it on; neither what the client asked for nor the answer's
// label decides that. relay returns nil if the request must be sent to the backend once
// more; see refit.
func (c *call) relay(resp *http.Response) *ending {
	c.answerClock, _ = resp.Body.(gpu.Answer)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		if c.refit(resp) {
			return nil
		}
		return c.refused(resp)
	}
	if err := decode(resp); err != nil {
		return c.unreadable(resp, err)
	}
	if c.answerClock != nil && (c.o.req.Stream() || c.gathers || isEventStream(resp.Header)) {
		c.answerClock.AwaitEvent()
	}
	f, err := sniff(resp)
	if f == formList && takesList(c.meter) {
		f = formObject
	}
	if c.answerClock != nil && f == formObject {
		c.answerClock.Progress()
		resp.Body.(*sniffed).answerClock = c.answerClock
	}
	switch {
	case err != nil && c.o.req.Stream():
		return c.unbegun(c.streamBroke(err), err, resp.StatusCode)
	case err != nil:
		return c.unaryBroke(err, resp.StatusCode, nil)
	case f == formEvents && c.o.req.Stream():
		return c.stream(resp)
	case f == formEvents:
		return c.gather(resp)
	case f == formObject:
		return c.unary(resp)
	}
	return c.noAnswer(errNoAnswer, resp.StatusCode)
}

// unreadable ends a call whose answer has an encoding that the gateway cannot decode, so that
// the answer cannot be metered.
//
//go:noinline
func (c *call) unreadable(resp *http.Response, err error) *ending {
	p := problem.New(http.StatusBadGateway, problem.BackendUnavailable, "the backend's answer has an encoding that cannot be read; nothing was charged").Because(err)
	return c.endFree(metering.OutcomeBackendError, p).blamed(err, resp.StatusCode)
}

// form is the form of an answer's body, as its first bytes show it.
type form uint8

const (
	formOther  form = iota
	formEvents      // server-sent events
	formObject      // one JSON object
	formList        // one JSON list
)

// sniffed is a body whose first bytes were read to find its form.
type sniffed struct {
	io.ReadCloser
	head        []byte
	err         error      // the error that came with the last byte of head; nil: none came
	answerClock gpu.Answer // of a document, where white space is no progress; nil: not told
}

func (s *sniffed) Read(p []byte) (int, error) {
	if len(s.head) > 0 {
		n := copy(p, s.head)
		if s.head = s.head[n:]; len(s.head) == 0 {
			s.head = nil // frees the memory, because a stream may last for minutes
		}
		return n, nil
	}
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.ReadCloser.Read(p)
	if s.answerClock != nil && len(bytes.TrimLeft(p[:max(0, n)], " \t\r\n")) > 0 {
		s.answerClock.Progress()
	}
	return n, err
}

// sniffLength is the most bytes that sniff looks at. maxLead is the most bytes of white space
// that sniff skips before them: servers send blank lines to show that they still work on an
// answer.
const (
	sniffLength = 512
	maxLead     = 64 << 10
)

// sniff returns the form of an answer by its first bytes, because labels are often wrong.
// White space and a byte order mark before the answer do not belong to it, and sniff skips
// them. If nothing else came, sniff returns formOther, and the error of reading unless that
// error is io.EOF.
func sniff(resp *http.Response) (form, error) {
	s := &sniffed{ReadCloser: resp.Body}
	buf := make([]byte, 0, sniffLength)
	labelled := isEventStream(resp.Header)
	for skipped, marked := 0, false; ; {
		n, err := s.ReadCloser.Read(buf[len(buf):sniffLength])
		buf = buf[:len(buf)+max(0, n)]
		head := skipLead(buf, &marked)
		skipped += len(buf) - len(head)
		buf = buf[:copy(buf, head)]
		f, sure := formOf(buf, labelled)
		if sure || err != nil || len(buf) == sniffLength || skipped > maxLead {
			s.head, s.err = buf, err
			resp.Body = s
			if len(buf) > 0 || errors.Is(err, io.EOF) {
				err = nil
			}
			return f, err
		}
	}
}

// byteOrderMark is a mark that a server may write once before a document or a stream.
const byteOrderMark = "\ufeff"

// skipLead returns what follows the white space and the byte order mark at the beginning of
// an answer. marked says whether a byte order mark was seen before; skipLead sets it.
func skipLead(b []byte, marked *bool) []byte {
	b = bytes.TrimLeft(b, " \t\r\n")
	if !*marked && bytes.HasPrefix(b, []byte(byteOrderMark)) {
		*marked = true
		b = bytes.TrimLeft(b[len(byteOrderMark):], " \t\r\n")
	}
	return b
}

// formOf returns the form of a body that begins with head, and whether the form is sure: if it
// is not, more bytes may change it. labelled says that the answer's Content-Type is
// text/event-stream. formOf takes a labelled body for events even if it begins with other
// words, unless these begin with '<'; the reader of events handles such words.
func formOf(head []byte, labelled bool) (f form, sure bool) {
	if len(head) < len(byteOrderMark) && strings.HasPrefix(byteOrderMark, string(head)) { // head is empty, or a part of the mark
		return formOther, false
	}
	switch head[0] {
	case '{':
		return formObject, true
	case ':':
		return formEvents, true
	}
	for _, name := range [...]string{"data:", "event:", "id:", "retry:", "error:"} {
		switch {
		case bytes.HasPrefix(head, []byte(name)):
			return formEvents, true
		case len(head) < len(name) && name[:len(head)] == string(head):
			return formOther, false
		}
	}
	switch {
	case labelled && head[0] != '<':
		return formEvents, true
	case head[0] == '[':
		return formList, true
	}
	return formOther, true
}

// isEventStream reports whether the Content-Type of an answer is text/event-stream.
func isEventStream(h http.Header) bool {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), eventStream)
}

// takesList reports whether an answer of this API may be a JSON list without an object around
// the list.
func takesList(m format.Meter) bool {
	l, ok := m.(format.Listing)
	return ok && l.MayBeList()
}
