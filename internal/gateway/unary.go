package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// maxUnaryTimes is how many times UnaryHoldBack an answer that is kept may be long
// without taking of the memory for bodies.
const maxUnaryTimes = 4

// roomStep is what such an answer takes of that memory at once, in bytes.
const roomStep = 256 << 10

// roomFor reports whether so many bytes of an answer may be kept: maxUnaryTimes
// UnaryHoldBack in any case, and up to an eighth of MaxBodies while the memory for
// bodies has room. What was taken is given back with the request.
func (c *call) roomFor(size int) bool {
	free := maxUnaryTimes * c.x.cat.UnaryHoldBack
	if size <= free+c.room {
		return true
	}
	if int64(size) > c.x.cat.MaxBodies/8 || !c.x.body.take(int64(size-free-c.room+roomStep)) {
		return false
	}
	c.room = size - free + roomStep
	return true
}

// unaryGrace is how long the rest of a document is read for a client that hung
// up within it: the backend has generated it by then, and its usage comes last.
const unaryGrace = 2 * time.Second

// unary passes on an answer that is one document. It is held until it is
// charged, so that its headers tell the truth; beyond UnaryHoldBack it is
// passed on as it comes, with its cost as a trailer, to a client that asked for a
// document; for one that asked for a stream it is kept until it is whole.
func (c *call) unary(resp *http.Response) error {
	c.finishBody()
	limit := int64(c.x.cat.UnaryHoldBack)
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 && n <= limit {
		buf.Grow(int(n) + bytes.MinRead)
	}
	err := holdBack(&buf, resp.Body, limit)
	c.engine.hear()
	c.g.metrics.firstByte(c)
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
	if c.refitWithin() {
		return c.again(resp)
	}
	if err != nil {
		return c.noAnswer(err, resp.StatusCode)
	}
	c.answered(nil, resp.StatusCode)
	if c.o.req.Stream() {
		return c.scatter(resp, body)
	}
	return c.document(resp, body, format.Complete)
}

// readOn reads the rest of a document that must be whole before anything of it can be
// sent.
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

// tooLong ends a call whose answer has to be whole before it can be sent, and is
// longer than what can be kept. The backend did what it was asked for, so that it is
// stopped and not blamed. A repetition would end in the same way, so that SDKs are
// told not to try.
//
//go:noinline
func (c *call) tooLong(resp *http.Response) error {
	c.cancel(context.Canceled)
	resp.Body.Close()
	c.slotDone(context.Canceled, 0)
	c.release(metering.OutcomeBackendCut)
	c.g.log.Warn("an answer is too long to be put together", "backend", c.lease.Backend().Name(), "model", c.o.model.Name,
		"request_id", c.x.requestID)
	detail := "the answer is longer than this gateway can put together; ask for a stream, or for fewer log probabilities; nothing was charged"
	if c.o.req.Stream() {
		detail = "the backend sent one document in place of a stream, and it is longer than this gateway can keep; nothing was charged"
	}
	p := newProblem(http.StatusBadGateway, typeBackendUnavailable, detail)
	p.noRetry = true
	return p
}

// scatter sends a document to a client that asked for a stream, as the events of
// one: readers of streams would take the document for an answer without a word.
func (c *call) scatter(resp *http.Response, body []byte) error {
	c.begin(resp)
	n, err := c.x.Write(c.meter.Scatter(body))
	c.delivered = int64(n)
	end := format.Complete
	if err != nil {
		end = format.UnaryClientGone
	}
	c.endStream(end, err, resp.StatusCode)
	return nil
}

// unaryBroke ends a call whose answer broke off before anything of it was sent.
// came is what came of it: a client that hung up within it pays for that, if there
// is no usage.
func (c *call) unaryBroke(err error, status int, came []byte) error {
	switch {
	case c.drained():
		c.slotDone(context.Canceled, 0)
		c.release(metering.OutcomeDrained)
		return c.goneAway()
	case c.exhausted():
		c.slotDone(context.Canceled, 0)
		return c.cutShort()
	case c.clientGone() && c.ctx.Err() != nil:
		c.meter.UnaryPart(came)
		c.answered(context.Canceled, 0)
		_, _ = c.charge(format.UnaryClientGone) // nobody is left to be told
		return context.Canceled
	}
	c.slotDone(err, status)
	c.release(metering.OutcomeBackendCut)
	c.g.log.Warn("backend broke off a unary answer", "backend", c.lease.Backend().Name(), "error", err)
	return newProblem(http.StatusBadGateway, typeBackendUnavailable, "the backend broke off its answer; nothing was charged")
}

// unaryLong passes on an answer that is too long to be held back. A copy is
// kept for the meter; an answer that there is no room for is cut. A client
// that hangs up within it pays for all of it, because the backend has made all of
// it by then: the rest is read for its usage, or, where it does not come in time,
// what came is counted.
func (c *call) unaryLong(resp *http.Response, buf *bytes.Buffer) error {
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

// beginLong sends the header of an answer whose cost is not known yet.
func (c *call) beginLong(resp *http.Response) {
	h := c.x.Header()
	passHeader(h, resp.Header)
	c.announce(h)
	h["Cache-Control"] = []string{"no-store"}
	h[headerBalance] = []string{amountText(c.hold.Available())}
	h["Trailer"] = []string{headerCost}
	c.x.WriteHeader(resp.StatusCode)
}

// endLong charges such an answer, and puts its cost into the trailer.
func (c *call) endLong(end format.End, blame error, status int) error {
	c.answered(blame, status)
	entry, settled := c.charge(end)
	if end != format.Complete {
		panic(http.ErrAbortHandler) // half a document must not look like a whole one
	}
	if settled {
		c.x.Header()[headerCost] = []string{amountText(entry.Charged)}
	}
	return nil
}

// errAnswerTooLong reports an answer beyond all limits.
var errAnswerTooLong = errors.New("unary answer is too long")

// passLong writes what was read already and the rest, and says how it ended. What
// comes after the client hung up is only read.
func (c *call) passLong(body io.Reader, buf *bytes.Buffer) (format.End, error) {
	var err error
	for sent, gone := 0, false; ; {
		if !gone {
			n, writeErr := c.x.Write(buf.Bytes()[sent:])
			c.delivered += int64(n)
			if gone = writeErr != nil; gone {
				c.left() // an HTTP/1 server notices only after its handler has read
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

// longEnd says how a long answer ended, after err.
func (c *call) longEnd(err error, gone bool) (format.End, error) {
	switch {
	case gone || c.clientGone() && c.ctx.Err() != nil:
		return format.UnaryClientGone, context.Canceled
	case errors.Is(err, io.EOF):
		return format.Complete, nil
	case errors.Is(err, errAnswerTooLong):
		return format.BackendCut, context.Canceled // not the backend's fault
	case c.drained():
		return format.Drained, context.Canceled
	case c.exhausted():
		return format.HoldExhausted, context.Canceled
	}
	return format.BackendCut, err
}
