package gateway

import (
	"sync/atomic"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
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

// noteExcess counts what a backend did beyond the bound of the request, and warns
// of it: it is work that the owner is not paid for. A usage that cannot be is warned
// of as well, because nobody knows what of it was work.
func (c *call) noteExcess(clamped bool) {
	b := c.lease.Backend().Name()
	excess := c.meter.Excess()
	if clamped {
		c.g.metrics.clamped.WithLabelValues(c.o.model.Name).Inc()
	}
	if excess == (format.Overrun{}) {
		if clamped {
			c.g.metrics.overruns.WithLabelValues(b, "usage").Inc()
			c.warnOverrun("a backend reported a usage that its request cannot have; check its engine and what it reports", excess, 0)
		}
		return
	}
	if excess.Prompt > 0 {
		c.learnOverhead(excess.Prompt)
		c.g.metrics.overruns.WithLabelValues(b, "prompt").Inc()
		c.g.metrics.overrun.WithLabelValues(b, "input").Add(float64(excess.Prompt))
	}
	if excess.Completion > 0 {
		c.g.metrics.overruns.WithLabelValues(b, "completion").Inc()
		c.g.metrics.overrun.WithLabelValues(b, "output").Add(float64(excess.Completion))
	}
	worth, err := c.hold.Rates().Cost(pricing.Units{pricing.InputTokens: excess.Prompt, pricing.OutputTokens: excess.Completion})
	if err == nil {
		c.g.metrics.overrunFee.WithLabelValues(b).Add(float64(worth))
		c.g.metrics.unbilled.WithLabelValues(c.o.model.Name).Add(float64(worth))
	}
	c.warnOverrun("a backend delivered more than its request could cost; check its engine and cap_field, and the model's limits", excess, worth)
}

// warnOverrun logs an overrun of the backend, unless one was logged a moment ago.
func (c *call) warnOverrun(message string, excess format.Overrun, worth l402.Msat) {
	if leftOut, due := c.engine.overruns.due(time.Now()); due {
		c.g.log.Warn(message, "backend", c.lease.Backend().Name(), "model", c.o.model.Name, "request_id", c.x.requestID,
			"prompt_tokens", excess.Prompt, "completion_tokens", excess.Completion, "unbilled_msat", int64(worth), "left_out", leftOut)
	}
}

// learnOverhead takes from a prompt that was longer than its bound that the backend's
// template adds more than the model's limits say. Pictures have lengths of their own.
func (c *call) learnOverhead(excess int64) {
	if context := c.o.limits.ContextTokens; c.o.req.Countable() && c.o.bound.Counted == 0 && (context <= 0 || c.o.bound.Input < context) {
		known := c.o.limits.TemplateBase - c.o.model.Limits.TemplateBase
		c.o.model.lessons.of(c.lease.Backend()).overhead.Learn(c.x.voter(), known+excess, c.g.now())
	}
}

// noteUnbilled counts a charge that the hold did not cover.
func (c *call) noteUnbilled(e metering.Entry, backend string) {
	if e.Unbilled > 0 && backend != "" {
		c.g.metrics.overruns.WithLabelValues(backend, "cost").Inc()
		c.g.metrics.overrunFee.WithLabelValues(backend).Add(float64(e.Unbilled))
	}
}
