package gateway

import (
	"sync/atomic"
	"time"

	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// overrunEvery is the shortest time between two log lines about overruns of one backend. The
// metrics count every overrun.
const overrunEvery = time.Minute

// overrunLog bounds the log lines about one backend's overruns.
type overrunLog struct{ next, left atomic.Int64 }

// due reports whether to log an overrun now. leftOut is how many overruns were not logged since
// the last line.
func (o *overrunLog) due(now time.Time) (leftOut int64, due bool) {
	next := o.next.Load()
	if now.UnixNano() < next || !o.next.CompareAndSwap(next, now.Add(overrunEvery).UnixNano()) {
		o.left.Add(1)
		return 0, false
	}
	return o.left.Swap(0), true
}

// noteExcess tells the observer what a backend did beyond the bound of the request, because the
// owner is not paid for that work. clamped says that the backend reported an impossible usage.
// That is told too, because nobody knows how much of such a usage was work.
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

// learnOverhead learns from a prompt that was longer than its bound: the backend's template adds
// more tokens than the model's limits say. Prompts with pictures teach nothing, because the
// lengths of pictures differ.
func (c *call) learnOverhead(excess int64) {
	if context := c.o.limits.ContextTokens; c.o.req.Countable() && c.o.bound.Counted == 0 && (context <= 0 || c.o.bound.Input < context) {
		known := c.o.limits.TemplateBase - c.o.model.Limits.TemplateBase
		c.o.model.lessons.of(c.lease.Backend()).overhead.Learn(c.x.voter(), known+excess, c.g.now())
	}
}
