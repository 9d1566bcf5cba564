package gateway

import (
	"context"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

const (
	// gpuCheck is how often the gateway looks at a request's GPU time. The hold must last until
	// the look after the next one, which it does because slices are much longer.
	gpuCheck = 250 * time.Millisecond
)

// watchGPU keeps the hold larger than the request's GPU time until stop is called. It cuts the
// call when the balance does not cover more GPU time, because answers are not given away.
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

// extendGPU extends the hold so that it covers half a slice of GPU time beyond what was used. It
// returns false if the balance does not allow that and the held GPU time is used up.
func (c *call) extendGPU(ctx context.Context, rates pricing.Rates) bool {
	slice, used := c.o.model.gpuSlice(rates), c.gpuMicros()
	c.gpuUsed.Store(used)
	if !c.o.req.Stream() { // otherwise a sweep would not know what to charge
		c.hold.Progress(pricing.Units{pricing.GPUMicros: used}, metering.SourceRunning)
	}
	if used <= c.gpuHeld-slice/2 {
		return true
	}
	units := c.o.bound.Units()
	units[pricing.GPUMicros] = used + slice
	total, err := rates.Bound(units)
	if err != nil || c.hold.Extend(ctx, max(total, c.hold.Amount())) != nil {
		return used < c.gpuHeld // the GPU time that is held may be used up
	}
	c.gpuHeld = used + slice
	return true
}
