package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/internal/config"
	"sluice.example/sluice/l402"
)

// seller is a gateway that is built from a file as `serve` builds it, on a real listener.
type seller struct {
	t    *testing.T
	s    *server
	path string // path of the file
	url  string
	log  *syncBuffer
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// ownerConfig is the beginning of a configuration. The tests add the models and backends. A token
// of the prompt costs 1 msat, a token of the answer 2 msat.
const ownerConfig = `
listen: "127.0.0.1:0"
admin: {listen: "127.0.0.1:0"}
store: sqlite:sluice.db
keys: [{id: k1, secret: "1111111111111111111111111111111111111111111111111111111111111111"}]
lightning: {grpc: "127.0.0.1:1", macaroon_base64: AgEDbG5kAgdleGFtcGxlAAAGIMhEFsLihPVi352mLzDfnjqZ4ov9eWWPYvvQPNRqBscI}
services:
  - name: inference
    models:
      - name: demo
        backends: [one]
        context_tokens: &context 4096
        max_completion_tokens: &completion 64
        template_tokens: &template {base: 0, per_message: 0}
        prices: &prices {input: 1 sat/ktok, output: 2 sat/ktok}
        pricing: &static {policy: static}
`

// openSeller starts a gateway with the configuration of a file in dir.
func openSeller(t *testing.T, dir, text string, getenv func(string) string, edit ...func(*config.Config)) *seller {
	t.Helper()
	g := &seller{t: t, path: filepath.Join(dir, "gateway.yaml"), log: new(syncBuffer)}
	g.write(text)
	cfg, err := config.Load(g.path, getenv)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range edit {
		e(cfg)
	}
	log := slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if g.s, err = newServer(t.Context(), origin{path: g.path, getenv: getenv, first: cfg}, log, new(slog.LevelVar)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	g.s.fleet.Start(ctx)
	g.s.sensors.run(ctx)
	listener := httptest.NewServer(g.s.gateway.Handler())
	g.url = listener.URL
	t.Cleanup(func() {
		listener.Close()
		cancel()
		if err := g.s.close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", g.log)
		}
	})
	return g
}

func (g *seller) write(text string) {
	g.t.Helper()
	if err := os.WriteFile(g.path, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// reload puts another file in force.
func (g *seller) reload(text string) {
	g.t.Helper()
	g.write(text)
	if _, err := g.s.live.Reload("test"); err != nil {
		g.t.Fatal(err)
	}
}

// credit returns the credential of a new account with this amount.
func (g *seller) credit(amount l402.Msat) string {
	g.t.Helper()
	p := l402.NewPreimage()
	m, err := g.s.sink.keys.Load().Mint(l402.MintParams{Service: g.s.cfg.Services[0].Name, PaymentHash: p.Hash(), TokenID: l402.NewTokenID(),
		Deposit: amount, ValidUntil: time.Now().Add(time.Hour)})
	if err != nil {
		g.t.Fatal(err)
	}
	return l402.FormatCredential(m, p)
}

// narrowed returns the credential with further caveats.
func narrowed(t *testing.T, credential string, conditions ...string) string {
	t.Helper()
	macaroon, preimage, _ := strings.Cut(strings.TrimPrefix(credential, "L402 "), ":")
	whole, err := base64.StdEncoding.DecodeString(macaroon)
	if err != nil {
		t.Fatal(err)
	}
	part, err := l402.Attenuate(whole, conditions...)
	if err != nil {
		t.Fatal(err)
	}
	return "L402 " + base64.StdEncoding.EncodeToString(part) + ":" + preimage
}

// said is an answer of the gateway.
type said struct {
	status int
	header http.Header
	body   string
}

// ask sends a request. headers are names and values in turn.
func (g *seller) ask(method, path, body string, headers ...string) said {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return said{resp.StatusCode, resp.Header, string(b)}
}

const chatPath = "/v1/chat/completions"

// chatOf returns a request for one word from a model.
func chatOf(model, more string) string {
	return `{"model":"` + model + `","messages":[{"role":"user","content":"Say it"}],"max_tokens":16` + more + `}`
}

// number returns a member of the answer that is a number.
func (a said) number(t *testing.T, name string) int64 {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(a.body), &all); err != nil {
		t.Fatalf("%v in %d %s", err, a.status, a.body)
	}
	n, ok := all[name].(float64)
	if !ok {
		t.Fatalf("no %s in %d %s", name, a.status, a.body)
	}
	return int64(n)
}

// bound returns the most that a request can cost, in msat. The gateway says it to a client that
// allows no cost.
func (g *seller) bound(body string, headers ...string) int64 {
	g.t.Helper()
	a := g.ask("POST", chatPath, body, append(headers, "L402-Max-Cost-Msat", "0")...)
	if a.status != http.StatusPreconditionFailed {
		g.t.Fatalf("%d %s", a.status, a.body)
	}
	return a.number(g.t, "required_msat")
}

// spent returns how much an account was charged, in msat.
func (g *seller) spent(credential string) int64 {
	g.t.Helper()
	return g.ask("GET", "/l402/balance", "", "Authorization", credential).number(g.t, "charged_msat")
}

// upstream is a scripted server. It records the requests and gives the answers that the test sets.
type upstream struct {
	*httptest.Server
	mu    sync.Mutex
	asked []asked
	by    map[string]http.HandlerFunc // by method and path; a missing key: 404
}

// asked is one request that the server received.
type asked struct {
	path   string // with its query
	header http.Header
	body   map[string]any
	raw    string
}

func newUpstream(t *testing.T, by map[string]http.HandlerFunc) *upstream {
	t.Helper()
	u := &upstream{by: by}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	a := asked{path: r.URL.RequestURI(), header: r.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.body)
	u.mu.Lock()
	u.asked = append(u.asked, a)
	h := u.by[r.Method+" "+r.URL.EscapedPath()]
	u.mu.Unlock()
	if h == nil {
		http.NotFound(w, r)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	h(w, r)
}

// answer changes what a path answers.
func (u *upstream) answer(path string, h http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.by[path] = h
}

// at returns the requests to a path.
func (u *upstream) at(path string) (list []asked) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, a := range u.asked {
		if p, _, _ := strings.Cut(a.path, "?"); p == path {
			list = append(list, a)
		}
	}
	return list
}

// last returns the last request to a path.
func (u *upstream) last(t *testing.T, path string) asked {
	t.Helper()
	list := u.at(path)
	if len(list) == 0 {
		t.Fatalf("nothing came to %s", path)
	}
	return list[len(list)-1]
}

func saying(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// chats returns a handler that answers a chat as model, with 7 tokens in the prompt and 3 in the
// answer, as a document or as a stream.
func chats(model string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var asks struct {
			Stream  bool
			Options struct {
				Usage bool `json:"include_usage"`
			} `json:"stream_options"`
		}
		if err := json.NewDecoder(r.Body).Decode(&asks); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		name := strconv.Quote(model)
		const usage = `"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}`
		if !asks.Stream {
			saying(http.StatusOK, `{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"It is said"},`+
				`"finish_reason":"stop"}],"model":`+name+`,`+usage+`}`)(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for _, delta := range []string{`"delta":{"role":"assistant","content":"It"}`, `"delta":{"content":" is"}`, `"delta":{"content":" said"},"finish_reason":"stop"`} {
			fmt.Fprintf(w, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":%s,\"choices\":[{\"index\":0,%s}]}\n\n", name, delta)
		}
		if asks.Options.Usage {
			fmt.Fprintf(w, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":%s,\"choices\":[],%s}\n\n", name, usage)
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	}
}
