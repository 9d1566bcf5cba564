package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering/format"
)

// longPrompt returns a request whose bound by bytes is far above its tokens.
func longPrompt(bytes int) string {
	return request("messages", `[{"role":"user","content":"`+repeat("the river runs ", bytes/15)+`"}]`, "max_tokens", "8")
}

// TestTokenizerThatCountsNothingIsNotBelieved: a tokenizer's count of 0 for a text is not used,
// neither for a hold nor for a charge.
func TestTokenizerThatCountsNothingIsNotBelieved(t *testing.T) {
	yes := true
	for _, lie := range []string{`{"tokens":[]}`, `{"count":0,"tokens":[]}`, `{"tokens":[1]}`, `{"input_tokens":0}`} {
		e := &countingEngine{other: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, lie) }}
		r := withEngine(t, e, format.Setting{Engine: format.EngineGeneric, Tokenize: &yes})
		body := longPrompt(6000)
		required := r.do("POST", chatPath, body, nil).msat(t, "required_msat")
		k := r.mint(testService, l402.NewTokenID(), required-1, tomorrow())
		r.chat(k, body).wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
		if len(e.asked("/tokenize")) != 1 || len(e.asked(chatPath)) != 0 {
			t.Errorf("%s: asked %d times, served %d", lie, len(e.asked("/tokenize")), len(e.asked(chatPath)))
		}
		r.wantSpent(k, 0)
	}
}

// TestTokenizerOfEachEngineTightensTheBound: each engine is asked in its own way, and a path that
// it lacks is asked only once.
func TestTokenizerOfEachEngineTightensTheBound(t *testing.T) {
	answers := map[string]string{
		"/v1/chat/completions/input_tokens": `{"object":"response.input_tokens","input_tokens":1300}`,
		"/apply-template":                   `{"prompt":"<|user|>the river"}`,
		"/tokenize":                         `{"count":1300}`,
		"/_internal/tokenize":               `{"count":1300}`,
		"/chat_tokenize":                    `{"tokenize_response":[` + strings.TrimSuffix(strings.Repeat(`{},`, 1300), ",") + `]}`,
	}
	for _, c := range []struct {
		engine format.Engine
		paths  string // the paths that are asked over two requests
		lacks  string
	}{
		{format.EngineVLLM, "/tokenize 2", ""},
		{format.EngineSGLang, "/tokenize 2", ""},
		{format.EngineTRTLLM, "/_internal/tokenize 2", ""},
		{format.EngineTGI, "/chat_tokenize 2", ""},
		{format.EngineLlamaCpp, "/v1/chat/completions/input_tokens 2", ""},
		{format.EngineLlamaCpp, "/apply-template 2 /tokenize 2 /v1/chat/completions/input_tokens 1", "/v1/chat/completions/input_tokens"},
		{format.EngineVLLM, "/tokenize 1", "/tokenize"},
		{format.EngineOllama, "", ""},
	} {
		e := &countingEngine{other: func(w http.ResponseWriter, r *http.Request) {
			if answer := answers[r.URL.Path]; answer != "" && r.URL.Path != c.lacks {
				io.WriteString(w, answer)
				return
			}
			http.NotFound(w, r)
		}}
		r := withEngine(t, e, format.Setting{Engine: c.engine})
		body := longPrompt(6000)
		required := r.do("POST", chatPath, body, nil).msat(t, "required_msat")
		want := http.StatusOK
		if c.paths == "" || c.lacks == "/tokenize" {
			want = http.StatusPaymentRequired
		}
		for range 2 {
			k := r.mint(testService, l402.NewTokenID(), required/2, tomorrow())
			if a := r.chat(k, body); a.status != want {
				t.Errorf("%s: %d\n%s", c.engine, a.status, a.body)
			}
		}
		var paths []string
		for _, path := range []string{"/_internal/tokenize", "/apply-template", "/chat_tokenize", "/tokenize", "/v1/chat/completions/input_tokens"} {
			if n := len(e.asked(path)); n > 0 {
				paths = append(paths, fmt.Sprint(path, " ", n))
			}
		}
		if got := strings.Join(paths, " "); got != c.paths {
			t.Errorf("%s was asked %q, want %q", c.engine, got, c.paths)
		}
	}
}

// TestPoorAccountsMakeNoBackendWork: an account that cannot pay an eighth of the bound causes no
// work of the backend.
func TestPoorAccountsMakeNoBackendWork(t *testing.T) {
	e := &countingEngine{other: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"count":1300}`) }}
	r := withEngine(t, e, format.Setting{Engine: format.EngineVLLM})
	body := longPrompt(6000)
	required := r.do("POST", chatPath, body, nil).msat(t, "required_msat")
	poor := r.mint(testService, l402.NewTokenID(), required/8-1, tomorrow())
	for range 20 {
		r.chat(poor, body).wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
		r.chat(poor, body, "L402-Max-Cost-Msat", amountText(required/2)).wantProblem(t, http.StatusPreconditionFailed, "cost-above-maximum")
	}
	if n := len(e.asked("/tokenize")); n != 0 {
		t.Errorf("the backend counted %d prompts for nothing", n)
	}
	r.wantSpent(poor, 0)

	enough := r.mint(testService, l402.NewTokenID(), required/2, tomorrow())
	a := r.chat(enough, body, "L402-Max-Cost-Msat", amountText(required/2))
	if a.status != http.StatusOK || len(e.asked("/tokenize")) != 1 {
		t.Errorf("an account that can: %d, counted %d times\n%s", a.status, len(e.asked("/tokenize")), a.body)
	}
	r.idle(enough)
	r.wantSpent(enough, 1300+8*10) // the usage says 10, which 6,000 bytes cannot be
	if entries := r.usage(enough); len(entries) != 1 {
		t.Errorf("counting left %d entries", len(entries))
	}

	// The counted bound is still too large. Nothing remains held, and nothing is charged.
	short := r.mint(testService, l402.NewTokenID(), required/6, tomorrow())
	r.chat(short, body).wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	if n := len(e.asked("/tokenize")); n != 2 {
		t.Errorf("counted %d times", n)
	}
	r.idle(short)
	r.wantSpent(short, 0)
}

// TestCountingTakesASlot: counting takes a slot like any other work, so a backend with one slot
// never gets two requests at once. A caller that cannot pay the bound takes no place in the queue
// for counting.
func TestCountingTakesASlot(t *testing.T) {
	counted := make(chan struct{})
	e := &countingEngine{hold: make(chan struct{}), other: func(w http.ResponseWriter, _ *http.Request) {
		<-counted
		io.WriteString(w, `{"count":1300}`)
	}}
	r := withEngine(t, e, format.Setting{Engine: format.EngineVLLM}, func(s *setup) {
		s.backend = func(b *gpuBackend) { b.Slots = 1 }
	})
	body := longPrompt(6000)
	required := r.do("POST", chatPath, body, nil).msat(t, "required_msat")
	rich, short := r.buy(maxPurchase), r.mint(testService, l402.NewTokenID(), required/2, tomorrow())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var all sync.WaitGroup
	post := func(k token, body string, headers ...string) {
		resp, err := r.client.Do(r.newRequest("POST", chatPath, body, k.with(headers...)).WithContext(ctx))
		if err != nil {
			t.Error(err)
			return
		}
		if drainBody(resp); resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	waiting := func(n int) func() bool {
		return func() bool { return int(r.fleet.Pool(testModel).Load(time.Now()).Queued) == n }
	}
	all.Go(func() { post(rich, request()) })
	r.until("the backend generates", func() bool { return e.busy.Load() == 1 })
	r.chat(short, body).wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	if n := len(e.asked("/tokenize")); n != 0 || r.fleet.Pool(testModel).Load(time.Now()).Queued != 0 {
		t.Errorf("the prompt of an account that is short was counted %d times, %g requests wait", n, r.fleet.Pool(testModel).Load(time.Now()).Queued)
	}
	all.Go(func() { post(rich, body, "L402-Max-Cost-Msat", amountText(required/2)) })
	r.until("counting waits for a slot", waiting(1))
	all.Go(func() { post(rich, request("max_tokens", "9")) })
	r.until("so does the next request", waiting(2))
	if n := len(e.asked("/tokenize")); n != 0 {
		t.Errorf("the backend was asked to count %d prompts beyond its slots", n)
	}
	close(e.hold)
	r.until("the backend counts", func() bool { return len(e.asked("/tokenize")) == 1 })
	if !waiting(1)() || len(e.asked(chatPath)) != 1 {
		t.Errorf("while it counts, %d requests are served", len(e.asked(chatPath)))
	}
	close(counted)
	all.Wait()
	if e.most.Load() != 1 {
		t.Errorf("%d calls at once", e.most.Load())
	}
}
