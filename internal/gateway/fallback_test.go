package gateway_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
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
	epoch := pricing.Fixed(secondModel, pricing.Rates{pricing.InputTokens: 100_000, pricing.OutputTokens: 100_000}, time.Now())
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
	if left := r.balance(k).msat(t, "available_msat"); left < 15 {
		t.Errorf("%d msat are left, which would not have paid for the second model", left)
	}
	if strings.Contains(r.log.String(), "another model is asked") || r.metric(`sluice_fallbacks_total{fallback="second",model="demo"}`) != 0 {
		t.Error("the operator is told of a fallback")
	}
}

// The operator is told of a fallback once the money for the second model is held, and not
// before: a caller who cannot pay for it asks no model.
func TestFallbackIsToldOnceItIsPaidFor(t *testing.T) {
	first, second := newScriptedEngine(t), newScriptedEngine(t)
	first.chat.Store(answers(http.StatusServiceUnavailable, `{"error":{"message":"loading"}}`))
	r := fallbackRig(t, first, second)
	told := func() (logged int, counted float64) {
		return strings.Count(r.log.String(), "another model is asked"), r.metric(`sluice_fallbacks_total{fallback="second",model="demo"}`)
	}
	want := func(what string, n int) {
		t.Helper()
		if logged, counted := told(); logged != n || counted != float64(n) {
			t.Errorf("%s: %d fallbacks in the log and %v in the metric, want %d", what, logged, counted, n)
		}
	}
	rich := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
	if a := r.chat(rich, request(), headerFallback, secondModel); a.status != http.StatusOK || a.header.Get("L402-Model") != secondModel {
		t.Fatalf("%d %s", a.status, a.body)
	}
	want("the first model takes nothing", 1)
	second.chat.Store(answers(http.StatusServiceUnavailable, `{}`))
	r.chat(rich, request(), headerFallback, secondModel).wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	want("neither takes it", 2)
	first.health.Store(answers(http.StatusInternalServerError, `{}`))
	r.until("the first model is down", func() bool { return !r.fleet.Pool(testModel).Serves() })
	second.chat.Store(answers(http.StatusOK, served))
	r.until("the second model serves", func() bool { return r.fleet.Pool(secondModel).Serves() })
	poor := r.mint(testService, newTokenID(), 1, tomorrow())
	r.chat(poor, request(), headerFallback, secondModel).wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	want("the balance does not cover the second one", 2)
	if a := r.chat(rich, request(), headerFallback, secondModel); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	want("the first model is down", 3)
	second.health.Store(answers(http.StatusInternalServerError, `{}`))
	r.until("the second model is down", func() bool { return !r.fleet.Pool(secondModel).Serves() })
	r.chat(rich, request(), headerFallback, secondModel).wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	want("both are down", 3)
}

// countedChat is the API of chats, and counts how often a body is taken apart.
type countedChat struct {
	format.Format
	parsed *atomic.Int64
}

func (c countedChat) Parse(path string, body []byte, policy func(string) *format.Policy) (format.Request, error) {
	c.parsed.Add(1)
	return c.Format.Parse(path, body, policy)
}

// The body is taken apart once for both models, unless their owner has set different rules
// for what requests may hold.
func TestFallbackReadsTheBodyOnce(t *testing.T) {
	for name, c := range map[string]struct {
		policy format.Policy
		parsed int64
		heat   string // the temperature that the second engine gets
	}{
		"the same rules":  {format.Policy{}, 1, `0.7`},
		"other rules":     {format.Policy{Set: []format.Field{format.NewField("temperature", []byte("0"))}}, 2, `0`},
		"other removals":  {format.Policy{Remove: []string{"temperature"}}, 2, ``},
		"others may pass": {format.Policy{AllowFields: []string{"mine"}}, 2, `0.7`},
		"other hosts":     {format.Policy{MediaHosts: []string{"cdn.example.com"}}, 2, `0.7`},
	} {
		first, second := newScriptedEngine(t), newScriptedEngine(t)
		first.chat.Store(answers(http.StatusServiceUnavailable, `{}`))
		var temperature json.RawMessage
		read := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			var body struct {
				Model       string
				Temperature json.RawMessage
			}
			if err := json.NewDecoder(req.Body).Decode(&body); err != nil || body.Model != secondModel {
				t.Errorf("%s: the second engine gets %+v, %v", name, body, err)
			}
			temperature = body.Temperature
			(*answers(http.StatusOK, served))(w, req)
		})
		second.chat.Store(&read)
		parsed := new(atomic.Int64)
		r := fallbackRig(t, first, second, func(s *setup) {
			sells := s.service
			s.service = func(svc *gatewayService) {
				sells(svc)
				svc.Models[1].Policy = c.policy
			}
			s.gateway = func(cfg *gateway.Config) { cfg.APIs = []format.Format{countedChat{openai.Chat, parsed}} }
		})
		k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
		if a := r.chat(k, request(), headerFallback, secondModel); a.status != http.StatusOK || a.header.Get("L402-Model") != secondModel {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if parsed.Load() != c.parsed || string(temperature) != c.heat {
			t.Errorf("%s: the body was taken apart %d times, and the second engine got the temperature %s", name, parsed.Load(), temperature)
		}
	}
}
