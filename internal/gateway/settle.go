package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// charge measures how the answer ended and settles it. settled is false when
// the store could not confirm it in time; the charge is on its way then.
func (c *call) charge(end format.End) (entry metering.Entry, settled bool) {
	return c.chargeAs(end, end.Outcome())
}

// chargeAs is charge for an answer whose end has another name in the ledger.
func (c *call) chargeAs(end format.End, outcome metering.Outcome) (entry metering.Entry, settled bool) {
	if c.stalled() {
		c.meter.Silent()
	}
	c.askTokenizer()
	usage, source, clamped := c.meter.Final(end, time.Now())
	c.noteExcess(clamped)
	if usage != (pricing.Units{}) { // what is free for its tokens is free
		usage[pricing.GPUMicros] = c.gpuMicros()
	}
	if end == format.Complete && c.meter.Failed() {
		outcome = metering.OutcomeBackendCut // it said so itself
	}
	return c.settle(metering.Settlement{
		Usage: usage, Source: source, Outcome: outcome, ClampedUsage: clamped,
		DeliveredBytes: c.delivered, Backend: c.lease.Backend().Name(),
	})
}

// stalled reports whether the client stopped waiting for a document, and the backend
// showed nobody a sign of life since the request went to it. A stream that its client
// left costs its prompt all the same: otherwise an idle backend would read prompts for
// free, for callers who leave before its first token.
func (c *call) stalled() bool {
	return !c.o.req.Stream() && c.clientGone() && c.engine.silentSince(c.began)
}

// askTokenizer lets a backend count what no usage told, where it can.
func (c *call) askTokenizer() {
	b := c.lease.Backend()
	profile := c.g.profile(b)
	if c.tokenized || profile.Counting == format.CountNone || c.stalled() {
		return
	}
	c.tokenized = true
	prompt, text, ok := c.meter.NeedsTokenizer()
	if !ok {
		return
	}
	ctx, cancel := c.x.detached(tokenizeTimeout)
	defer cancel()
	promptTokens, completionTokens := int64(-1), int64(-1)
	if prompt {
		if q, n, err := c.g.count(ctx, b, c.g.questions(b, c.o)); err == nil {
			promptTokens = q.Likely(n)
		}
	}
	if q, ok := format.CountText(profile, b.Upstream(c.o.model.Name), text); ok && text != "" {
		q.Header = c.o.model.headers
		if _, n, err := c.g.count(ctx, b, []format.Question{q}); err == nil {
			completionTokens = n
		}
	}
	c.meter.Tokenized(promptTokens, completionTokens)
}

// settle ends the hold with a charge, exactly once, on a context that the
// client cannot end. It waits at most SettleWait for the store: long enough for
// a database to be restarted. After that the ledger goes on by itself, and the
// end of the answer is sent without numbers: the owner may lose this charge if
// the process dies within the outage, but no client pays for an answer that it
// did not get.
func (c *call) settle(s metering.Settlement) (entry metering.Entry, settled bool) {
	c.ended = true
	started := time.Now()
	ctx, cancel := c.x.detached(c.g.cfg.SettleWait)
	defer cancel()
	entry, err := c.hold.Settle(ctx, s)
	if err != nil {
		c.g.settler.later(c, s, err)
		return entry, false
	}
	c.g.metrics.settled(c.o.model.Name, entry, time.Since(started))
	c.o.model.worked(entry.Usage)
	c.noteUnbilled(entry, s.Backend)
	c.logEnd(entry, s.Backend)
	return entry, true
}

// logEnd writes the one line that a paid request leaves at level info.
func (c *call) logEnd(e metering.Entry, backend string) {
	attrs := []slog.Attr{slog.String("request_id", c.x.requestID),
		slog.String("model", c.o.model.Name), slog.String("outcome", string(e.Outcome)), slog.String("source", string(e.Source)),
		slog.Int64("charged_msat", int64(e.Charged)), slog.Int64("input_tokens", e.Usage[pricing.InputTokens]),
		slog.Int64("output_tokens", e.Usage[pricing.OutputTokens]), slog.String("backend", backend),
		slog.Duration("took", time.Since(c.arrived))}
	if e.Usage[pricing.GPUMicros] > 0 {
		attrs = append(attrs, slog.Int64("gpu_us", e.Usage[pricing.GPUMicros]), slog.String("gpu_source", gpuSource(c.gpuUse())))
	}
	c.g.log.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}

// release ends the hold without a charge, exactly once.
//
//go:noinline
func (c *call) release(outcome metering.Outcome) {
	_, _ = c.settle(metering.Settlement{Source: metering.SourceNone, Outcome: outcome}) // the answer has no numbers either way
}

// abandon ends a call that left its path, by a panic: what was delivered is
// charged, and no hold outlives its request.
func (c *call) abandon() {
	defer c.cancel(context.Canceled)
	c.unwatch()
	if c.ended {
		return
	}
	c.cancel(context.Canceled)
	if c.lease == nil || c.meter == nil {
		c.release(metering.OutcomeBackendError)
		return
	}
	_, _ = c.charge(format.BackendCut) // the panic answers the client
}

// tell puts the charge into the headers of an answer.
func (c *call) tell(h http.Header, entry metering.Entry, settled bool) {
	if !settled {
		h[headerSettlement] = []string{"pending"}
		return
	}
	h[headerCost] = []string{amountText(entry.Charged)}
	h[headerBalance] = []string{amountText(entry.Available)}
}

// settler waits for settlements that the store did not confirm in time, so that
// they are seen to their end and counted. Their number is bounded by that of
// the requests that were open when the store went away: without it no new one
// starts.
type settler struct {
	g       *Gateway
	ctx     context.Context
	stop    context.CancelFunc
	pending sync.WaitGroup
}

func newSettler(g *Gateway) *settler {
	s := &settler{g: g}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// later takes a settlement over.
func (s *settler) later(c *call, settlement metering.Settlement, cause error) {
	s.g.log.Error("charge is delayed", "request_id", c.x.requestID, "error", cause)
	s.g.metrics.unsettled.Inc()
	began := time.Now()
	s.pending.Go(func() {
		defer s.g.metrics.unsettled.Dec()
		// The same settlement goes on, whatever the arguments.
		entry, err := c.hold.Settle(s.ctx, settlement)
		if err != nil {
			s.g.metrics.lost.Inc()
			s.g.log.Error("charge is lost to its hold's lease", "request_id", c.x.requestID, "error", err)
			return
		}
		s.g.metrics.settled(c.o.model.Name, entry, time.Since(began))
		c.o.model.worked(entry.Usage)
		c.logEnd(entry, settlement.Backend)
	})
}

// wait returns when nothing is pending or ctx ends; then it gives up.
func (s *settler) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.pending.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.stop()
		<-done
		return ctx.Err()
	}
}
