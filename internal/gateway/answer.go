package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"sluice/backends/gpu"
	"sluice/metering"
	"sluice/metering/chat"
)

// eventStream is the content type of server-sent events.
const eventStream = "text/event-stream"

// errNoAnswer reports a 2xx whose body is no answer of the format: a page of a
// proxy, nothing at all, lines of another protocol.
var errNoAnswer = errors.New("the body is no answer of the chat format")

// form is what the body of an answer looks like.
type form uint8

const (
	formOther  form = iota
	formEvents      // server-sent events
	formObject      // one JSON object
)

// sniffed is a body whose first bytes were looked at.
type sniffed struct {
	io.ReadCloser
	head []byte
	err  error // came with the last byte of head
}

func (s *sniffed) Read(p []byte) (int, error) {
	if len(s.head) > 0 {
		n := copy(p, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	if s.err != nil {
		return 0, s.err
	}
	return s.ReadCloser.Read(p)
}

// sniffLength is how many bytes are looked at, at most.
const sniffLength = 512

// sniff says what an answer is by its first bytes: labels are wrong as often as
// not. A body without any is none, with the error of reading it.
func sniff(resp *http.Response) (form, error) {
	s := &sniffed{ReadCloser: resp.Body}
	buf := make([]byte, 0, sniffLength)
	labelled := isEventStream(resp.Header)
	for {
		n, err := s.ReadCloser.Read(buf[len(buf):sniffLength])
		buf = buf[:len(buf)+max(0, n)]
		f, sure := formOf(buf, labelled)
		if sure || err != nil || len(buf) == sniffLength {
			s.head, s.err = buf, err
			resp.Body = s
			if len(buf) > 0 || err == nil || errors.Is(err, io.EOF) {
				err = nil
			}
			return f, err
		}
	}
}

// formOf is the form of a body that begins so, and whether more bytes could
// change that. Words before the first event are left to the reader of events where
// the body is labelled so.
func formOf(head []byte, labelled bool) (f form, sure bool) {
	head = bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n")
	if len(head) == 0 {
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
	if labelled && head[0] != '<' {
		return formEvents, true
	}
	return formOther, true
}

// noAnswer ends a call of whose answer nothing was passed on, because it is none,
// or the backend failed: nothing is charged.
//
//go:noinline
func (c *call) noAnswer(err error, status int) error {
	b := c.lease.Backend().Name()
	failure := c.meter.Failure()
	if c.meter.Failed() && failure.Client() {
		c.slotDone(nil, status)
		c.release(metering.OutcomeBackendError)
		return newProblem(http.StatusBadRequest, typeInvalidRequest, "the backend refused the request: "+c.failureWords())
	}
	c.slotDone(c.blame(chat.BackendCut, err), status)
	c.release(metering.OutcomeBackendError)
	c.g.metrics.noAnswers.WithLabelValues(b).Inc()
	c.g.log.Warn("backend gave no answer that can be passed on", "backend", b, "model", c.o.model.Name,
		"request_id", c.x.requestID, "error", err, "said", failure.Message, "dropped_events", c.meter.Noise())
	if errors.Is(err, gpu.ErrIdleTimeout) || errors.Is(err, gpu.ErrFirstEventTimeout) {
		return newProblem(http.StatusGatewayTimeout, typeBackendUnavailable,
			"the backend did not go on with its answer in time; nothing was charged")
	}
	detail := "the backend's answer is no chat completion; nothing was charged"
	if words := c.failureWords(); words != "" {
		detail = "the backend failed and said: " + words + " (nothing was charged)"
	}
	return newProblem(http.StatusBadGateway, typeBackendUnavailable, detail)
}

// failureWords is what the backend said went wrong within its answer, as the
// client may see it. The log has the backend's own words.
func (c *call) failureWords() string {
	return publicWords(c.meter.Failure().Message, c.lease.Backend(), c.o.model.Name)
}
