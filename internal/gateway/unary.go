package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"sluice/metering"
	"sluice/metering/chat"
)

// maxUnaryTimes is how many times UnaryHoldBack a unary answer may be long.
const maxUnaryTimes = 4

// unary passes on an answer that is one document. It is held until it is
// charged, so that its headers tell the truth; beyond UnaryHoldBack it is
// passed on as it comes, with its cost as a trailer.
func (c *call) unary(resp *http.Response) error {
	limit := int64(c.g.cfg.UnaryHoldBack)
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 && n <= limit {
		buf.Grow(int(n) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(io.LimitReader(resp.Body, limit+1))
	c.g.metrics.firstByte(c)
	switch {
	case err != nil:
		return c.unaryBroke(err, resp.StatusCode)
	case int64(buf.Len()) > limit:
		return c.unaryLong(resp, &buf)
	}
	c.slotDone(nil, resp.StatusCode)
	c.readUnary(buf.Bytes())
	if c.clientGone() {
		_, _ = c.charge(chat.UnaryClientGone) // nobody is left to be told
		return context.Canceled
	}
	c.delivered = int64(buf.Len())
	entry, settled := c.charge(chat.Complete)
	h := c.x.Header()
	passHeader(h, resp.Header)
	c.announce(h)
	c.tell(h, entry, settled)
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(buf.Len())}
	c.x.WriteHeader(resp.StatusCode)
	_, _ = c.x.Write(buf.Bytes()) // the charge stands; a client that hung up just now can look it up
	return nil
}

// readUnary meters a whole document; one of another format is counted by its
// bytes.
func (c *call) readUnary(body []byte) {
	if err := c.meter.Unary(body); err != nil {
		c.g.log.Warn("answer of a backend is not of the format", "backend", c.lease.Backend().Name(), "error", err)
	}
}

// unaryBroke ends a call whose answer broke off before anything of it was sent.
func (c *call) unaryBroke(err error, status int) error {
	switch {
	case c.drained():
		c.slotDone(context.Canceled, 0)
		c.release(metering.OutcomeDrained)
		return draining()
	case c.exhausted():
		c.slotDone(context.Canceled, 0)
		return c.cutShort()
	case c.clientGone():
		c.slotDone(context.Canceled, 0)
		_, _ = c.charge(chat.UnaryClientGone) // nobody is left to be told
		return context.Canceled
	}
	c.slotDone(err, status)
	c.release(metering.OutcomeBackendCut)
	c.g.log.Warn("backend broke off a unary answer", "backend", c.lease.Backend().Name(), "error", err)
	return newProblem(http.StatusBadGateway, typeBackendUnavailable, "the backend broke off its answer; nothing was charged")
}

// unaryLong passes on an answer that is too long to be held back. A copy is
// kept for the meter; an answer beyond maxUnaryTimes the limit is cut.
func (c *call) unaryLong(resp *http.Response, buf *bytes.Buffer) error {
	h := c.x.Header()
	passHeader(h, resp.Header)
	c.announce(h)
	h["Cache-Control"] = []string{"no-store"}
	h[headerBalance] = []string{amountText(c.hold.Available())}
	h["Trailer"] = []string{headerCost}
	c.x.WriteHeader(resp.StatusCode)

	end, blame := c.passLong(resp.Body, buf)
	if end != chat.Complete {
		c.cancel(context.Canceled)
	}
	c.slotDone(blame, resp.StatusCode)
	if end != chat.UnaryClientGone {
		c.readUnary(buf.Bytes())
	}
	entry, settled := c.charge(end)
	if end != chat.Complete {
		panic(http.ErrAbortHandler) // half a document must not look like a whole one
	}
	if settled {
		h[headerCost] = []string{amountText(entry.Charged)}
	}
	return nil
}

// errAnswerTooLong reports an answer beyond all limits.
var errAnswerTooLong = errors.New("unary answer is too long")

// passLong writes what was read already and the rest, and says how it ended.
func (c *call) passLong(body io.Reader, buf *bytes.Buffer) (chat.End, error) {
	most := maxUnaryTimes * c.g.cfg.UnaryHoldBack
	var err error
	for sent := 0; ; {
		n, writeErr := c.x.Write(buf.Bytes()[sent:])
		c.delivered += int64(n)
		switch {
		case writeErr != nil:
			return chat.UnaryClientGone, context.Canceled
		case errors.Is(err, io.EOF):
			return chat.Complete, nil
		case err == nil && buf.Len() > most:
			err = errAnswerTooLong
		}
		switch {
		case err == nil:
		case c.drained():
			return chat.Drained, context.Canceled
		case c.exhausted():
			return chat.HoldExhausted, context.Canceled
		case c.clientGone():
			return chat.UnaryClientGone, context.Canceled
		default:
			return chat.BackendCut, err
		}
		sent = buf.Len()
		_, err = io.CopyN(buf, body, 64<<10)
	}
}
