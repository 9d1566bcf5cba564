package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/pricing"
)

// gauge is a GPU whose reading the test sets.
type gauge struct {
	device atomic.Pointer[telemetry.Device] // nil: the reading fails
}

func (g *gauge) Sample(context.Context) (telemetry.Reading, error) {
	d := g.device.Load()
	if d == nil {
		return telemetry.Reading{}, errors.New("no driver")
	}
	return telemetry.Reading{Devices: []telemetry.Device{*d}}, nil
}

// gaugedRig sells GPU time of a backend that makes tokensPerSecond. ref names the backend's GPU.
func gaugedRig(t *testing.T, g *gauge, ref string, tokensPerSecond float64, need bool) (*rig, *telemetry.Feed) {
	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "test", Sampler: g, Every: 20 * time.Millisecond, Hold: time.Second})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		feed.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	r := newRig(t, func(s *setup) {
		s.inference = []inference.Config{{TokensPerSecond: tokensPerSecond, Record: true, AllowFaults: true, Seed: 7}}
		s.rates = &gpuRates
		s.backend = func(b *gpuBackend) { b.GPUs, b.StaleAfter = []gpu.GPU{{Feed: feed, Device: ref}}, time.Second }
		s.pool = func(p *gpuPool) { p.NeedGPUTime = need }
		s.service = func(svc *gateway.Service) {
			svc.Models[0].GPUSlice, svc.Models[0].Base = 10*time.Second, gpuRates
			svc.MinPurchase = 1000
		}
	})
	return r, feed
}

func utilized(uuid string, share float64) *telemetry.Device {
	d := telemetry.NewDevice(uuid)
	if share >= 0 {
		d.Utilization = share
	}
	return &d
}

// TestGPUTimeThatIsNotKnownIsChargedByTheClock: whatever is not known of a GPU, the time of a request
// on the GPU is charged by the clock, and never as 0.
func TestGPUTimeThatIsNotKnownIsChargedByTheClock(t *testing.T) {
	for name, c := range map[string]struct {
		device *telemetry.Device
		ref    string
	}{
		"nothing can be read":             {nil, "GPU-1"},
		"the device does not say":         {utilized("GPU-1", -1), "GPU-1"},
		"another device than that named":  {utilized("GPU-2", 0), "GPU-1"},
		"an index that there is not":      {utilized("GPU-1", 0), "7"},
		"a label that fits nothing there": {utilized("GPU-1", 0), "GPU_I_ID=3"},
	} {
		t.Run(name, func(t *testing.T) {
			g := new(gauge)
			g.device.Store(c.device)
			r, _ := gaugedRig(t, g, c.ref, 100, false)
			k := r.buy(maxPurchase)
			for _, stream := range []string{"true", "false"} {
				began := time.Now()
				a := r.chat(k, request("max_tokens", "50", "stream", stream))
				took := time.Since(began)
				if a.status != http.StatusOK {
					t.Fatalf("%d %s", a.status, a.body)
				}
				used := time.Duration(r.lastCharge(k).Usage[pricing.GPUMicros]) * time.Microsecond
				if used < 400*time.Millisecond || used > took {
					t.Errorf("charged %v of GPU time for a request of %v, want its time", used, took)
				}
			}
			if r.metric(`sluice_gpu_time_fallbacks_total{backend="gpu0"}`) != 2 {
				t.Error("how often the clock stood in is not counted")
			}
			if r.metric(`sluice_gpu_time_known{backend="gpu0",gpu="`+c.ref+`"}`) != 0 || r.metric(`sluice_gpu_time_fallback_seconds_total{backend="gpu0",gpu="`+c.ref+`"}`) < 0.8 {
				t.Error("the metrics do not show what is not known")
			}
			if a := r.ask("GET", "/admin/backends", adminToken); !strings.Contains(string(a.body), `"gpu_time_fallbacks":2`) || !strings.Contains(string(a.body), `"source":"wall"`) {
				t.Errorf("the operator does not see it: %s", a.body)
			}
			if !strings.Contains(r.log.String(), "gpu_source=wall") {
				t.Error("the log does not say where the charge came from")
			}
		})
	}
}

// TestGPUTimeByTheClockIsShared: requests that run at once share the clock's time, as they would share
// the GPU's.
func TestGPUTimeByTheClockIsShared(t *testing.T) {
	r, _ := gaugedRig(t, new(gauge), "GPU-1", 100, false)
	k := r.buy(maxPurchase)
	began := time.Now()
	ended := make(chan struct{}, 4)
	for range 4 {
		go func() {
			r.chat(k, request("max_tokens", "50", "stream", "true"))
			ended <- struct{}{}
		}()
	}
	for range 4 {
		<-ended
	}
	took, sum := time.Since(began), time.Duration(0)
	for _, e := range r.usage(k) {
		sum += time.Duration(e.Usage[pricing.GPUMicros]) * time.Microsecond
	}
	if sum > took || sum < 400*time.Millisecond {
		t.Errorf("4 requests at once, of %v in all, were charged %v", took, sum)
	}
}

func TestGPUTimeThatIsNotKnownMayBeRefused(t *testing.T) {
	t.Parallel()
	g := new(gauge)
	r, feed := gaugedRig(t, g, "GPU-1", 1000, true)
	k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
	r.chat(k, request()).wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	r.stranger().wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	if r.available() {
		t.Error("it is listed as available")
	}
	g.device.Store(utilized("GPU-1", 0.5))
	r.until("the GPU is read", func() bool { return !feed.Latest().At.IsZero() })
	if a := r.chat(k, request()); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	g.device.Store(nil)
	r.until("the reading is stale", func() bool { return r.chat(k, request()).status == http.StatusServiceUnavailable })
}
