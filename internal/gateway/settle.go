package gateway

import (
	"context"
	"sync"
	"time"

	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// settle gives the slot back and ends the hold, with the charge for what was delivered or
// without one. settled is false when the store could not confirm it in time; the charge
// is on its way then.
func (c *call) settle(e *ending) (entry metering.Entry, settled bool) {
	switch {
	case c.lease == nil: // no slot was given
	case e.worked:
		c.countThenRelease(e.blame, e.status)
	default:
		c.slotDone(e.blame, e.status)
	}
	switch {
	case e.unsent != unsentDocument:
	case c.clientGone(): // nobody is left to be told
		e.end, e.unsent, e.problem = format.UnaryClientGone, unsentProblem, context.Canceled
	default:
		c.delivered = int64(len(e.body))
	}
	switch e.bill {
	case billAnswer:
		if !e.worked {
			c.askTokenizer()
		}
		return c.charge(e.end, e.outcome)
	case billCall:
		return c.chargeCall(e.outcome)
	}
	return c.release(e.outcome)
}

// charge measures what was delivered of an answer that ended so, after its backend's
// tokenizer was asked. An empty outcome is end's.
func (c *call) charge(end format.End, outcome metering.Outcome) (entry metering.Entry, settled bool) {
	if outcome == "" {
		outcome = end.Outcome()
	}
	if c.stalled() {
		c.meter.Silent()
	}
	usage, source, clamped := c.meter.Final(end, time.Now())
	c.noteExcess(clamped)
	if usage != (pricing.Units{}) { // what is free for its tokens is free
		usage[pricing.GPUMicros] = c.gpuMicros()
	}
	if end == format.Complete && c.meter.Failed() {
		outcome = metering.OutcomeBackendCut // it said so itself
	}
	return c.commit(metering.Settlement{
		Usage: usage, Source: source, Outcome: outcome, ClampedUsage: clamped,
		DeliveredBytes: c.delivered, Backend: c.lease.Backend().Name(),
	})
}

// chargeCall charges the call fee for a refusal, where the service asks for one.
func (c *call) chargeCall(outcome metering.Outcome) (entry metering.Entry, settled bool) {
	s := metering.Settlement{Source: metering.SourceNone, Outcome: outcome, Backend: c.x.backend}
	if c.o.model.service.ChargeCallOn4xx {
		s.Usage, s.Source = pricing.Units{pricing.Calls: 1}, metering.SourceCounted
	}
	return c.commit(s)
}

// release ends the hold without a charge.
func (c *call) release(outcome metering.Outcome) (entry metering.Entry, settled bool) {
	return c.commit(metering.Settlement{Source: metering.SourceNone, Outcome: outcome})
}

// commit ends the hold with a settlement, exactly once, on a context that the
// client cannot end. It waits at most SettleWait for the store: long enough for
// a database to be restarted. After that the ledger goes on by itself, and the
// end of the answer is sent without numbers: the owner may lose this charge if
// the process dies within the outage, but no client pays for an answer that it
// did not get.
func (c *call) commit(s metering.Settlement) (entry metering.Entry, settled bool) {
	c.ended = true
	started := time.Now()
	ctx, cancel := c.x.detached(c.g.cfg.SettleWait)
	defer cancel()
	entry, err := c.hold.Settle(ctx, s)
	if err != nil {
		c.g.settler.later(c, s, err)
		return entry, false
	}
	c.committed(entry, s.Backend, started, false)
	return entry, true
}

// committed tells that the hold has ended, which took since began.
func (c *call) committed(e metering.Entry, backend string, began time.Time, late bool) {
	c.o.model.worked(e.Usage)
	s := observe.Settlement{RequestID: c.x.requestID, Model: c.o.model.Name, Backend: backend, Entry: e,
		Took: time.Since(began), Total: time.Since(c.arrived), Late: late}
	if e.Usage[pricing.GPUMicros] > 0 {
		s.GPUSource = gpuSource(c.gpuUse())
	}
	c.g.observer.Settled(c.ctx, s)
}

// worked counts an answer at the model's base rates, whatever it was charged.
func (m *model) worked(u pricing.Units) {
	if cost, err := m.Base.Cost(u); err == nil {
		m.work.Add(int64(cost))
	}
}

// Work is what was delivered of a model since the gateway started, in msat at
// its base rates: what a floor from energy divides joules by.
func (g *Gateway) Work(name string) l402.Msat {
	if m := g.catalog().model(name); m != nil {
		return l402.Msat(m.work.Load())
	}
	return 0
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
	s.g.observer.Delayed(c.ctx, c.x.requestID, cause)
	began := time.Now()
	s.pending.Go(func() {
		// The same settlement goes on, whatever the arguments.
		entry, err := c.hold.Settle(s.ctx, settlement)
		if err != nil {
			s.g.observer.Lost(c.ctx, c.x.requestID, err)
			return
		}
		c.committed(entry, settlement.Backend, began, true)
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
