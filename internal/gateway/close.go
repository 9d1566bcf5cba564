package gateway

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// close sends the end of the answer with its cost. If no part of an answer was sent, close
// returns the problem that the client is told instead. The cost is named as pending if the
// store did not confirm the charge in time.
func (c *call) close(e *ending, entry *metering.Entry, settled bool) error {
	switch e.unsent {
	case unsentEvents:
		c.closeStream(e, entry, settled)
	case unsentDocument:
		c.sendDocument(e, entry, settled)
	case unsentTrailer:
		if e.end != format.Complete {
			panic(http.ErrAbortHandler) // half a document must not look whole
		}
		if settled {
			c.x.Header()[headerCost] = []string{amountText(entry.Charged)}
		}
	case unsentRefusal:
		h := c.x.Header()
		c.announce(h)
		c.tell(h, entry, settled)
	case unsentOffer:
		if !settled {
			return c.g.offer(c.x, forRest, c.o, nil)
		}
		return c.g.offer(c.x, forRest, c.o, &entry.Available)
	}
	return e.problem
}

// sendDocument sends an answer that is one document, with its cost in the headers.
func (c *call) sendDocument(e *ending, entry *metering.Entry, settled bool) {
	h := c.x.Header()
	passHeader(h, c.resp.Header)
	c.announce(h)
	c.tell(h, entry, settled)
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(e.body))}
	c.x.WriteHeader(c.resp.StatusCode)
	_, _ = c.x.Write(e.body) // the charge remains; a client that hung up now can look it up
}

// closeStream sends the end of a stream and then its trailer. The cost is a comment in the block
// of the end marker, or in that of the error frame if the answer is not whole.
func (c *call) closeStream(e *ending, entry *metering.Entry, settled bool) {
	if e.end == format.ClientGone || e.end == format.UnaryClientGone {
		return
	}
	comment := make([]byte, 0, 96)
	if settled {
		comment = append(comment, ": l402 cost_msat="...)
		comment = strconv.AppendInt(comment, int64(entry.Charged), 10)
		comment = append(comment, " balance_msat="...)
		comment = strconv.AppendInt(comment, int64(entry.Available), 10)
		c.x.Header()[headerCost] = []string{amountText(entry.Charged)}
	} else {
		comment = append(comment, ": l402 settlement=pending"...)
	}
	closing := format.Closing{End: e.end}
	if e.end != format.Complete {
		comment = append(append(comment, " outcome="...), e.end.Outcome()...)
		c.sayWhyCut(&closing, e.cause)
	}
	closing.Comment = string(comment)
	if _, err := c.x.Write(c.meter.Close(closing)); err == nil {
		_ = c.x.FlushError() // the charge remains; a client that misses the end can look it up
	}
}

// sayWhyCut sets in closing the words for a stream that is not whole.
func (c *call) sayWhyCut(closing *format.Closing, cause error) {
	kind, code, message := problem.BackendUnavailable, "backend_cut", "the backend broke off its answer"
	switch {
	case errors.Is(cause, errBeyondCap):
		code, message = "cap_exceeded", "the backend went on beyond the cap of the request, where the answer was cut"
	case closing.End == format.HoldExhausted:
		kind, code = problem.InsufficientBalance, "balance_exhausted"
		message = "the balance does not cover more of the answer; top up and repeat the request"
	case closing.End == format.Drained && context.Cause(c.ctx) == errBackendDrained:
		code, message = "backend_drained", "the backend is taken away; repeat the request"
	case closing.End == format.Drained:
		code, message = "shutting_down", "the gateway is shutting down; repeat the request"
	case errors.Is(cause, errNoEnd):
		message = "the backend ended its answer without saying that it is whole"
	case c.meter.Failed():
		code, message = "backend_failed", "the backend failed within its answer"
		if words := c.failureWords(); words != "" {
			message += ": " + words
		}
	}
	closing.Kind, closing.Code, closing.Message = kind, code, message+" (what was delivered is charged)"
}
