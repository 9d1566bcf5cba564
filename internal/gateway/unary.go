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
	if int64(size) > c.x.cat.MaxBodies/8 || !c.x.body.Take(int64(size-free-c.room+roomStep)) {
		return false
	}
	c.room = size - free + roomStep
	return true
}

// unaryGrace is how long the rest of a document is read for a client that hung
// up within it: the backend has generated it by then, and its usage comes last.
const unaryGrace = 2 * time.Second

// unary passes on an answer that is one document. It is held back until it is
// charged, so that its headers tell the truth; beyond UnaryHoldBack it is
// passed on as it comes, with its cost as a trailer, to a client that asked for a
// document; for one that asked for a stream it is kept until it is whole.
func (c *call) unary(resp *http.Response) *ending {
	c.finishBody()
	limit := int64(c.x.cat.UnaryHoldBack)
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 && n <= limit {
		buf.Grow(int(n) + bytes.MinRead)
	}
	err := holdBack(&buf, resp.Body, limit)
	c.engine.hear()
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

// document says that the answer is one document, with what passes of the header that the
// backend sent.
func (c *call) document(body []byte, end format.End) *ending {
	e := c.endCharged(end, nil, c.resp.StatusCode)
	e.unsent, e.body = unsentDocument, body
	return e
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

// scatter sends a document to a client that asked for a stream, as the events of
// one: readers of streams would take the document for an answer without a word. The slot
// is given back first, because the client may be slow.
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

// unaryBroke ends a call whose answer broke off before anything of it was sent.
// came is what came of it: a client that hung up within it pays for that, if there
// is no usage.
func (c *call) unaryBroke(err error, status int, came []byte) *ending {
	switch {
	case c.drained():
		return c.endFree(metering.OutcomeDrained, c.goneAway())
	case c.exhausted():
		return c.cutShort()
	case c.clientGone() && c.ctx.Err() != nil:
		c.meter.UnaryPart(came)
		return c.leftAlone(format.UnaryClientGone)
	}
	c.failing(observe.Failure{Kind: observe.BrokeOff, Err: err})
	p := problem.New(http.StatusBadGateway, problem.BackendUnavailable, "the backend broke off its answer; nothing was charged")
	return c.endFree(metering.OutcomeBackendCut, p).blamed(err, status)
}

// unaryLong passes on an answer that is too long to be held back. A copy is
// kept for the meter; an answer that there is no room for is cut. A client
// that hangs up within it pays for all of it, because the backend has made all of
// it by then: the rest is read for its usage, or, where it does not come in time,
// what came is counted.
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

// endLong says how such an answer ended. Its cost goes into the trailer.
func (c *call) endLong(end format.End, blame error, status int) *ending {
	e := c.endCharged(end, blame, status)
	e.unsent = unsentTrailer
	return e
}

// errAnswerTooLong reports an answer beyond all limits.
var errAnswerTooLong = errors.New("unary answer is too long")

// passLong writes what was read already and the rest, and says how it ended. What
// comes after the client hung up is only read.
func (c *call) passLong(body io.Reader, buf *bytes.Buffer) (format.End, error) {
	var err error
	names := format.NewRenamer(c.o.public())
	for sent, gone := 0, false; ; {
		if !gone {
			n, writeErr := c.x.Write(names.Piece(buf.Bytes()[sent:]))
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
