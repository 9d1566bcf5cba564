package gateway

import (
	"sync/atomic"
	"time"

	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// overrunEvery is how often one backend's overruns are logged at most. The metrics
// count each of them.
const overrunEvery = time.Minute

// overrunLog bounds the lines about one backend.
type overrunLog struct{ next, left atomic.Int64 }

// due says whether to log now, and how many were left out since the last time.
func (o *overrunLog) due(now time.Time) (leftOut int64, due bool) {
	next := o.next.Load()
	if now.UnixNano() < next || !o.next.CompareAndSwap(next, now.Add(overrunEvery).UnixNano()) {
		o.left.Add(1)
		return 0, false
	}
	return o.left.Swap(0), true
}

// noteExcess tells what a backend did beyond the bound of the request: it is work that
// the owner is not paid for. A usage that cannot be is told as well, because nobody knows
// what of it was work.
func (c *call) noteExcess(clamped bool) {
	excess := c.meter.Excess()
	if excess == (format.Overrun{}) && !clamped {
		return
	}
	if excess.Prompt > 0 {
		c.learnOverhead(excess.Prompt)
	}
	o := observe.Overrun{Backend: c.lease.Backend().Name(), Model: c.o.model.Name, RequestID: c.x.requestID,
		Prompt: excess.Prompt, Completion: excess.Completion, Impossible: clamped}
	if worth, err := c.hold.Rates().Cost(pricing.Units{pricing.InputTokens: excess.Prompt, pricing.OutputTokens: excess.Completion}); err == nil {
		o.Worth = worth
	}
	o.LeftOut, o.Tell = c.engine.overruns.due(time.Now())
	c.g.observer.Overran(c.ctx, o)
}

// learnOverhead takes from a prompt that was longer than its bound that the backend's
// template adds more than the model's limits say. Pictures have lengths of their own.
func (c *call) learnOverhead(excess int64) {
	if context := c.o.limits.ContextTokens; c.o.req.Countable() && c.o.bound.Counted == 0 && (context <= 0 || c.o.bound.Input < context) {
		known := c.o.limits.TemplateBase - c.o.model.Limits.TemplateBase
		c.o.model.lessons.of(c.lease.Backend()).overhead.Learn(c.x.voter(), known+excess, c.g.now())
	}
}
