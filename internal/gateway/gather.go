package gateway

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"sluice.example/sluice/metering/chat"
)

// gather reads a stream for a client that waits for one document, and answers
// with what the backend would have answered. So the gateway knows at each moment
// what was generated: a client that hangs up pays for that and for no more, and a
// backend that goes beyond the cap is cut there.
func (c *call) gather(resp *http.Response) error {
	var g chat.Gathering
	end, err := c.collect(chat.NewEvents(resp.Body, c.x.cat.MaxEvent), &g)
	capped := errors.Is(err, errBeyondCap)
	if end != chat.Complete {
		c.cancel(context.Canceled)
		resp.Body.Close()
	}
	switch {
	case end == chat.Complete && c.meter.Started(), capped:
	case errors.Is(err, errAnswerTooLong):
		return c.tooLong(resp)
	case end == chat.ClientGone:
		c.answered(context.Canceled, 0)
		_, _ = c.charge(chat.UnaryClientGone) // nobody is left to be told
		return context.Canceled
	case end == chat.Drained, end == chat.HoldExhausted:
		return c.unbegun(end, err, resp.StatusCode)
	default:
		if err == nil {
			err = errNoAnswer
		}
		return c.unbegun(chat.BackendCut, err, resp.StatusCode)
	}
	c.answered(c.blame(end, err), resp.StatusCode)
	resp.Header = gatheredHeader(resp.Header)
	return c.document(resp, g.Document(c.perSequence, capped), end)
}

// gatheredHeader is the header of a document made of a stream with the header h.
func gatheredHeader(h http.Header) http.Header {
	h = h.Clone()
	h["Content-Type"] = []string{"application/json"}
	return h
}

// collect reads events until the answer ends and says how it did, and why.
func (c *call) collect(events *chat.Events, g *chat.Gathering) (chat.End, error) {
	for first := true; ; {
		event, err := events.Next()
		if err != nil && !lastWithoutBlankLine(event, err) {
			return c.streamBroke(err), err
		}
		c.engine.hear()
		out, last := c.meter.Event(event)
		switch {
		case last:
			return chat.Complete, nil
		case c.meter.Failed():
			return chat.BackendCut, errFailedInside
		case c.meter.Data() == nil:
			continue
		}
		if first {
			c.g.metrics.firstByte(c)
			first = false
		}
		if !c.roomFor(g.Add(c.meter.Data())) {
			return chat.BackendCut, errAnswerTooLong
		}
		if out == nil {
			continue
		}
		if err = c.count(); err != nil {
			return chat.HoldExhausted, err
		}
	}
}

// document charges an answer that is one document and sends it.
func (c *call) document(resp *http.Response, body []byte, end chat.End) error {
	if c.clientGone() {
		_, _ = c.charge(chat.UnaryClientGone) // nobody is left to be told
		return context.Canceled
	}
	c.delivered = int64(len(body))
	entry, settled := c.charge(end)
	h := c.x.Header()
	passHeader(h, resp.Header)
	c.announce(h)
	c.tell(h, entry, settled)
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	c.x.WriteHeader(resp.StatusCode)
	_, _ = c.x.Write(body) // the charge stands; a client that hung up just now can look it up
	return nil
}
