package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"sluice/backends/gpu"
	"sluice/l402"
	"sluice/metering"
	"sluice/metering/chat"
	"sluice/pricing"
)

// stream passes a stream of events on, each one flushed as it comes, and
// settles before the last one is sent.
//
// The goroutine of a stream waits here, below everything that led to it, and
// net/http takes 3 KiB of stack to send a header. Together they fit into 8 KiB as
// long as the functions above keep what they rarely need in functions of its own;
// else the stack doubles, for each of thousands of streams.
func (c *call) stream(resp *http.Response) error {
	h := c.x.Header()
	passHeader(h, resp.Header)
	c.announce(h)
	h["Cache-Control"] = []string{"no-store"}
	h["X-Accel-Buffering"] = []string{"no"} // for a proxy before us
	h[headerBalance] = []string{amountText(c.hold.Available())}
	h["Trailer"] = []string{headerCost}
	c.x.WriteHeader(resp.StatusCode)
	c.g.metrics.firstByte(c)
	end, final := chat.ClientGone, []byte(nil)
	if c.clock != nil {
		c.clock.AwaitEvent()
	}
	if c.x.FlushError() == nil {
		end, final = c.pump(chat.NewEvents(resp.Body, c.g.cfg.MaxEvent))
	}
	if end != chat.Complete {
		// The backend stops generating before anything else happens.
		c.cancel(context.Canceled)
		resp.Body.Close()
	}
	c.endStream(end, final, resp.StatusCode)
	return nil
}

// pump passes events on until the answer ends and says how it did. A complete
// answer's last event is returned, not sent.
func (c *call) pump(events *chat.Events) (chat.End, []byte) {
	for {
		event, err := events.Next()
		if err != nil && !lastWithoutBlankLine(event, err) {
			return c.streamBroke(err), nil
		}
		out, last := c.meter.Event(event)
		if last {
			return chat.Complete, out
		}
		if out == nil {
			continue
		}
		n, err := c.x.Write(out)
		c.delivered += int64(n)
		if err == nil {
			err = c.x.FlushError()
		}
		if err != nil {
			return chat.ClientGone, nil
		}
		c.meter.Delivered()
		usage, source := c.meter.Running()
		if c.clock != nil && usage.OutputTokens > 0 { // an event that only says who speaks comes before the work
			c.clock.Began()
		}
		usage.GPUMicros = c.gpuUsed.Load()
		c.hold.Progress(usage, source)
		if !c.afford(usage, source) {
			return chat.HoldExhausted, nil
		}
	}
}

// lastWithoutBlankLine says whether a stream ended in an order that only lacks
// the blank line after its last event. Any other part of an event is not sent:
// a reader would not see it either.
func lastWithoutBlankLine(event []byte, err error) bool {
	return err == chat.ErrPartial && string(bytes.TrimSpace(event)) == "data: [DONE]"
}

// streamBroke says why no further event could be read.
func (c *call) streamBroke(err error) chat.End {
	switch {
	case c.drained():
		return chat.Drained
	case c.exhausted():
		return chat.HoldExhausted
	case c.clientGone():
		return chat.ClientGone
	case errors.Is(err, gpu.ErrFirstEventTimeout):
		c.g.metrics.unanswered.WithLabelValues(c.o.model.Name).Inc()
	case (errors.Is(err, io.EOF) || err == chat.ErrPartial) && c.meter.Finished():
		return chat.Complete // whole, but for the marker at its end
	}
	return chat.BackendCut
}

// afford makes the hold cover what was delivered, and says whether more may be
// sent. A backend that ignores the cap it was given is cut there: the client
// asked for no more, and the bound was what it agreed to. An estimated count
// may be off, so it is believed only when it is twice the cap. The hold is
// extended for what had no bound beforehand, such as bytes and seconds.
func (c *call) afford(usage pricing.Usage, source metering.Source) bool {
	if most := c.o.bound.Output; usage.OutputTokens > most {
		if source != metering.SourceCounted || usage.OutputTokens > 2*most {
			return false
		}
		usage.OutputTokens = most
	}
	cost, err := c.hold.Rates().Cost(usage)
	if err != nil {
		return false
	}
	if cost <= c.hold.Amount() {
		return true
	}
	// Ask for some more than is needed now, so as not to ask at each event.
	for _, total := range []l402.Msat{cost + cost/8, cost} {
		err = c.hold.Extend(c.ctx, total)
		var short *metering.InsufficientError
		if !errors.As(err, &short) {
			break
		}
	}
	return err == nil
}

// endStream settles and sends the end of the stream: what it cost, the last
// event of a complete answer, the trailer.
func (c *call) endStream(end chat.End, final []byte, status int) {
	blame := context.Canceled // cut here, or left by the client: not the backend's fault
	switch end {
	case chat.Complete:
		blame = nil
	case chat.BackendCut:
		blame = io.ErrUnexpectedEOF
	}
	c.slotDone(blame, status)
	entry, settled := c.charge(end)
	if end == chat.ClientGone {
		return
	}
	tail := make([]byte, 0, 128+len(final))
	if end != chat.Complete {
		tail = append(append(append(tail, ": l402 outcome="...), end.Outcome()...), '\n')
	}
	if settled {
		tail = append(tail, ": l402 cost_msat="...)
		tail = strconv.AppendInt(tail, int64(entry.Charged), 10)
		tail = append(tail, " balance_msat="...)
		tail = strconv.AppendInt(tail, int64(entry.Available), 10)
		c.x.Header()[headerCost] = []string{amountText(entry.Charged)}
	} else {
		tail = append(tail, ": l402 settlement=pending"...)
	}
	tail = append(tail, "\n\n"...)
	tail = append(tail, final...)
	if _, err := c.x.Write(tail); err == nil {
		_ = c.x.FlushError() // the charge stands; a client that misses the end can look it up
	}
}

func amountText(m l402.Msat) string { return strconv.FormatInt(int64(m), 10) }
