package gateway

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// eventStream is the content type of server-sent events.
const eventStream = "text/event-stream"

// errNoAnswer reports a 2xx whose body is no answer of the format: a page of a
// proxy, nothing at all, lines of another protocol.
var errNoAnswer = errors.New("the body is no answer of the API")

// relay passes an answer on by what it is, whatever was asked for and whatever
// it is called, and says how the call ended. It returns nil where the request goes to the
// backend once more; see refit.
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

// unreadable ends a call whose answer cannot be metered.
//
//go:noinline
func (c *call) unreadable(resp *http.Response, err error) *ending {
	p := problem.New(http.StatusBadGateway, problem.BackendUnavailable, "the backend's answer has an encoding that cannot be read; nothing was charged").Because(err)
	return c.endFree(metering.OutcomeBackendError, p).blamed(err, resp.StatusCode)
}

// form is what the body of an answer looks like.
type form uint8

const (
	formOther  form = iota
	formEvents      // server-sent events
	formObject      // one JSON object
	formList        // one JSON list
)

// sniffed is a body whose first bytes were looked at.
type sniffed struct {
	io.ReadCloser
	head        []byte
	err         error      // came with the last byte of head
	answerClock gpu.Answer // of a document: white space in it is a sign of life only; nil: none
}

func (s *sniffed) Read(p []byte) (int, error) {
	if len(s.head) > 0 {
		n := copy(p, s.head)
		if s.head = s.head[n:]; len(s.head) == 0 {
			s.head = nil // a stream may go on for minutes
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

// sniffLength is how many bytes are looked at, at most, and maxLead how many of
// white space are skipped before them: servers send blank lines as signs of life
// while they make an answer.
const (
	sniffLength = 512
	maxLead     = 64 << 10
)

// sniff says what an answer is by its first bytes: labels are wrong as often as
// not. White space and a byte order mark before them are no part of the answer, and
// are skipped. A body without anything else is none, with the error of reading it.
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

// byteOrderMark may stand before a document or a stream, once.
const byteOrderMark = "\ufeff"

// skipLead is what follows the white space and the byte order mark at the beginning
// of an answer. marked says whether the mark was seen.
func skipLead(b []byte, marked *bool) []byte {
	b = bytes.TrimLeft(b, " \t\r\n")
	if !*marked && bytes.HasPrefix(b, []byte(byteOrderMark)) {
		*marked = true
		b = bytes.TrimLeft(b[len(byteOrderMark):], " \t\r\n")
	}
	return b
}

// formOf is the form of a body that begins so, and whether more bytes could
// change that. Words before the first event are left to the reader of events where
// the body is labelled so.
func formOf(head []byte, labelled bool) (f form, sure bool) {
	if len(head) < len(byteOrderMark) && strings.HasPrefix(byteOrderMark, string(head)) { // nothing, or a part of the mark
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

// isEventStream says whether an answer is server-sent events, whatever was
// asked for.
func isEventStream(h http.Header) bool {
	value := h.Get("Content-Type")
	if value == eventStream {
		return true
	}
	kind, _, err := mime.ParseMediaType(value)
	if err != nil {
		kind, _, _ = strings.Cut(value, ";")
	}
	return strings.EqualFold(strings.TrimSpace(kind), eventStream)
}

// takesList says whether the answer that is metered may be a list without an object
// around it.
func takesList(m format.Meter) bool {
	l, ok := m.(format.Listing)
	return ok && l.MayBeList()
}
