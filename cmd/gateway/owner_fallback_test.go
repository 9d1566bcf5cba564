package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402"
)

// fallbackConfig has two models: demo, and large, which costs ten times as much.
const fallbackConfig = ownerConfig + `        queue: {limit: 0, timeout: 200ms}
      - name: large
        aliases: [big]
        backends: [two]
        context_tokens: *context
        max_completion_tokens: *completion
        template_tokens: *template
        prices: {input: 10 sat/ktok, output: 20 sat/ktok}
        pricing: *static
`

// Another model serves a request only if the client allows it. The client then pays the price of
// that model and is told which model served.
func TestFallback(t *testing.T) {
	busy := saying(http.StatusServiceUnavailable, `{"error":{"message":"loading"}}`)
	one := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: busy})
	two := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: chats("inner-large")})
	g := openSeller(t, t.TempDir(), fallbackConfig+`
backends:
  - {name: one, url: "`+one.URL+`", slots: 1, engine: vllm, health: {path: ""}}
  - {name: two, url: "`+two.URL+`", slots: 4, engine: vllm, health: {path: ""}}
`, os.Getenv)
	k := g.credit(1_000_000)
	const allow = "L402-Allow-Fallback"
	if a := g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k); a.status != http.StatusServiceUnavailable || len(two.at(chatPath)) != 0 {
		t.Errorf("without the header: %d %s", a.status, a.body)
	}
	// The hold is that of the more expensive model.
	if own, either := g.bound(chatOf("demo", ""), "Authorization", k), g.bound(chatOf("demo", ""), "Authorization", k, allow, "large"); either != 10*own {
		t.Errorf("%d msat are held for either, and %d for one", either, own)
	}
	for _, more := range []string{"", `,"stream":true`} {
		before := g.spent(k)
		a := g.ask("POST", chatPath, chatOf("demo", more), "Authorization", k, allow, "big", "Idempotency-Key", "once"+more)
		if a.status != http.StatusOK || a.header.Get("L402-Model") != "big" || !strings.Contains(a.body, `"model":"big"`) {
			t.Errorf("%d %v %s", a.status, a.header, a.body)
		}
		if n := g.spent(k) - before; n != 10*(7+2*3) {
			t.Errorf("%d msat were charged", n)
		}
	}
	if got := two.last(t, chatPath); got.body["model"] != "large" {
		t.Errorf("the other backend is asked for %v", got.body["model"])
	}
	w := httptest.NewRecorder()
	g.s.gateway.AdminHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if want := `sluice_fallbacks_total{fallback="large",model="demo"} 2`; !strings.Contains(w.Body.String(), want) {
		t.Errorf("the metrics lack %s", want)
	}
	usage := g.ask("GET", "/l402/usage", "", "Authorization", k).body
	if strings.Count(usage, `"model":"large"`) != 2 {
		t.Errorf("charges: %s", usage)
	}
	// The requested model serves again.
	one.answer("POST "+chatPath, chats("inner"))
	before := g.spent(k)
	var a said
	for deadline := time.Now().Add(20 * time.Second); a.header.Get("L402-Model") != "demo" && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		before = g.spent(k)
		a = g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k, allow, "large")
	}
	if n := g.spent(k) - before; a.status != http.StatusOK || a.header.Get("L402-Model") != "demo" || n != 7+2*3 {
		t.Errorf("%d %v, %d msat", a.status, a.header, n)
	}
}

// The header names one model that the gateway sells and the token allows.
func TestFallbackIsChecked(t *testing.T) {
	one := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: chats("m")})
	g := openSeller(t, t.TempDir(), fallbackConfig+`
backends:
  - {name: one, url: "`+one.URL+`", slots: 4, engine: vllm, health: {path: ""}}
  - {name: two, url: "`+one.URL+`", slots: 4, engine: vllm, health: {path: ""}}
`, os.Getenv)
	k := g.credit(100_000)
	for value, status := range map[string]int{"nothing": http.StatusBadRequest, "": http.StatusBadRequest, "demo, large": http.StatusBadRequest,
		strings.Repeat("x", 200): http.StatusBadRequest, "demo": http.StatusOK, "large": http.StatusOK} {
		if a := g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k, "L402-Allow-Fallback", value); a.status != status ||
			status == http.StatusBadRequest && !strings.Contains(a.body, `"param":"L402-Allow-Fallback"`) {
			t.Errorf("%q: %d %s", value, a.status, a.body)
		}
	}
	part := narrowed(t, k, "inference_models=demo")
	if a := g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", part, "L402-Allow-Fallback", "large"); a.status != http.StatusForbidden {
		t.Errorf("a model that the token forbids: %d %s", a.status, a.body)
	}
}

// A full queue is a reason for a fallback too. Nothing was held for the first model in that case.
func TestFallbackFromAFullQueue(t *testing.T) {
	slow, done := make(chan struct{}), make(chan struct{})
	one := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: func(w http.ResponseWriter, r *http.Request) {
		close(slow)
		<-done
		chats("m")(w, r)
	}})
	two := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: chats("m")})
	g := openSeller(t, t.TempDir(), fallbackConfig+`
backends:
  - {name: one, url: "`+one.URL+`", slots: 1, engine: vllm, health: {path: ""}}
  - {name: two, url: "`+two.URL+`", slots: 4, engine: vllm, health: {path: ""}}
`, os.Getenv)
	first, k := make(chan said), g.credit(10_000)
	go func(k string) { first <- g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k) }(k)
	<-slow
	k = narrowed(t, g.credit(10_000), "inference_rpm=1")
	if a := g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k); a.status != http.StatusTooManyRequests || !strings.Contains(a.body, "queue-full") {
		t.Errorf("without the header: %d %s", a.status, a.body)
	}
	if a := g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k, "L402-Allow-Fallback", "large"); a.status != http.StatusOK || a.header.Get("L402-Model") != "large" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if a := g.ask("POST", chatPath, chatOf("large", ""), "Authorization", k); a.status != http.StatusTooManyRequests || !strings.Contains(a.body, "rate-limited") {
		t.Errorf("it counted once against the limit of the token: %d %s", a.status, a.body)
	}
	close(done)
	if a := <-first; a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// The gateway does not ask a model without a live backend, or a model whose backends ask for more
// than the model costs.
func TestFallbackFromAModelThatIsNotSold(t *testing.T) {
	one := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: chats("m")})
	two := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: chats("m")})
	for name, more := range map[string]string{"it is down": "health: {path: /up, every: 100ms}", "it asks for more": `health: {path: ""}, ask: {input: 5 sat/ktok, output: 5 sat/ktok}`} {
		g := openSeller(t, t.TempDir(), fallbackConfig+`
backends:
  - {name: one, url: "`+one.URL+`", slots: 1, engine: vllm, `+more+`}
  - {name: two, url: "`+two.URL+`", slots: 4, engine: vllm, health: {path: ""}}
`, os.Getenv)
		k := g.credit(10_000)
		for deadline := time.Now().Add(10 * time.Second); name == "it is down" && g.s.fleet.Status()[0].Healthy; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it is taken for healthy")
			}
		}
		if a := g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k); a.status != http.StatusServiceUnavailable {
			t.Errorf("%s, without the header: %d %s", name, a.status, a.body)
		}
		a := g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k, "L402-Allow-Fallback", "large")
		if a.status != http.StatusOK || a.header.Get("L402-Model") != "large" || len(one.at(chatPath)) != 0 {
			t.Errorf("%s: %d %v %s, asked %d times", name, a.status, a.header, a.body, len(one.at(chatPath)))
		}
	}
}

// A request that another model serves counts only once against the limits of its token.
func TestFallbackCountsOnce(t *testing.T) {
	one := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: saying(http.StatusServiceUnavailable, `{}`)})
	two := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: chats("m")})
	g := openSeller(t, t.TempDir(), fallbackConfig+`
backends:
  - {name: one, url: "`+one.URL+`", slots: 1, engine: vllm, health: {path: ""}}
  - {name: two, url: "`+two.URL+`", slots: 4, engine: vllm, health: {path: ""}}
`, os.Getenv)
	k := narrowed(t, g.credit(10_000), "inference_rpm=1")
	if a := g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k, "L402-Allow-Fallback", "large"); a.status != http.StatusOK || len(one.at(chatPath)) != 1 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.ask("POST", chatPath, chatOf("large", ""), "Authorization", k); a.status != http.StatusTooManyRequests {
		t.Errorf("the next one: %d %s", a.status, a.body)
	}
}

// A client that allows a shorter answer gets a shorter answer from either model. When the balance
// does not cover the other model, only the requested model may serve.
func TestFallbackAndTruncation(t *testing.T) {
	one := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: chats("m")})
	two := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: chats("m")})
	g := openSeller(t, t.TempDir(), fallbackConfig+`
backends:
  - {name: one, url: "`+one.URL+`", slots: 4, engine: ollama, health: {path: ""}}
  - {name: two, url: "`+two.URL+`", slots: 4, engine: ollama, health: {path: ""}}
`, os.Getenv)
	body := strings.Replace(chatOf("demo", ""), `"max_tokens":16`, `"max_tokens":64`, 1)
	own := l402.Msat(g.bound(body, "Authorization", g.credit(10_000)))
	ask := func(credit l402.Msat) said {
		return g.ask("POST", chatPath, body, "Authorization", g.credit(credit), "L402-Allow-Fallback", "large", "L402-Allow-Truncate", "1")
	}
	if a := ask(own + 10); a.status != http.StatusOK || one.last(t, chatPath).body["max_tokens"] != 64.0 {
		t.Errorf("the balance covers one model: %d %s", a.status, a.body)
	}
	one.answer("POST "+chatPath, saying(http.StatusServiceUnavailable, `{}`))
	if a := ask(own + 10); a.status != http.StatusServiceUnavailable || len(two.at(chatPath)) != 0 {
		t.Errorf("the balance does not cover the other one: %d %s", a.status, a.body)
	}
	a := ask(7 * own)
	if most, _ := two.last(t, chatPath).body["max_tokens"].(float64); a.status != http.StatusOK || most < 16 || most >= 64 {
		t.Errorf("the other one is shortened to %v: %d %s", most, a.status, a.body)
	}
}
