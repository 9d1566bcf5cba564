package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// stream passes a stream of events on, each one flushed as it comes, and
// settles before the end of it is sent. The header waits for the first event, so
// that an answer which is none can still be a problem with a status of its own.
//
// The goroutine of a stream waits here, below everything that led to it, and
// net/http takes 3 KiB of stack to send a header. Together they fit into 8 KiB as
// long as the functions above keep what they rarely need in functions of its own;
// else the stack doubles, for each of thousands of streams.
func (c *call) stream(resp *http.Response) error {
	end, err := c.pump(format.NewEvents(resp.Body, c.x.cat.MaxEvent), resp)
	if c.refitWithin() {
		return c.again(resp)
	}
	if end != format.Complete {
		// The backend stops generating before anything else happens.
		c.cancel(context.Canceled)
		resp.Body.Close()
	}
	if c.x.status == 0 {
		return c.unbegun(end, err, resp.StatusCode)
	}
	c.endStream(end, err, resp.StatusCode)
	return nil
}

// begin sends the header of a stream.
func (c *call) begin(resp *http.Response) {
	h := c.x.Header()
	passHeader(h, resp.Header)
	c.announce(h)
	h["Content-Type"] = []string{eventStream} // whatever the backend called it
	h["Cache-Control"] = []string{"no-store"}
	h["X-Accel-Buffering"] = []string{"no"} // for a proxy before us
	h[headerBalance] = []string{amountText(c.hold.Available())}
	h["Trailer"] = []string{headerCost}
	c.x.WriteHeader(resp.StatusCode)
}

// pump passes events on until the answer ends and says how it did, and why. The
// event that ends a complete answer is not sent.
func (c *call) pump(events *format.Events, resp *http.Response) (format.End, error) {
	for {
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
			return c.endOf()
		case c.meter.Failed():
			return format.BackendCut, errFailedInside
		case out == nil:
			continue
		case c.x.status == 0:
			c.g.metrics.firstByte(c)
			c.begin(resp)
		}
		n, err := c.x.Write(out)
		c.delivered += int64(n)
		if err == nil {
			err = c.x.FlushError()
		}
		if err != nil {
			return format.ClientGone, err
		}
		if err = c.count(); err != nil {
			return format.HoldExhausted, err
		}
	}
}

// errNoEnd reports the marker of the end behind an answer that is not known to be
// whole: its backend may have failed, or be one that never says more.
var errNoEnd = errors.New("the backend ended its answer without a finish_reason for each completion")

// endOf is how a stream ended with the marker of the end.
func (c *call) endOf() (format.End, error) {
	switch {
	case c.meter.Finished():
		return format.Complete, nil
	case !c.meter.Started():
		return format.BackendCut, errNoAnswer
	}
	return format.BackendCut, errNoEnd
}

// errFailedInside reports a backend that said within its answer that it failed.
var errFailedInside = errors.New("backend failed within its answer")

// count notes what was delivered and says why no more may be. Of a whole answer nothing
// is left to be kept back.
func (c *call) count() error {
	c.meter.Delivered()
	usage, source := c.meter.Running()
	if c.clock != nil && usage[pricing.OutputTokens] > c.tokens { // an event that only says who speaks comes before the work
		c.tokens = usage[pricing.OutputTokens]
		c.clock.Progress()
	}
	usage[pricing.GPUMicros] = c.gpuUsed.Load()
	c.hold.Progress(usage, source)
	err := c.afford(usage, source)
	if errors.Is(err, errTooDear) && c.meter.Ended() {
		return nil
	}
	return err
}

// lastWithoutBlankLine says whether a stream ended in an order that only lacks
// the line ends after its last event. Any other part of an event is not sent.
func lastWithoutBlankLine(event []byte, err error) bool {
	return errors.Is(err, format.ErrPartial) && format.Whole(event)
}

// streamBroke says why no further event could be read.
func (c *call) streamBroke(err error) format.End {
	switch {
	case c.meter.Ended() && !c.clientGone():
		return format.Complete // whatever broke it, and without the marker at its end
	case c.drained():
		return format.Drained
	case c.exhausted():
		return format.HoldExhausted
	case c.clientGone() && c.ctx.Err() != nil:
		return format.ClientGone
	case errors.Is(err, gpu.ErrFirstEventTimeout):
		c.g.metrics.unanswered.WithLabelValues(c.o.model.Name).Inc()
	case (errors.Is(err, io.EOF) || err == format.ErrPartial) && c.meter.Finished():
		return format.Complete
	}
	return format.BackendCut
}

// errBeyondCap reports a backend that generates more than it was asked for;
// errTooDear a balance that does not cover more of an answer.
var (
	errBeyondCap = errors.New("the backend generates beyond the cap")
	errTooDear   = errors.New("the balance does not cover more of the answer")
)

// afford makes the hold cover what was delivered, and says why no more may be
// sent. A backend that ignores the cap it was given is cut there: the client
// asked for no more, and the bound was what it agreed to. An estimate alone never
// cuts, because it may be off. The hold is extended for what had no bound
// beforehand, such as bytes and seconds.
func (c *call) afford(usage pricing.Units, source metering.Source) error {
	if most := c.o.bound.Output; usage[pricing.OutputTokens] > most {
		if c.meter.Beyond() {
			return errBeyondCap
		}
		usage[pricing.OutputTokens] = most
	}
	cost, err := c.hold.Rates().Cost(usage)
	if err != nil {
		return errTooDear
	}
	if cost <= c.hold.Amount() {
		return nil
	}
	// Ask for some more than is needed now, so as not to ask at each event.
	for _, total := range []l402.Msat{cost + cost/8, cost} {
		err = c.hold.Extend(c.ctx, total)
		var short *metering.InsufficientError
		if !errors.As(err, &short) {
			break
		}
	}
	if err != nil {
		return errTooDear
	}
	return nil
}

// blame is what the fleet is told of an answer that ended so: its error, or
// context.Canceled where it is not the backend's fault.
func (c *call) blame(end format.End, err error) error {
	switch {
	case end == format.Complete:
		return nil
	case errors.Is(err, errBeyondCap):
		return err
	case end != format.BackendCut:
		return context.Canceled
	case c.meter.Failed():
		return errFailedInside
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, format.ErrPartial):
		return io.ErrUnexpectedEOF
	}
	return err
}

// unbegun ends a stream of which nothing was passed on.
//
//go:noinline
func (c *call) unbegun(end format.End, err error, status int) error {
	switch end {
	case format.ClientGone:
		c.answered(context.Canceled, 0)
		_, _ = c.charge(end) // nobody is left to be told
		return context.Canceled
	case format.Drained:
		c.slotDone(context.Canceled, 0)
		c.release(metering.OutcomeDrained)
		return c.goneAway()
	case format.HoldExhausted:
		c.slotDone(context.Canceled, 0)
		return c.cutShort()
	}
	if err == nil {
		err = errNoAnswer
	}
	return c.noAnswer(err, status)
}

// endStream settles and sends the end of the stream: what it cost, in the block of
// the end marker, or of the error frame where the answer is not whole; then the
// trailer.
func (c *call) endStream(end format.End, cause error, status int) {
	c.answered(c.blame(end, cause), status)
	entry, settled := c.charge(end)
	if end == format.ClientGone || end == format.UnaryClientGone {
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
	closing := format.Closing{End: end}
	if end != format.Complete {
		comment = append(append(comment, " outcome="...), end.Outcome()...)
		c.sayWhyCut(&closing, cause)
	}
	closing.Comment = string(comment)
	if _, err := c.x.Write(c.meter.Close(closing)); err == nil {
		_ = c.x.FlushError() // the charge stands; a client that misses the end can look it up
	}
}

// sayWhyCut words the end of a stream that is not whole.
//
//go:noinline
func (c *call) sayWhyCut(closing *format.Closing, cause error) {
	kind, code, message := typeBackendUnavailable, "backend_cut", "the backend broke off its answer"
	switch {
	case errors.Is(cause, errBeyondCap):
		code, message = "cap_exceeded", "the backend went on beyond the cap of the request, where the answer was cut"
	case closing.End == format.HoldExhausted:
		kind, code = typeInsufficientBalance, "balance_exhausted"
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

func amountText(m l402.Msat) string { return strconv.FormatInt(int64(m), 10) }
