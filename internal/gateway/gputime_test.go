package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// busy is a GPU that always works at half of its power.
type busy struct{}

func (busy) Sample(context.Context) (telemetry.Reading, error) {
	d := telemetry.NewDevice("GPU-1")
	d.Utilization = 0.5
	return telemetry.Reading{Devices: []telemetry.Device{d}}, nil
}

// gpuRates are 1 msat per millisecond of GPU time, and 1 msat per prompt token.
var gpuRates = pricing.Rates{pricing.InputTokens: 1_000_000, pricing.GPUMicros: 1000}

// gpuRig sells GPU time of a backend that makes tokensPerSecond.
func gpuRig(t *testing.T, slice time.Duration, tokensPerSecond float64) *rig {
	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "test", Sampler: busy{}, Every: 20 * time.Millisecond})
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
	for feed.Latest().At.IsZero() {
		time.Sleep(time.Millisecond)
	}
	return newRig(t, func(s *setup) {
		s.inference = []inference.Config{{TokensPerSecond: tokensPerSecond, Record: true, AllowFaults: true, Seed: 7}}
		s.rates = &gpuRates
		s.profile = does(false, true)
		s.backend = func(b *gpuBackend) { b.GPUs = []gpu.GPU{{Feed: feed, Device: "GPU-1"}} }
		s.service = func(svc *gateway.Service) {
			svc.Models[0].GPUSlice, svc.Models[0].Base = slice, gpuRates
			svc.MinPurchase = 1000
		}
	})
}

// wantGPUTime checks that a request was charged half of the time that it ran, within what scheduling
// may add.
func (r *rig) wantGPUTime(e metering.Entry, tokens int) {
	r.t.Helper()
	least := time.Duration(tokens) * time.Second / 200 / 2 * 8 / 10
	got := time.Duration(e.Usage[pricing.GPUMicros]) * time.Microsecond
	if got < least || got > least*4+time.Second {
		r.t.Errorf("%v of GPU time, want about %v", got, least*10/8)
	}
	if want, err := gpuRates.Cost(e.Usage); err != nil || want != e.Charged || e.Unbilled != 0 {
		r.t.Errorf("charged %v and not %v, want %v", e.Charged, e.Unbilled, want)
	}
}

func TestGPUTimeIsCharged(t *testing.T) {
	r := gpuRig(t, 10*time.Second, 200)
	k := r.buy(maxPurchase)
	if a := r.chat(k, request("max_tokens", "100")); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	r.wantGPUTime(r.lastCharge(k), 100)
	if a := r.chat(k, request("max_tokens", "100", "stream", "true")); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	r.wantGPUTime(r.lastCharge(k), 100)
	if w := r.gw.Work(testModel); w < 400 {
		t.Errorf("work of %v", w)
	}
}

// TestGPUTimeIsHeldBySlices: a request holds one slice at a time, so that it needs little more balance
// than it uses.
func TestGPUTimeIsHeldBySlices(t *testing.T) {
	r := gpuRig(t, time.Second, 200)
	k := r.buy(maxPurchase)
	began := time.Now()
	if a := r.chat(k, request("max_tokens", "256", "stream", "true")); !strings.Contains(string(a.body), "[DONE]") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	e := r.lastCharge(k)
	if e.Outcome != metering.OutcomeComplete || time.Since(began) < time.Second {
		t.Errorf("%+v", e)
	}
	r.wantGPUTime(e, 256)
}

// TestGPUTimeEndsWithTheBalance: if the balance does not cover the next slice, the answer is cut, and
// the GPU time that was used is charged.
func TestGPUTimeEndsWithTheBalance(t *testing.T) {
	for name, stream := range map[string]string{"stream": "true", "unary": "false"} {
		t.Run(name, func(t *testing.T) {
			r := gpuRig(t, 400*time.Millisecond, 60)
			k := r.buy(1000) // enough for two seconds
			a := r.chat(k, request("max_tokens", "256", "stream", stream, "messages", `[{"role":"user","content":"Hi"}]`))
			e := r.lastCharge(k)
			if e.Outcome != metering.OutcomeHoldExhausted || e.Charged == 0 || e.Charged > 1000 || e.Unbilled > 300 {
				t.Errorf("%+v", e)
			}
			if stream == "true" && (a.status != http.StatusOK || strings.Contains(string(a.body), "[DONE]") || !strings.Contains(string(a.body), "outcome=hold_exhausted")) {
				t.Errorf("%d %s", a.status, a.body)
			}
			if stream != "true" {
				a.wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
			}
		})
	}
}
