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

// settle gives the slot back and ends the hold, with a charge for what was delivered or
// without a charge. settled is false if the store did not confirm the settlement in time;
// then the settler waits for the same settlement.
func (c *call) settle(e *ending) (entry *metering.Entry, settled bool) {
	switch {
	case c.lease == nil: // the call got no slot
	case e.worked:
		c.countThenRelease(e.blame, e.status)
	default:
		c.slotDone(e.blame, e.status)
	}
	switch {
	case e.unsent != unsentDocument:
	case c.clientGone(): // the client hung up and gets nothing
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

// charge charges the hold for what was delivered of an answer that ended with end. The
// backend's tokenizer was asked before. An empty outcome stands for the outcome that belongs
// to end.
func (c *call) charge(end format.End, outcome metering.Outcome) (entry *metering.Entry, settled bool) {
	if outcome == "" {
		outcome = end.Outcome()
	}
	if c.stalled() {
		c.meter.Silent()
	}
	usage, source, clamped := c.meter.Final(end, time.Now())
	c.noteExcess(clamped)
	if usage != (pricing.Units{}) { // an answer without any charged unit pays no GPU time either
		usage[pricing.GPUMicros] = c.gpuMicros()
	}
	if end == format.Complete && c.meter.Failed() {
		outcome = metering.OutcomeBackendCut // the backend reported a failure within the answer
	}
	return c.commit(metering.Settlement{
		Usage: usage, Source: source, Outcome: outcome, ClampedUsage: clamped,
		DeliveredBytes: c.delivered, Backend: c.lease.Backend().Name(),
	})
}

// chargeCall ends the hold after a backend's refusal: with the call fee where the service asks
// for a call fee, otherwise without a charge.
func (c *call) chargeCall(outcome metering.Outcome) (entry *metering.Entry, settled bool) {
	s := metering.Settlement{Source: metering.SourceNone, Outcome: outcome, Backend: c.x.backend}
	if c.o.model.service.ChargeCallOn4xx {
		s.Usage, s.Source = pricing.Units{pricing.Calls: 1}, metering.SourceCounted
	}
	return c.commit(s)
}

// release ends the hold without a charge.
func (c *call) release(outcome metering.Outcome) (entry *metering.Entry, settled bool) {
	return c.commit(metering.Settlement{Source: metering.SourceNone, Outcome: outcome})
}

// commit ends the hold with a settlement, exactly once, on a context that the client cannot
// end. commit waits for the store for SettleWait at most, which is long enough to restart a
// database. After that the settler continues, and the client gets the end of the answer
// without the charge. If the process dies within the outage, the owner may lose this charge,
// but no client pays for an answer that the client did not get.
func (c *call) commit(s metering.Settlement) (entry *metering.Entry, settled bool) {
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

// committed tells the observer that the hold has ended. began is when the settlement began;
// late says that the store did not confirm it within SettleWait.
func (c *call) committed(e *metering.Entry, backend string, began time.Time, late bool) {
	c.o.model.worked(e.Usage)
	s := observe.Settlement{RequestID: c.x.requestID, Model: c.o.model.Name, Backend: backend, Entry: e,
		Took: time.Since(began), Total: time.Since(c.arrived), Late: late}
	if e.Usage[pricing.GPUMicros] > 0 {
		s.GPUSource = gpuSource(c.gpuUse())
	}
	c.g.observer.Settled(c.ctx, s)
}

// worked adds the value of an answer, in msat at the model's base rates, to the model's work.
// What the client was charged does not matter.
func (m *model) worked(u pricing.Units) {
	if cost, err := m.Base.Cost(u); err == nil {
		m.work.Add(int64(cost))
	}
}

// Work returns the value of what a model delivered since the gateway started, in msat at the
// model's base rates. The price floor from energy divides the joules by it. Work returns 0 for
// a model that is not sold.
func (g *Gateway) Work(name string) l402.Msat {
	if m := g.catalog().model(name); m != nil {
		return l402.Msat(m.work.Load())
	}
	return 0
}

// settler waits for the settlements that the store did not confirm in time, and tells the
// observer how each one ends. There are at most as many as requests were open when the store
// stopped answering, because no request starts without the store.
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

// later waits in a goroutine of its own for a settlement that the store did not confirm.
func (s *settler) later(c *call, settlement metering.Settlement, cause error) {
	s.g.observer.Delayed(c.ctx, c.x.requestID, cause)
	began := time.Now()
	s.pending.Go(func() {
		// The hold continues the settlement that was begun, whatever the arguments are.
		entry, err := c.hold.Settle(s.ctx, settlement)
		if err != nil {
			s.g.observer.Lost(c.ctx, c.x.requestID, err)
			return
		}
		c.committed(entry, settlement.Backend, began, true)
	})
}

// wait returns nil when no settlement is pending. If ctx ends before that, wait stops the
// pending settlements and returns the error of ctx.
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
