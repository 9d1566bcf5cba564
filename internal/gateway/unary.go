package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// maxUnaryTimes times UnaryHoldBack is the length up to which an answer can be kept without
// room in the memory for bodies.
const maxUnaryTimes = 4

// roomStep is how many bytes more than needed roomFor takes of the memory for bodies at once.
const roomStep = 256 << 10

// roomFor reports whether the gateway may keep size bytes of an answer. It always may keep
// maxUnaryTimes times UnaryHoldBack. Up to an eighth of MaxBodies it may keep more while the
// memory for bodies has room. The end of the request gives back what roomFor took.
func (c *call) roomFor(size int) bool {
	free := maxUnaryTimes * c.x.cat.UnaryHoldBack
	if size <= free+c.room {
		return true
	}
	if int64(size) > c.x.cat.MaxBodies/8 || !c.x.body.Take(int64(size-free-c.room+roomStep)) {
		return false
	}
	c.room = size - free + roomStep
	return true
}

// unaryGrace is how long the gateway reads on in a document after its client hung up: the
// backend has generated the document by then, and its usage comes last.
const unaryGrace = 2 * time.Second

// unary passes on an answer that is one document. unary holds the document back until it is
// charged, so that the headers can tell the cost. A document longer than UnaryHoldBack is
// passed on as it comes, with its cost in a trailer, to a client that asked for a document.
// For a client that asked for a stream, such a document is kept until it is whole.
func (c *call) unary(resp *http.Response) *ending {
	c.finishBody()
	limit := int64(c.x.cat.UnaryHoldBack)
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 && n <= limit {
		buf.Grow(int(n) + bytes.MinRead)
	}
	err := holdBack(&buf, resp.Body, limit)
	if err == nil {
		c.engine.hear()
	}
	c.firstByte()
	long := int64(buf.Len()) > limit
	if err == nil && long && c.o.req.Stream() {
		err, long = c.readOn(resp.Body, &buf), false
	}
	switch {
	case errors.Is(err, errAnswerTooLong):
		return c.tooLong(resp)
	case err != nil:
		return c.unaryBroke(err, resp.StatusCode, buf.Bytes())
	case long:
		if m, ok := c.meter.(format.Pieces); ok {
			return c.unaryPieces(resp, m, &buf)
		}
		return c.unaryLong(resp, &buf)
	}
	body, err := c.meter.Unary(buf.Bytes())
	switch {
	case c.refitWithin():
		return nil
	case err != nil:
		return c.noAnswer(err, resp.StatusCode)
	case c.o.req.Stream():
		return c.scatter(resp, body)
	}
	return c.document(body, format.Complete)
}

// document ends a call whose answer is one document. body is the body for the client; the
// headers are those of the backend's answer that may pass.
func (c *call) document(body []byte, end format.End) *ending {
	e := c.endCharged(end, nil, c.resp.StatusCode)
	e.unsent, e.body = unsentDocument, body
	return e
}

// readOn reads the rest of a document that must be whole before any part of it can be sent.
func (c *call) readOn(body io.Reader, buf *bytes.Buffer) error {
	for {
		_, err := io.CopyN(buf, body, 64<<10)
		c.engine.hear()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case !c.roomFor(buf.Len()):
			return errAnswerTooLong
		}
	}
}

// tooLong ends a call whose answer must be whole before it can be sent, and is longer than the
// gateway can keep. The backend is stopped, and is not blamed, because it did what it was asked
// for. The client's SDK is told not to retry, because a retry would end in the same way.
//
//go:noinline
func (c *call) tooLong(resp *http.Response) *ending {
	c.cancel(context.Canceled)
	resp.Body.Close()
	c.failing(observe.Failure{Kind: observe.TooLong})
	detail := "the answer is longer than this gateway can put together; ask for a stream, or for fewer log probabilities; nothing was charged"
	if c.o.req.Stream() {
		detail = "the backend sent one document in place of a stream, and it is longer than this gateway can keep; nothing was charged"
	}
	p := problem.New(http.StatusBadGateway, problem.BackendUnavailable, detail)
	p.NoRetry = true
	return c.endFree(metering.OutcomeBackendCut, p)
}

// scatter sends a document to a client that asked for a stream as the events of a stream,
// because readers of streams would take the document for an answer without words. scatter
// gives the slot back before it writes, because the client may be slow.
func (c *call) scatter(resp *http.Response, body []byte) *ending {
	c.countThenRelease(nil, resp.StatusCode)
	c.begin(resp)
	n, err := c.x.Write(c.meter.Scatter(body))
	c.delivered = int64(n)
	end := format.Complete
	if err != nil {
		end = format.UnaryClientGone
	}
	return c.endChargedStream(end, err, resp.StatusCode)
}

// unaryBroke ends a call whose answer broke off before any part of it was sent. came is the
// part that came. A client that hung up meanwhile pays for that part, unless the backend told
// a usage. The beginning of an answer without any text is no sign that the backend works.
func (c *call) unaryBroke(err error, status int, came []byte) *ending {
	switch {
	case c.drained():
		return c.endFree(metering.OutcomeDrained, c.goneAway())
	case c.exhausted():
		return c.cutShort()
	case c.clientGone() && c.ctx.Err() != nil:
		if c.meter.UnaryPart(came); c.meter.Started() {
			c.engine.hear()
		}
		return c.leftAlone(format.UnaryClientGone)
	}
	c.failing(observe.Failure{Kind: observe.BrokeOff, Err: err})
	p := problem.New(http.StatusBadGateway, problem.BackendUnavailable, "the backend broke off its answer; nothing was charged")
	return c.endFree(metering.OutcomeBackendCut, p).blamed(err, status)
}

// unaryLong passes on an answer that is too long to be held back. It keeps a copy for the
// meter, and cuts the answer if there is no room for the copy. A client that hangs up within
// the answer pays for the whole answer, because the backend has generated it by then: the
// gateway reads the rest for its usage, and counts what came if the usage does not come within
// unaryGrace.
func (c *call) unaryLong(resp *http.Response, buf *bytes.Buffer) *ending {
	c.beginLong(resp)
	end, blame := c.passLong(resp.Body, buf)
	if end != format.Complete {
		c.cancel(context.Canceled)
	}
	if _, err := c.meter.Unary(buf.Bytes()); err != nil {
		if end == format.Complete {
			end, blame = format.BackendCut, err
		}
		c.meter.UnaryPart(buf.Bytes())
	}
	return c.endLong(end, blame, resp.StatusCode)
}

// beginLong sends the header of a long answer, whose cost is not known yet.
func (c *call) beginLong(resp *http.Response) {
	h := c.x.Header()
	passHeader(h, resp.Header)
	c.announce(h)
	h["Cache-Control"] = []string{"no-store"}
	h[headerBalance] = []string{amountText(c.hold.Available())}
	h["Trailer"] = []string{headerCost}
	c.x.WriteHeader(resp.StatusCode)
}

// endLong ends a call whose long answer was passed on. The cost goes into the trailer.
func (c *call) endLong(end format.End, blame error, status int) *ending {
	e := c.endCharged(end, blame, status)
	e.unsent = unsentTrailer
	return e
}

// errAnswerTooLong reports an answer that is longer than the gateway can keep.
var errAnswerTooLong = errors.New("unary answer is too long")

// passLong writes the part in buf and the rest of body to the client, and returns how and why
// the answer ended. After the client hung up, passLong reads on and writes no more.
func (c *call) passLong(body io.Reader, buf *bytes.Buffer) (format.End, error) {
	var err error
	names := format.NewRenamer(c.o.public())
	for sent, gone := 0, false; ; {
		if !gone {
			n, writeErr := c.x.Write(names.Piece(buf.Bytes()[sent:]))
			c.delivered += int64(n)
			if gone = writeErr != nil; gone {
				c.left() // an HTTP/1 server learns of the hang-up only later
			}
		}
		if err == nil && !c.roomFor(buf.Len()) {
			err = errAnswerTooLong
		}
		if err != nil {
			return c.longEnd(err, gone)
		}
		sent = buf.Len()
		_, err = io.CopyN(buf, body, 64<<10)
		c.engine.hear()
	}
}

// longEnd returns how a long answer ended that broke with err. gone says that a write to the
// client failed.
func (c *call) longEnd(err error, gone bool) (format.End, error) {
	switch {
	case gone || c.clientGone() && c.ctx.Err() != nil:
		return format.UnaryClientGone, context.Canceled
	case errors.Is(err, io.EOF):
		return format.Complete, nil
	case errors.Is(err, errAnswerTooLong):
		return format.BackendCut, context.Canceled // the backend is not to blame
	case c.drained():
		return format.Drained, context.Canceled
	case c.exhausted():
		return format.HoldExhausted, context.Canceled
	}
	return format.BackendCut, err
}
