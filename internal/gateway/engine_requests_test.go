package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering/format"
)

// countingEngine is an inference server that a test scripts. It keeps the bodies that it got.
type countingEngine struct {
	mu     sync.Mutex
	bodies map[string][]map[string]any // by path
	busy   atomic.Int64                // calls being answered now
	most   atomic.Int64                // the most calls that were answered at once
	other  http.HandlerFunc            // answers requests that are not for chat; nil: 404
	tokens func(body map[string]any) (prompt, perChoice, choices int)
	hold   chan struct{} // while not nil, chat requests wait until it is closed
}

func (e *countingEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for now := e.busy.Add(1); ; {
		if most := e.most.Load(); now <= most || e.most.CompareAndSwap(most, now) {
			break
		}
	}
	defer e.busy.Add(-1)
	raw, _ := io.ReadAll(r.Body)
	var body map[string]any
	_ = json.Unmarshal(raw, &body)
	e.mu.Lock()
	e.bodies[r.URL.Path] = append(e.bodies[r.URL.Path], body)
	e.mu.Unlock()
	if r.URL.Path != chatPath {
		if e.other == nil {
			http.NotFound(w, r)
			return
		}
		e.other(w, r)
		return
	}
	if e.hold != nil {
		select {
		case <-e.hold:
		case <-r.Context().Done():
			return
		}
	}
	prompt, each, n := e.tokens(body)
	usage := fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, prompt, each*n, prompt+each*n)
	text := strings.Repeat("word ", each)
	var choices []string
	if body["stream"] == true {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range n {
			fmt.Fprintf(w, "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":%d,\"delta\":{\"content\":%q},\"finish_reason\":\"stop\"}]}\n\n", i, text)
		}
		fmt.Fprintf(w, "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],%s}\n\ndata: [DONE]\n\n", usage)
		return
	}
	for i := range n {
		choices = append(choices, fmt.Sprintf(`{"index":%d,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}`, i, text))
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[%s],%s}`, strings.Join(choices, ","), usage)
}

// asked returns the bodies that came to a path.
func (e *countingEngine) asked(path string) []map[string]any {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bodies[path]
}

// number returns a member of a body; 0 if the body does not have it.
func number(body map[string]any, name string) int {
	n, _ := body[name].(float64)
	return int(n)
}

// capped is an engine that knows only these names of the cap. It generates as many tokens as the
// first of them that the body has says, or 1,000 tokens.
func capped(prompt int, names ...string) func(map[string]any) (int, int, int) {
	return func(body map[string]any) (int, int, int) {
		n := max(1, number(body, "n"), number(body, "n_cmpl"))
		for _, name := range names {
			if limit := number(body, name); limit > 0 {
				return prompt, limit, n
			}
		}
		return prompt, 1000, n
	}
}

// withEngine returns a rig on one scripted engine with a setting.
func withEngine(t *testing.T, e *countingEngine, setting format.Setting, more ...func(*setup)) *rig {
	t.Helper()
	e.bodies = map[string][]map[string]any{}
	if e.tokens == nil {
		e.tokens = capped(10, "max_tokens")
	}
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	return newRig(t, append([]func(*setup){func(s *setup) {
		s.backendURLs, s.profile, s.rates = []string{server.URL}, setting, &dialectRates
	}}, more...)...)
}

// TestCapReachesABackendThatKnowsOneName: a backend that knows one name of the cap gets the cap
// under that name, whatever name the client used.
func TestCapReachesABackendThatKnowsOneName(t *testing.T) {
	for _, c := range []struct {
		knows   string
		setting format.Setting
		members []string
	}{
		{"max_tokens", format.Setting{}, []string{"max_tokens", "", "max_completion_tokens", "1"}},
		{"max_completion_tokens", format.Setting{}, []string{"max_tokens", "1"}},
		{"max_tokens", format.Setting{Engine: format.EngineOllama}, []string{"max_tokens", "", "max_completion_tokens", "1"}},
		{"max_tokens", format.Setting{Engine: format.EngineLlamaCpp}, []string{"max_tokens", "", "n_predict", "1"}},
		{"max_completion_tokens", format.Setting{Engine: format.EngineOpenAI}, []string{"max_tokens", "1"}},
		{"max_completion_tokens", format.Setting{CapField: "max_completion_tokens"}, []string{"max_tokens", "1.0"}},
	} {
		e := &countingEngine{tokens: capped(10, c.knows)}
		r := withEngine(t, e, c.setting)
		k := r.buy(maxPurchase)
		for _, stream := range []string{"false", "true"} {
			a := r.chat(k, request(append(c.members, "stream", stream)...))
			if a.status != http.StatusOK {
				t.Fatalf("%+v: %d\n%s", c, a.status, a.body)
			}
		}
		r.idle(k)
		r.wantSpent(k, 2*(10+10)) // a prompt of 10 tokens and one token, twice
		for _, body := range e.asked(chatPath) {
			if number(body, c.knows) != 1 {
				t.Errorf("%+v: the backend got no cap that it knows: %v", c, body)
			}
			for _, name := range []string{"max_tokens", "max_completion_tokens", "n_predict", "max_new_tokens"} {
				if _, ok := body[name]; ok && number(body, name) != 1 {
					t.Errorf("%+v: the backend got %s %v", c, name, body[name])
				}
			}
		}
	}
}

// TestSequencesByAnotherNameAreHeldAndCharged: the number of completions is read under each of its
// names, held, sent under one name, and charged.
func TestSequencesByAnotherNameAreHeldAndCharged(t *testing.T) {
	e := &countingEngine{}
	r := withEngine(t, e, format.Setting{})
	body := request("max_tokens", "100", "n_cmpl", "8")
	if required := r.do("POST", chatPath, body, nil).msat(t, "required_msat"); required < 8*100*10 {
		t.Errorf("%d msat are held for 8 completions of 100 tokens", required)
	}
	k := r.buy(maxPurchase)
	if a := r.chat(k, body); a.status != http.StatusOK {
		t.Fatalf("%d\n%s", a.status, a.body)
	}
	r.idle(k)
	r.wantSpent(k, 10+8*100*10)
	got := e.asked(chatPath)[0]
	if number(got, "n") != 8 || got["n_cmpl"] != nil {
		t.Errorf("the backend got n %v, n_cmpl %v", got["n"], got["n_cmpl"])
	}
	r.chat(k, request("use_beam_search", "true")).wantParam(t, "use_beam_search")
	r.chat(k, request("best_of", "3")).wantParam(t, "best_of")
}

// wantParam checks that a request was refused because of a field.
func (a *answer) wantParam(t testing.TB, param string) {
	t.Helper()
	if p := a.wantProblem(t, http.StatusBadRequest, "invalid-request"); p["param"] != param {
		t.Errorf("param is %v, want %q", p["param"], param)
	}
}

// TestUnknownMembersAreRefusedByName: an unknown member never reaches a backend, and the client is
// told its name.
func TestUnknownMembersAreRefusedByName(t *testing.T) {
	e := &countingEngine{}
	r := withEngine(t, e, format.Setting{}, func(s *setup) {
		s.service = func(svc *gatewayService) {
			svc.Models[0].Policy = format.Policy{AllowFields: []string{"mine"}, MediaHosts: []string{"cdn.example.com"}}
		}
	})
	k := r.buy(maxPurchase)
	picture := func(url string) string {
		return `[{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + url + `"}}]}]`
	}
	for param, members := range map[string][]string{
		"kv_transfer_params":                   {"kv_transfer_params", `{"remote_host":"10.0.0.1"}`},
		"bootstrap_host":                       {"bootstrap_host", `"10.0.0.1"`},
		"lora_path":                            {"lora_path", `"/etc"`},
		"vllm_xargs":                           {"vllm_xargs", `{"a":1}`},
		"surprise":                             {"surprise", `1`},
		"chat_template":                        {"chat_template", `"{{x}}"`},
		"max_tokens":                           {"max_tokens", `0`},
		"tools[0].type":                        {"tools", `[{"type":"web_search"}]`},
		"messages[0].zzz":                      {"messages", `[{"role":"user","content":"x","zzz":1}]`},
		"messages[0].content[0].image_url.url": {"messages", picture("http://169.254.169.254/latest/meta-data")},
	} {
		r.chat(k, request(members...)).wantParam(t, param)
	}
	r.chat(k, request("messages", picture("file:///etc/passwd"))).wantParam(t, "messages[0].content[0].image_url.url")
	if n := len(e.asked(chatPath)); n != 0 {
		t.Errorf("%d refused requests reached the backend", n)
	}
	r.wantSpent(k, 0)
	for name, members := range map[string][]string{
		"an allowed field":       {"mine", `"yes"`},
		"an allowed host":        {"messages", picture("https://cdn.example.com/a.png")},
		"an echoed answer":       {"messages", `[{"role":"assistant","content":"x","annotations":[],"audio":null,"function_call":null},{"role":"user","content":"y"}]`},
		"ids and routing":        {"request_id", `"same"`, "priority", `-5`, "provider", `{"order":[]}`, "usage", `{"include":true}`, "keep_alive", `"5m"`},
		"no cap":                 {"max_tokens", `-1`},
		"a null cap":             {"max_tokens", `null`},
		"a cap that is a float":  {"max_tokens", `8.0`},
		"a count that is so too": {"n", `1.0`},
	} {
		if a := r.chat(k, request(members...)); a.status != http.StatusOK {
			t.Errorf("%s: %d\n%s", name, a.status, a.body)
		}
	}
	if a := r.chat(k, "\xef\xbb\xbf"+request()); a.status != http.StatusOK {
		t.Errorf("a byte order mark: %d\n%s", a.status, a.body)
	}
	for _, body := range e.asked(chatPath) {
		for _, name := range []string{"request_id", "priority", "provider", "usage", "keep_alive"} {
			if body[name] != nil {
				t.Errorf("%s reached the backend", name)
			}
		}
	}
}

// TestEchoedAnswersCostTheirText: an assistant's message that the client sends back unchanged costs
// what its text costs.
func TestEchoedAnswersCostTheirText(t *testing.T) {
	r := newRig(t)
	plain := request("messages", `[{"role":"assistant","content":"some text"},{"role":"user","content":"go on"}]`)
	echoed := request("messages", `[{"role":"assistant","content":"some text","refusal":null,"annotations":[],"audio":null,"function_call":null},{"role":"user","content":"go on"}]`,
		"reasoning_format", `"auto"`, "keep_alive", `"1h"`, "prompt_logprobs", "null", "echo", "false", "provider", "{}")
	want := r.do("POST", chatPath, plain, nil).msat(t, "required_msat")
	if got := r.do("POST", chatPath, echoed, nil).msat(t, "required_msat"); got > want+20 {
		t.Errorf("%d msat are required for an echoed answer, %d for its text", got, want)
	}
}

// TestCapThatNobodyGaveFitsTheContext: if the client gave no cap, the cap leaves room in the
// context for the prompt. A cap of the client is not changed.
func TestCapThatNobodyGaveFitsTheContext(t *testing.T) {
	e := &countingEngine{other: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"count":1300}`) }}
	r := withEngine(t, e, format.Setting{Engine: format.EngineVLLM}, func(s *setup) {
		s.service = func(svc *gatewayService) {
			svc.Models[0].Limits = format.Limits{ContextTokens: 4096, MaxCompletion: 4096, MinCompletion: 4, TemplateBase: 20, TemplatePerMessage: 5}
		}
	})
	text := `[{"role":"user","content":"` + repeat("the river runs ", 400) + `"}]`
	k := r.buy(maxPurchase)
	if a := r.chat(k, request("messages", text, "max_tokens", "")); a.status != http.StatusOK {
		t.Fatalf("%d\n%s", a.status, a.body)
	}
	r.chat(k, request("messages", text, "max_tokens", "4000"))
	r.chat(k, request("max_tokens", ""))
	// With a counted prompt, the cap is all that the prompt leaves.
	required := r.do("POST", chatPath, request("messages", text, "max_tokens", ""), nil).msat(t, "required_msat")
	short := r.mint(testService, l402.NewTokenID(), required-1, tomorrow())
	r.chat(short, request("messages", text, "max_tokens", ""))
	caps := []int{}
	for _, body := range e.asked(chatPath) {
		caps = append(caps, number(body, "max_tokens"))
	}
	if len(caps) < 3 || caps[0] < 1500 || caps[0] > 4096-1300 || caps[1] != 4000 || caps[2] < 3900 {
		t.Errorf("the backend got the caps %v", caps)
	}
}

// TestTemplateOverheadIsLearnt: the gateway learns what an engine's template adds beyond the
// limits, for the account whose request showed it.
func TestTemplateOverheadIsLearnt(t *testing.T) {
	e := &countingEngine{tokens: capped(245, "max_tokens")}
	r := withEngine(t, e, format.Setting{Engine: format.EngineOllama})
	body := request("messages", `[{"role":"user","content":"Hi"}]`, "max_tokens", "1")
	bound := func(k token) l402.Msat {
		a := r.chat(k, body, "L402-Max-Cost-Msat", "1")
		return a.msat(t, "required_msat")
	}
	first, second, third := r.buy(maxPurchase), r.buy(maxPurchase), r.buy(maxPurchase)
	before := bound(first)
	if before >= 245 {
		t.Fatalf("the bound is %d already", before)
	}
	for i, k := range []token{first, second} {
		if a := r.chat(k, body); a.status != http.StatusOK {
			t.Fatalf("%d\n%s", a.status, a.body)
		}
		r.idle(k)
		r.wantSpent(k, before) // clamped the first time
		if got := bound(k); got != 245+10 {
			t.Errorf("the bound became %d msat, want 255", got)
		}
		if got := bound(third); i == 0 && got != before {
			t.Errorf("one account moved another's bound to %d", got)
		}
	}
	if got := bound(third); got != 245+10 {
		t.Errorf("after two accounts the bound of a third is %d msat, want 255", got)
	}
	r.chat(third, body)
	r.idle(third)
	r.wantSpent(third, 245+10)
}
