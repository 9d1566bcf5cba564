package inference

import (
	"context"
	"fmt"
	"math"
	"time"

	"sluice.example/sluice/backends/gpu/nvml/stub"
)

// SimulatedGPU is the UUID of the GPU that Config.SimulateGPU makes up.
const SimulatedGPU = "GPU-51111ce0-0000-4000-8000-000000000000"

// gpuEvery is how often the simulated GPU's values change, about as often as
// those of a real one.
const gpuEvery = 100 * time.Millisecond

// The simulated GPU: a big one of today, with room for a model of 8 billion
// parameters and its KV cache.
const (
	gpuMemory, weightMemory = 80 << 30, 15 << 30 // bytes
	tokenMemory             = 128 << 10          // of the KV cache, bytes per token
	idlePower, workPower    = 90.0, 560.0        // watts; the second at full load, on top
	powerLimit              = 700.0
)

// simulator keeps the file from which a stand-in for NVIDIA's library (package
// stub) reads a GPU: what such a library would say of one that did this
// server's work.
type simulator struct {
	server *Server
	path   string
	power  float64 // watts, since at
	joules float64 // until at
	at     time.Time
}

// simulateGPU keeps the file, if there is to be one, until it is stopped.
func (s *Server) simulateGPU(ctx context.Context) (stop func(), err error) {
	if s.cfg.SimulateGPU == "" {
		return func() {}, nil
	}
	g := &simulator{server: s, path: s.cfg.SimulateGPU, power: idlePower, at: s.started}
	if err := g.write(time.Now()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}, nil
}

// run keeps the file up to date until ctx ends. A write that fails leaves the
// values of the one before; the next one may go well.
func (g *simulator) run(ctx context.Context) {
	tick := time.NewTicker(gpuEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			_ = g.write(now)
		}
	}
}

func (g *simulator) write(now time.Time) error {
	running, _ := g.server.slots.load()
	if err := g.state(now, running, g.server.count.cachedTokens.Load()).Write(g.path); err != nil {
		return fmt.Errorf("simulate a GPU: %w", err)
	}
	return nil
}

// state is the GPU with that many sequences running and tokens in its cache.
//
// Utilization is the share of time in which any kernel ran: four sequences leave
// hardly a gap between them, a hundred none. How many of the multiprocessors have
// work goes on growing with the batch, and power follows that.
func (g *simulator) state(now time.Time, running int, cached int64) stub.State {
	g.joules += g.power * max(0, now.Sub(g.at).Seconds())
	g.at = now
	utilization := 1 - math.Exp(-float64(running)/1.5)
	sm := 1 - math.Exp(-2*float64(running)/float64(g.server.cfg.Slots))
	g.power = idlePower + workPower*sm
	return stub.State{GPUs: []stub.GPU{{Device: stub.Device{
		UUID: SimulatedGPU, Name: "Simulated GPU",
		Values: stub.Values{
			"utilization": math.Round(100 * utilization), "memory_utilization": math.Round(60 * sm), "sm": 100 * sm,
			"memory_total": int64(gpuMemory), "memory_used": min(weightMemory+cached*tokenMemory, gpuMemory),
			"power": int64(1000 * g.power), "power_limit": int64(1000 * powerLimit), "energy": int64(1000 * g.joules),
			"temperature": math.Round(35 + 40*sm),
		},
	}}}}
}
