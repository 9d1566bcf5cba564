package inference

import (
	"context"
	"fmt"
	"math"
	"time"

	"sluice.example/sluice/backends/gpu/nvml/stub"
)

// SimulatedGPU is the UUID of the GPU that Config.SimulateGPU simulates.
const SimulatedGPU = "GPU-51111ce0-0000-4000-8000-000000000000"

// gpuEvery is how often the values of the simulated GPU change. The values of a real GPU change
// about as often.
const gpuEvery = 100 * time.Millisecond

// These are the properties of the simulated GPU. It is like a large current GPU, with memory for a
// model of 8 billion parameters and its KV cache.
const (
	gpuMemory, weightMemory = 80 << 30, 15 << 30 // bytes
	tokenMemory             = 128 << 10          // of the KV cache, bytes per token
	idlePower, workPower    = 90.0, 560.0        // watts; workPower is added at full load
	powerLimit              = 700.0
)

// simulator writes the file from which a stand-in for NVIDIA's library (package stub) reads a GPU.
// The file says what the library would report about a GPU that does this server's work.
type simulator struct {
	server *Server
	path   string
	power  float64 // watts since at
	joules float64 // energy used until at
	at     time.Time
}

// simulateGPU writes the file until the caller calls stop. It does nothing when Config.SimulateGPU
// is "".
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

// run updates the file until ctx ends. When a write fails, the file keeps its old values until a
// later write succeeds.
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

// state returns the GPU's values with running sequences and with cached tokens in its cache.
//
// Utilization is the share of time in which any kernel ran. With four sequences there is hardly any
// time without a kernel, and with a hundred there is none. The share of multiprocessors that have
// work still grows with the number of sequences, and the power grows with that share.
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
