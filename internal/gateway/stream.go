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

// stream passes a stream of events on, each one flushed as it comes, but for the end of
// it, which close sends. The header waits for the first event, so that an answer which is
// none can still be a problem with a status of its own.
//
// The goroutine of a stream waits here, below everything that led to it, and
// net/http takes 3 KiB of stack to send a header. Together they fit into 8 KiB as
// long as the functions above keep what they rarely need in functions of its own;
// else the stack doubles, for each of thousands of streams.
func (c *call) stream(resp *http.Response) *ending {
	end, err := c.pump(format.NewEvents(resp.Body, c.x.cat.MaxEvent), resp)
	if c.refitWithin() {
		return nil
	}
	if end != format.Complete {
		// The backend stops generating before anything else happens.
		c.cancel(context.Canceled)
		resp.Body.Close()
	}
	if c.x.status == 0 {
		return c.unbegun(end, err, resp.StatusCode)
	}
	return c.endChargedStream(end, err, resp.StatusCode)
}

// endChargedStream says that a stream ended so, and why.
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
	if c.answerClock != nil && usage[pricing.OutputTokens] > c.tokens { // an event that only says who speaks comes before the work
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
		c.failing(observe.Failure{Kind: observe.TimedOut})
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

// unbegun says how a stream ends of which nothing was passed on.
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

// leftAlone ends a call whose client hung up before anything of the answer was sent.
func (c *call) leftAlone(end format.End) *ending {
	e := c.endCharged(end, context.Canceled, 0)
	e.problem = context.Canceled // nobody is left to be told
	return e
}
