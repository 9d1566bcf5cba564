package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// The second model of the tests is served by the second engine.
const (
	secondModel    = "second"
	headerFallback = "L402-Allow-Fallback"
)

// fallbackRig sells the first model by GPU time, in slices of 400 ms, from an engine whose
// health is checked every 20 ms. It sells the second model by tokens, from another engine.
func fallbackRig(t *testing.T, first, second *scriptedEngine, more ...func(*setup)) *rig {
	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "test", Sampler: busy{}}) // nobody reads it, so that the clock counts
	r := newRig(t, append([]func(*setup){func(s *setup) {
		s.rates = &gpuRates
		s.backendURLs = []string{first.URL, second.URL}
		s.backend = func(b *gpuBackend) {
			b.Models = map[string]string{testModel: testModel, secondModel: secondModel}
			b.GPUs = []gpu.GPU{{Feed: feed, Device: "GPU-1"}}
			b.HealthPath, b.HealthEvery = "/health", 20*time.Millisecond
		}
		s.pool = func(p *gpuPool) { p.Backends = []string{"gpu0"} }
		s.pools = []gpu.PoolConfig{{Model: secondModel, Backends: []string{"gpu1"}, QueueLimit: 8, QueueTimeout: 5 * time.Second}}
		s.service = func(svc *gatewayService) {
			svc.MinPurchase = 1000
			svc.Models[0].GPUSlice = 400 * time.Millisecond
			other := svc.Models[0]
			other.Name = secondModel
			svc.Models = append(svc.Models, other)
		}
	}}, more...)...)
	epoch := pricing.Fixed(secondModel, pricing.Rates{pricing.InputTokens: 10_000, pricing.OutputTokens: 10_000}, time.Now())
	epoch.ID = 4
	r.board.Set(epoch)
	return r
}

// A request that was charged is over. Its balance ran out while it waited for an answer, and
// the 402 for it could not be made, because the last backend of the model had gone down
// meanwhile. The error says that no backend serves, but the request must not be sold once
// more, with the second model.
func TestNoFallbackAfterACharge(t *testing.T) {
	first, second := newScriptedEngine(t), newScriptedEngine(t)
	r := fallbackRig(t, first, second)
	k := r.mint(testService, newTokenID(), 1000, tomorrow())
	asked := make(chan struct{})
	wait := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		close(asked)
		(*hangs())(w, req)
	})
	first.chat.Store(&wait)
	got := make(chan *answer, 1)
	go func() { got <- r.chat(k, request("max_tokens", "4"), headerFallback, secondModel) }()
	select {
	case <-asked:
	case a := <-got:
		t.Fatalf("not served: %d %s", a.status, a.body)
	}
	first.health.Store(answers(http.StatusInternalServerError, `{}`))
	r.until("the first model is down", func() bool { return !r.fleet.Pool(testModel).Serves() })
	(<-got).wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	if n := second.chats.Load(); n != 0 {
		t.Errorf("the second model was asked %d times", n)
	}
	r.idle(k)
	charges := r.usage(k)
	if len(charges) != 1 || charges[0].Model != testModel || charges[0].Outcome != metering.OutcomeHoldExhausted || charges[0].Charged < 400 {
		t.Errorf("charges: %+v", charges)
	}
	if left := r.balance(k).msat(t, "available_msat"); left < 5 {
		t.Errorf("%d msat are left, which would not have paid for the second model", left)
	}
	if strings.Contains(r.log.String(), "another model is asked") || r.metric(`sluice_fallbacks_total{fallback="second",model="demo"}`) != 0 {
		t.Error("the operator is told of a fallback")
	}
}
