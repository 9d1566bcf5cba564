package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/config"
	"sluice.example/sluice/pricing"
)

// recipe describes how the server of a recipe behaves, for one of its models.
type recipe struct {
	file, backend, model string
	inner                string // the server's name of the model
	chat, health         string // paths
	cap                  string // the server's name of the completion cap
	counts, counted      string // path of its tokenizer and the tokenizer's answer; "": no tokenizer
	metrics, page        string // path and page of its metrics; "": no metrics
	running              string // what requests running usage in a stream; "": nothing
	strict               bool   // it refuses unknown fields
	header, key          string // header and value of its key; "": no key
	query                string
	set                  string // fields that the owner sets in each request
}

var recipes = []recipe{
	{file: "vllm.md", backend: "vllm-1", model: "llama-3.1-8b", inner: "meta-llama/Llama-3.1-8B-Instruct", chat: chatPath, health: "/health", cap: "max_tokens",
		counts: "/tokenize", counted: `{"count":9,"max_model_len":32768,"tokens":[]}`, running: `"continuous_usage_stats":true`,
		metrics: "/metrics", page: "vllm:num_requests_running 3\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\n"},
	{file: "sglang.md", backend: "sglang-1", model: "qwen3-8b", inner: "Qwen/Qwen3-8B", chat: chatPath, health: "/health", cap: "max_tokens",
		counts: "/tokenize", counted: `{"tokens":[1,2,3,4,5,6,7,8,9],"count":9}`, running: `"continuous_usage_stats":true`, set: `"chat_template_kwargs":{"enable_thinking":false}`,
		metrics: "/metrics", page: "sglang:num_running_reqs 3\nsglang:num_queue_reqs 1\nsglang:token_usage 0.5\n"},
	{file: "llamacpp.md", backend: "llamacpp-1", model: "llama-3.1-8b", inner: "llama-3.1-8b", chat: chatPath, health: "/health", cap: "max_tokens",
		counts: "/v1/chat/completions/input_tokens", counted: `{"input_tokens":9}`, running: `"timings_per_token":true`,
		metrics: "/metrics", page: "llamacpp:requests_processing 3\nllamacpp:requests_deferred 1\n"},
	{file: "ollama.md", backend: "ollama-1", model: "llama-3.1-8b", inner: "llama3.1:8b", chat: chatPath, health: "/api/version", cap: "max_tokens"},
	{file: "tensorrt-llm.md", backend: "trtllm-1", model: "llama-3.1-8b", inner: "meta-llama/Llama-3.1-8B-Instruct", chat: chatPath, health: "/health", cap: "max_tokens",
		counts: "/_internal/tokenize", counted: `{"tokens":[1,2,3,4,5,6,7,8,9],"count":9}`, running: `"continuous_usage_stats":true`, strict: true,
		metrics: "/prometheus/metrics", page: "trtllm_num_requests_running 3\ntrtllm_num_requests_waiting 1\n"},
	{file: "cloud.md", backend: "prefix", model: "flash-latest", inner: "flash-2.5", chat: "/openai/v1beta/chat/completions", health: "/openai/v1beta/models", cap: "max_tokens",
		header: "Authorization", key: "Bearer sk-cloud", set: `"service_tier":"default"`},
	{file: "cloud.md", backend: "deployments", model: "four", inner: "gpt-4o", chat: "/openai/deployments/gpt-4o/chat/completions", health: "/openai/models", cap: "max_completion_tokens",
		header: "Api-Key", key: "sk-deployments", query: "?api-version=2024-10-21", strict: true},
}

const recipeDir = "../../docs/recipes/"

// configurationOf returns the complete configuration of a recipe.
func configurationOf(t *testing.T, file string) string {
	t.Helper()
	page, err := os.ReadFile(recipeDir + file)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)\n```yaml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) != 1 {
		t.Fatalf("%s has %d configurations", file, len(blocks))
	}
	return string(blocks[0][1])
}

// recipeFolder returns a folder with the files that the recipes name.
func recipeFolder(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	macaroon, err := base64.StdEncoding.DecodeString("AgEDbG5kAgdleGFtcGxlAAAGIMhEFsLihPVi352mLzDfnjqZ4ov9eWWPYvvQPNRqBscI")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"keys/2026-01.hex":     []byte(strings.Repeat("ab", 32) + "\n"),
		"lnd/tls.cert":         pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"lnd/invoice.macaroon": macaroon,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// server behaves like the server of the recipe. It refuses what the real server refuses.
func (r *recipe) server(t *testing.T) *upstream {
	known := map[string]bool{"model": true, "messages": true, "stream": true, "stream_options": true, "n": true, "store": true, "user": true, r.cap: true}
	by := map[string]http.HandlerFunc{"GET " + r.health: saying(http.StatusOK, `{"object":"list","data":[]}`)}
	answer := chats(r.inner)
	by["POST "+r.chat] = func(w http.ResponseWriter, req *http.Request) {
		raw, _ := io.ReadAll(req.Body)
		a := r.refusal(req.Header, raw, known)
		if a != "" {
			saying(http.StatusBadRequest, `{"error":{"message":"`+a+`","code":400}}`)(w, req)
			return
		}
		req.Body = io.NopCloser(bytes.NewReader(raw))
		answer(w, req)
	}
	if r.counts != "" {
		by["POST "+r.counts] = saying(http.StatusOK, r.counted)
	}
	if r.metrics != "" {
		by["GET "+r.metrics] = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, r.page) }
	}
	return newUpstream(t, by)
}

// refusal returns why the server refuses a chat, or "" when it does not refuse it.
func (r *recipe) refusal(h http.Header, raw []byte, known map[string]bool) string {
	body := members(raw)
	for _, name := range []string{"max_tokens", "max_completion_tokens"} {
		if body[name] != (name == r.cap) {
			return "the cap is wrong: " + name
		}
	}
	for name := range body {
		if r.strict && !known[name] {
			return name + " is not known"
		}
	}
	if r.header != "" && h.Get(r.header) != r.key {
		return "the key is missing"
	}
	return ""
}

func members(raw []byte) map[string]bool {
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`"(\w+)":`).FindAllSubmatch(raw, -1) {
		names[string(m[1])] = true
	}
	for _, inner := range []string{"role", "content", "include_usage", "include_obfuscation", "continuous_usage_stats", "enable_thinking"} {
		delete(names, inner)
	}
	return names
}

// Each recipe sells its model. The gateway asks the server for its properties at the right paths,
// and the buyer is charged what the server reports.
func TestRecipes(t *testing.T) {
	pages, err := filepath.Glob(recipeDir + "*.md")
	if err != nil {
		t.Fatal(err)
	}
	tested := map[string]bool{"README.md": true}
	for i := range recipes {
		r := &recipes[i]
		tested[r.file] = true
		t.Run(r.file+" "+r.backend, r.run)
	}
	for _, page := range pages {
		if !tested[filepath.Base(page)] {
			t.Errorf("%s is not tested", page)
		}
	}
}

func (r *recipe) run(t *testing.T) {
	u := r.server(t)
	getenv := func(name string) string {
		return map[string]string{"CLOUD_KEY": "sk-cloud", "DEPLOYMENTS_KEY": "sk-deployments"}[name]
	}
	moved := func(at *url.URL) {
		if at != nil {
			here, _ := url.Parse(u.URL)
			at.Scheme, at.Host = here.Scheme, here.Host
		}
	}
	g := openSeller(t, recipeFolder(t), configurationOf(t, r.file), getenv, func(cfg *config.Config) {
		for i := range cfg.Backends {
			if b := &cfg.Backends[i]; b.Name == r.backend {
				moved(b.URL)
				moved(b.EngineURL)
			} else {
				b.Health.Path, b.Health.Default = "", false
			}
		}
	})
	k := g.credit(1_000_000)
	for _, more := range []string{"", `,"stream":true`} {
		a := g.ask("POST", chatPath, chatOf(r.model, more+`,"mirostat":1,"user":"somebody"`), "Authorization", k)
		if a.status != http.StatusOK || !strings.Contains(a.body, `"model":"`+r.model+`"`) {
			t.Fatalf("%d %s", a.status, a.body)
		}
		got := u.last(t, r.chat)
		if got.path != r.chat+r.query || got.body["model"] != r.inner || !strings.Contains(got.raw, r.set) || more != "" && !strings.Contains(got.raw, r.running) {
			t.Errorf("%s came to %s", got.raw, got.path)
		}
	}
	if n, want := g.spent(k), 2*r.cost(t, g.s.cfg); n != want {
		t.Errorf("%d msat were charged, want %d", n, want)
	}
	g.bound(chatOf(r.model, ""), "Authorization", k)
	for _, path := range []string{r.health, r.metrics, r.counts} {
		for deadline := time.Now().Add(10 * time.Second); path != "" && len(u.at(path)) == 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s was not asked", path)
			}
		}
	}
	r.wantLoad(t, g)
}

// cost returns the price of 7 prompt tokens and 3 answer tokens.
func (r *recipe) cost(t *testing.T, cfg *config.Config) int64 {
	t.Helper()
	for _, m := range cfg.Services[0].Models {
		if m.Backends[0] != r.backend {
			continue
		}
		n, err := m.Prices.Rates().Cost(pricing.Units{pricing.InputTokens: 7, pricing.OutputTokens: 3, pricing.Calls: 1})
		if err != nil {
			t.Fatal(err)
		}
		return int64(n)
	}
	t.Fatalf("no model is at %s", r.backend)
	return 0
}

// wantLoad waits until the gateway knows the server's own load, if the server reports it.
func (r *recipe) wantLoad(t *testing.T, g *seller) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		for _, b := range g.s.fleet.Status() {
			if b.Name == r.backend && b.Healthy && b.Checked && b.Telemetry == "" && !b.Load.Stale && (r.metrics == "" || b.Load.Running == 3) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the load is not known: %+v", g.s.fleet.Status())
		}
	}
}
