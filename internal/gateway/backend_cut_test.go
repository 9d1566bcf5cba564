package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

func TestBackendThatDiesMidStream(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"cut:9", "cut-mid:9", "reset:9", "cut:9,no-usage", "stall:9,no-usage", "stall:9", "error-event:9,no-usage"} {
		for _, continuous := range []bool{true, false} {
			r := newRig(t, func(s *setup) {
				s.profile, s.backend = does(false, continuous), func(b *gpuBackend) { b.IdleTimeout = 300 * time.Millisecond }
			})
			k := r.buy(minPurchase)
			a := r.chat(k, request("stream", "true", "max_tokens", "60"), "X-Fault", fault)
			delivered := contentEvents(a.body)
			e, rec := r.lastCharge(k), r.truth()
			if e.Outcome != metering.OutcomeBackendCut {
				t.Errorf("%s: outcome %q", fault, e.Outcome)
			}
			want := cost(rec.PromptTokens, delivered)
			exact := continuous && !strings.Contains(fault, "no-usage")
			if (exact && e.Charged != want) || e.Charged < want/2 || e.Charged > want*2 {
				t.Errorf("%s, continuous %v: charged %d for %d delivered tokens, want %d (%+v)", fault, continuous, e.Charged, delivered, want, e)
			}
			if told, _ := comment(t, a.body); told != e.Charged {
				t.Errorf("%s: told %d, charged %d", fault, told, e.Charged)
			}
			if !strings.Contains(fault, "error") && strings.Contains(string(a.body), "[DONE]") {
				t.Errorf("%s: a cut stream ended as if it were whole", fault)
			}
		}
	}
}

func TestStreamWithoutItsLastMarkerIsComplete(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	a := r.chat(k, request("stream", "true"), "X-Fault", "no-done")
	if e := r.lastCharge(k); e.Outcome != metering.OutcomeComplete || e.Charged != r.trueCost() {
		t.Errorf("entry %+v", e)
	}
	comment(t, a.body)
}

func TestBackendThatDiesInAUnaryAnswerCostsNothing(t *testing.T) {
	for _, fault := range []string{"cut:1", "reset:1", "truncate", "drop"} {
		r := newRig(t)
		k := r.buy(minPurchase)
		r.chat(k, request(), "X-Fault", fault).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
		r.wantSpent(k, 0)
	}
}

func TestBackendErrorsBeforeTheFirstByteCostNothing(t *testing.T) {
	for _, c := range []struct {
		fault  string
		status int
		kind   string
	}{
		{"status:500", http.StatusBadGateway, "backend-unavailable"},
		{"status:502", http.StatusBadGateway, "backend-unavailable"},
		{"status:503", http.StatusServiceUnavailable, "backend-unavailable"},
		{"status:401", http.StatusBadGateway, "backend-unavailable"},
		{"status:402", http.StatusBadGateway, "backend-unavailable"},
		{"redirect", http.StatusBadGateway, "backend-unavailable"},
		{"redirect:http://127.0.0.1:1/", http.StatusBadGateway, "backend-unavailable"},
		{"drop", http.StatusBadGateway, "backend-unavailable"},
		{"stall-headers", http.StatusGatewayTimeout, "backend-unavailable"},
	} {
		for _, stream := range []string{"true", "false"} {
			r := newRig(t, func(s *setup) {
				s.backend = func(b *gpuBackend) { b.FirstByteTimeout = 300 * time.Millisecond }
			})
			k := r.buy(minPurchase)
			r.chat(k, request("stream", stream), "X-Fault", c.fault).wantProblem(t, c.status, c.kind)
			r.wantSpent(k, 0)
			if c.fault == "stall-headers" {
				if !strings.Contains(r.metrics(), `sluice_backend_timeouts_total{model="demo"} 1`) {
					t.Error("the unbilled work was not counted")
				}
				if n := len(r.backend.Requests()); n != 1 {
					t.Errorf("the backend was tried %d times", n)
				}
			}
		}
	}
}

func TestBackendRefusalsArePassedOn(t *testing.T) {
	for _, fault := range []string{"status:400", "status:404", "status:422", "status:429:7"} {
		r := newRig(t)
		k := r.buy(minPurchase)
		a := r.chat(k, request(), "X-Fault", fault)
		if want := fault[7:10]; amountText(l402Msat(a.status)) != want || !strings.Contains(string(a.body), "scripted fault") {
			t.Errorf("%s: status %d\n%s", fault, a.status, a.body)
		}
		if a.header.Get("L402-Cost-Msat") != "0" || amountHeader(t, a.header, "L402-Balance-Msat") != minPurchase || a.header.Get("L402-Request-Id") == "" {
			t.Errorf("%s: headers %v", fault, a.header)
		}
		r.wantSpent(k, 0)
	}
}

func TestCallFeeForRefusals(t *testing.T) {
	rates := testRates
	rates[pricing.Calls] = 700
	r := newRig(t, func(s *setup) {
		s.rates = &rates
		s.service = func(svc *gatewayService) { svc.ChargeCallOn4xx = true }
	})
	k := r.buy(minPurchase)
	if a := r.chat(k, request(), "X-Fault", "status:400"); a.header.Get("L402-Cost-Msat") != "700" {
		t.Errorf("headers %v", a.header)
	}
	r.wantSpent(k, 700)
	r.chat(k, request(), "X-Fault", "status:500")
	r.wantSpent(k, 700)
}

func TestAnotherBackendIsTriedOnlyWhenTheFirstDidNotTakeIt(t *testing.T) {
	refused := httptest.NewServer(http.NotFoundHandler())
	nobody := refused.URL
	refused.Close()
	for name, first := range map[string]http.HandlerFunc{
		"busy":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"too many": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		"absent":   nil,
		"broken":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
	} {
		var asked atomic.Int64
		bad := nobody
		if first != nil {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { asked.Add(1); first(w, req) }))
			t.Cleanup(s.Close)
			bad = s.URL
		}
		good, err := inference.New(inference.Config{Model: "upstream/demo", TokensPerSecond: 5000, Record: true})
		if err != nil {
			t.Fatal(err)
		}
		goodServer := httptest.NewServer(good.Handler())
		t.Cleanup(goodServer.Close)
		r := newRig(t, func(s *setup) { s.backendURLs = []string{bad, goodServer.URL} })
		r.backend = good
		k := r.buy(minPurchase)
		answered, failed := 0, 0
		for range 4 { // idle backends take turns
			switch a := r.chat(k, request()); a.status {
			case http.StatusOK:
				answered++
			case http.StatusBadGateway:
				failed++
			default:
				t.Errorf("%s: status %d", name, a.status)
			}
		}
		if name == "broken" && (failed == 0 || int(asked.Load()) != failed) {
			t.Errorf("broken: %d answers, %d failures, asked %d times", answered, failed, asked.Load())
		}
		if name != "broken" && answered != 4 {
			t.Errorf("%s: %d of 4 answered", name, answered)
		}
		r.idle(k)
		if n := len(r.usage(k)); n != answered {
			t.Errorf("%s: %d charges for %d answers", name, n, answered)
		}
	}
}

func TestUnreachableBackend(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	r := newRig(t, func(c *setup) { c.backendURLs = []string{s.URL} })
	k := r.buy(minPurchase)
	a := r.chat(k, request())
	a.wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r.wantSpent(k, 0)
}

func TestUnknownEncodingCannotBeMetered(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		w.Write([]byte("whatever"))
	}))
	t.Cleanup(s.Close)
	r := newRig(t, func(c *setup) { c.backendURLs = []string{s.URL} })
	k := r.buy(minPurchase)
	r.chat(k, request()).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
	r.wantSpent(k, 0)
}

func TestAnswerOfTheOtherKindIsMeteredByWhatItIs(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Set-Cookie", "tracking=1")
		w.Header().Set("WWW-Authenticate", `L402 macaroon="AAAA", invoice="lnbc1"`)
		w.Header().Set("L402-Cost-Msat", "1")
		w.Write([]byte("{\"object\":\"chat.completion\",\n\"choices\":[{\"index\":0,\"message\":{\"content\":\"fo\\nur\",\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\"}},{\"id\":\"b\"}]},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}"))
	}))
	t.Cleanup(s.Close)
	r := newRig(t, func(c *setup) { c.backendURLs = []string{s.URL} })
	k := r.buy(minPurchase)
	a := r.chat(k, request("stream", "true", "stream_options", `{"include_usage":true}`))
	want := `data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"fo\nur","tool_calls":[{"index":0,"id":"a","function":{"name":"f"}},{"index":1,"id":"b"}]},"finish_reason":"stop"}]}` +
		"\n\n" + `data: {"object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}` + "\n\n: l402 cost_msat=13 balance_msat=49987\ndata: [DONE]\n\n"
	if a.status != http.StatusOK || string(a.body) != want || a.header.Get("Content-Type") != sse ||
		a.header.Get("Set-Cookie") != "" || a.header.Get("Www-Authenticate") != "" {
		t.Errorf("%d %v\n%s", a.status, a.header, a.body)
	}
	r.wantSpent(k, cost(7, 3))
}
