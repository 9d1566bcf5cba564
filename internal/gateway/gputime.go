package gateway

import (
	"context"
	"errors"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// GPU time has no bound beforehand. A request holds a slice of it and asks for
// the next one when half of a slice is left.
const (
	defaultGPUSlice = 10 * time.Second
	// gpuCheck is how often a request's GPU time is looked at. The hold has to
	// last until the look after the next: slices are much longer.
	gpuCheck = 250 * time.Millisecond
)

// errHoldExhausted cancels a call whose next slice the balance does not cover.
var errHoldExhausted = errors.New("the balance does not cover more GPU time")

// gpuSlice is what a hold has of GPU time, in microseconds, where that costs.
func (m *model) gpuSlice(r pricing.Rates) int64 {
	switch {
	case r[pricing.GPUMicros] == 0:
		return 0
	case m.GPUSlice > 0:
		return m.GPUSlice.Microseconds()
	}
	return defaultGPUSlice.Microseconds()
}

// gpuUse is the request's share of the GPUs' busy time so far. What passed while
// nothing was known of it counts by the clock: it is not free.
func (c *call) gpuUse() gpu.GPUUse {
	if c.lease == nil || c.hold.Rates()[pricing.GPUMicros] == 0 {
		return gpu.GPUUse{}
	}
	return c.lease.GPUUse(time.Now())
}

// gpuMicros is gpuUse in microseconds.
func (c *call) gpuMicros() int64 { return c.gpuUse().Total().Microseconds() }

// gpuSource says where a charge's GPU time came from.
func gpuSource(u gpu.GPUUse) string {
	switch {
	case u.Fallback == 0:
		return "measured"
	case u.Measured == 0:
		return "wall"
	}
	return "measured and wall"
}

// watchGPU keeps the hold ahead of the request's GPU time until it ends, and
// cuts it where the balance does not: an answer is not given away.
func (c *call) watchGPU() (stop func()) {
	rates := c.hold.Rates()
	if rates[pricing.GPUMicros] == 0 {
		return func() {}
	}
	c.gpuHeld = c.o.model.gpuSlice(rates)
	ctx, cancel := context.WithCancel(c.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(gpuCheck)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if !c.extendGPU(ctx, rates) && ctx.Err() == nil {
				c.cancel(errHoldExhausted)
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// extendGPU makes sure of half a slice beyond what was used.
func (c *call) extendGPU(ctx context.Context, rates pricing.Rates) bool {
	slice, used := c.o.model.gpuSlice(rates), c.gpuMicros()
	c.gpuUsed.Store(used)
	if !c.o.req.Stream() { // nothing else tells a sweep what to charge
		c.hold.Progress(pricing.Units{pricing.GPUMicros: used}, metering.SourceRunning)
	}
	if used <= c.gpuHeld-slice/2 {
		return true
	}
	total, err := rates.Bound(pricing.Units{pricing.InputTokens: c.o.bound.Input, pricing.OutputTokens: c.o.bound.Output, pricing.Calls: 1, pricing.GPUMicros: used + slice})
	if err != nil || c.hold.Extend(ctx, max(total, c.hold.Amount())) != nil {
		return used < c.gpuHeld // what is held may be used up
	}
	c.gpuHeld = used + slice
	return true
}

// exhausted says whether the call was cut because its balance ran out.
func (c *call) exhausted() bool { return context.Cause(c.ctx) == errHoldExhausted }

// cutShort ends a call before anything of its answer was sent: what the backend
// did costs as much as if the client had hung up.
func (c *call) cutShort() error {
	entry, settled := c.chargeAs(format.UnaryClientGone, metering.OutcomeHoldExhausted)
	of := offer{service: c.o.model.service, kind: typeInsufficientBalance, order: c.o, required: c.o.required,
		detail: "the balance did not last for the GPU time of the answer, which was cut and charged; pay the invoice, then repeat the request with the new credential"}
	if settled {
		of.balance = &entry.Available
	}
	if !c.x.token.Attenuated {
		of.account = &c.x.token.ID
	}
	return c.g.challenge(c.x, of)
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
