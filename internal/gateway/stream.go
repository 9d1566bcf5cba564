package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// stream passes a stream of events on and flushes each event as it comes. close sends the end
// of the stream. The header is sent with the first event, so that the client gets a problem
// with a status of its own if the body is not an answer.
//
// While a stream lasts, its goroutine waits in stream, and the callers of stream are below it
// on the stack. net/http takes 3 KiB of stack to send a header. Everything fits into a stack
// of 8 KiB as long as the callers keep their rare work in functions of their own. Otherwise
// the stack doubles for each of thousands of streams.
func (c *call) stream(resp *http.Response) *ending {
	end, err := c.pump(format.NewEvents(resp.Body, c.x.cat.MaxEvent), resp)
	if c.refitWithin() {
		return nil
	}
	if end != format.Complete {
		// The backend stops generating before the gateway does anything else.
		c.cancel(context.Canceled)
		resp.Body.Close()
	}
	if c.x.status == 0 {
		return c.unbegun(end, err, resp.StatusCode)
	}
	return c.endChargedStream(end, err, resp.StatusCode)
}

// endChargedStream ends a call whose stream is charged. end is how the stream ended, and cause
// is why; nil: the stream is complete.
func (c *call) endChargedStream(end format.End, cause error, status int) *ending {
	e := c.endCharged(end, c.blame(end, cause), status)
	e.unsent, e.cause = unsentEvents, cause
	return e
}

// begin sends the header of a stream.
func (c *call) begin(resp *http.Response) {
	h := c.x.Header()
	passHeader(h, resp.Header)
	c.announce(h)
	h["Content-Type"] = []string{eventStream} // whatever Content-Type the backend sent
	h["Cache-Control"] = []string{"no-store"}
	h["X-Accel-Buffering"] = []string{"no"} // tells a proxy between client and gateway not to buffer
	h[headerBalance] = []string{amountText(c.hold.Available())}
	h["Trailer"] = []string{headerCost}
	c.x.WriteHeader(resp.StatusCode)
}

// pump passes events on until the answer ends, and returns how and why it ended. pump does not
// send the event that ends a complete answer, because close does.
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
			for more := events.Held(); more != nil; more = events.Held() {
				c.meter.AfterEnd(more)
			}
			return c.endOf()
		case c.meter.Failed():
			return format.BackendCut, errFailedInside
		case out == nil:
			continue
		case c.x.status == 0:
			c.firstByte()
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

// errNoEnd reports an end marker after an answer that is not known to be whole: the backend may
// have failed, or it is a backend that never sends a finish_reason.
var errNoEnd = errors.New("the backend ended its answer without a finish_reason for each completion")

// endOf returns how a stream ended whose end marker came.
func (c *call) endOf() (format.End, error) {
	switch {
	case c.meter.Finished():
		return format.Complete, nil
	case !c.meter.Started():
		return format.BackendCut, errNoAnswer
	}
	return format.BackendCut, errNoEnd
}

// errFailedInside reports a backend that reported its own failure within its answer.
var errFailedInside = errors.New("backend failed within its answer")

// count notes that an event was delivered, and returns an error if no more may be delivered.
// errTooDear is ignored for an answer that has ended, because nothing more of it can be
// withheld.
func (c *call) count() error {
	c.meter.Delivered()
	usage, source := c.meter.Running()
	if c.answerClock != nil && usage[pricing.OutputTokens] > c.tokens { // an event that only names the speaker is no progress
		c.tokens = usage[pricing.OutputTokens]
		c.answerClock.Progress()
	}
	usage[pricing.GPUMicros] = c.gpuUsed.Load()
	c.hold.Progress(usage, source)
	err := c.afford(usage, source)
	if errors.Is(err, errTooDear) && c.meter.Ended() {
		return nil
	}
	return err
}

// lastWithoutBlankLine reports whether a stream's last event is whole, and lacks only the line
// ends behind it. The gateway drops any other partial event.
func lastWithoutBlankLine(event []byte, err error) bool {
	return errors.Is(err, format.ErrPartial) && format.Whole(event)
}

// streamBroke returns how a stream ended that broke with err before its end marker.
func (c *call) streamBroke(err error) format.End {
	switch {
	case c.meter.Ended() && !c.clientGone():
		return format.Complete // the answer is whole, whatever broke the stream before the end marker
	case c.drained():
		return format.Drained
	case c.exhausted():
		return format.HoldExhausted
	case c.clientGone() && c.ctx.Err() != nil:
		return format.ClientGone
	case errors.Is(err, gpu.ErrFirstEventTimeout):
		c.failing(observe.Failure{Kind: observe.TimedOut})
	case (errors.Is(err, io.EOF) || err == format.ErrPartial) && c.meter.Finished():
		return format.Complete
	}
	return format.BackendCut
}

// errBeyondCap reports a backend that generates more tokens than the cap allows. errTooDear
// reports a balance that does not cover more of an answer.
var (
	errBeyondCap = errors.New("the backend generates beyond the cap")
	errTooDear   = errors.New("the balance does not cover more of the answer")
)

// afford makes the hold cover what was delivered, and returns an error if no more may be sent.
// It returns errBeyondCap for a backend that ignores the cap, because the client agreed to the
// cap and its bound. An estimate alone never cuts an answer, because estimates may be wrong.
// afford extends the hold for units without a bound beforehand, such as bytes and seconds.
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
	// Ask for an eighth more than the cost, so as not to ask the ledger at each event.
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

// blame returns what the fleet is told about the backend of an answer that ended with end: nil
// for a complete answer, the error if the backend is to blame, and otherwise context.Canceled.
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

// unbegun ends a call whose stream ended before any part of it was passed on.
//
//go:noinline
func (c *call) unbegun(end format.End, err error, status int) *ending {
	switch end {
	case format.ClientGone:
		return c.leftAlone(end)
	case format.Drained:
		return c.endFree(metering.OutcomeDrained, c.goneAway())
	case format.HoldExhausted:
		return c.cutShort()
	}
	if err == nil {
		err = errNoAnswer
	}
	return c.noAnswer(err, status)
}

// leftAlone ends a call whose client hung up before any part of the answer was sent. The call
// is charged.
func (c *call) leftAlone(end format.End) *ending {
	e := c.endCharged(end, context.Canceled, 0)
	e.problem = context.Canceled // the client hung up and is told nothing
	return e
}
