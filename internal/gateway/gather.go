package gateway

import (
	"context"
	"errors"
	"net/http"

	"sluice.example/sluice/metering/format"
)

// gather reads a backend's stream for a client that waits for a document, and answers with the
// document that the backend would have sent. So the gateway knows at each moment what was
// generated: a client that hangs up pays only for that, and the gateway cuts a backend that
// goes beyond the cap.
func (c *call) gather(resp *http.Response) *ending {
	end, err := c.collect(format.NewEvents(resp.Body, c.x.cat.MaxEvent))
	if c.refitWithin() {
		return nil
	}
	capped := errors.Is(err, errBeyondCap)
	if end != format.Complete {
		c.cancel(context.Canceled)
		resp.Body.Close()
	}
	switch {
	case end == format.Complete && c.meter.Started(), capped:
	case errors.Is(err, errAnswerTooLong):
		return c.tooLong(resp)
	case end == format.ClientGone:
		return c.leftAlone(format.UnaryClientGone)
	case end == format.Drained, end == format.HoldExhausted:
		return c.unbegun(end, err, resp.StatusCode)
	default:
		if err == nil {
			err = errNoAnswer
		}
		return c.unbegun(format.BackendCut, err, resp.StatusCode)
	}
	c.countThenRelease(c.blame(end, err), resp.StatusCode) // the document shows these counts
	resp.Header = gatheredHeader(resp.Header)
	return c.document(c.meter.Document(capped), end)
}

// gatheredHeader returns the header for a document that was made of a stream with the header h.
func gatheredHeader(h http.Header) http.Header {
	h = h.Clone()
	h["Content-Type"] = []string{"application/json"}
	return h
}

// collect reads events until the answer ends, and returns how and why the answer ended.
func (c *call) collect(events *format.Events) (format.End, error) {
	for first := true; ; {
		event, err := events.Next()
		if err != nil && !lastWithoutBlankLine(event, err) {
			return c.streamBroke(err), err
		}
		out, last := c.meter.Event(event)
		if c.meter.IsPart() {
			c.engine.hear()
		}
		switch {
		case last:
			for more := events.Held(); more != nil; more = events.Held() {
				c.meter.AfterEnd(more)
				c.meter.Gather()
			}
			return c.endOf()
		case c.meter.Failed():
			return format.BackendCut, errFailedInside
		}
		gathered := c.meter.Gather()
		if gathered == 0 {
			continue
		}
		if first {
			c.firstByte()
			first = false
		}
		if !c.roomFor(gathered) {
			return format.BackendCut, errAnswerTooLong
		}
		if out == nil {
			continue
		}
		if err = c.count(); err != nil {
			return format.HoldExhausted, err
		}
	}
}
