package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/backends/gpu"
	"sluice/internal/devnet/inference"
	"sluice/internal/gateway"
	"sluice/internal/store/sqlite"
	"sluice/l402"
	"sluice/metering"
	"sluice/metering/chat"
	"sluice/pricing"
)

// The prices of every test: one msat per prompt token, two per completion
// token.
var testRates = pricing.Rates{InputMsatPerMtok: 1_000_000, OutputMsatPerMtok: 2_000_000}

const (
	testModel   = "demo"
	testService = "inference"
	adminToken  = "operator-secret"
	minPurchase = 50_000
	maxPurchase = 5_000_000
)

// rig is a gateway on a real listener, with a real ledger on SQLite, a scripted
// inference server behind it, and a Lightning node that can be paid by its
// owner.
type rig struct {
	t       *testing.T
	gw      *gateway.Gateway
	srv     *http.Server
	url     string
	admin   string
	ledger  *metering.Ledger
	keys    *l402.Keyring
	board   *pricing.Board
	fleet   *gpu.Fleet
	node    *fakeNode
	backend *inference.Server // the first one
	client  *http.Client
	log     *lockedBuffer
	clock   *clock
}

// clock is the gateway's; it runs, and can be moved.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// setup is what a test may change before the rig starts.
type setup struct {
	inference   []inference.Config // one backend each
	backendURLs []string           // in place of inference servers
	backend     func(*gpu.BackendConfig)
	pool        func(*gpu.PoolConfig)
	service     func(*gateway.Service)
	gateway     func(*gateway.Config)
	ledger      func(*metering.Config)
	rates       *pricing.Rates
}

func newRig(t *testing.T, configure ...func(*setup)) *rig {
	t.Helper()
	s := setup{inference: []inference.Config{{TokensPerSecond: 5000, Record: true, AllowFaults: true, Seed: 7}}}
	for _, c := range configure {
		c(&s)
	}
	ctx := t.Context()
	r := &rig{t: t, node: newFakeNode(), log: new(lockedBuffer), clock: new(clock), board: new(pricing.Board)}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", r.log)
		}
	})

	db, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	ledgerConfig := metering.Config{Store: db, Log: log}
	if s.ledger != nil {
		s.ledger(&ledgerConfig)
	}
	if r.ledger, err = metering.Open(ctx, ledgerConfig); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		r.ledger.Close(ctx)
	})
	if r.keys, err = l402.NewKeyring(r.ledger.ID(), []l402.MasterKey{{ID: "test", State: l402.KeyMint, Secret: [32]byte{1, 2, 3}}}); err != nil {
		t.Fatal(err)
	}
	rates := testRates
	if s.rates != nil {
		rates = *s.rates
	}
	epoch := pricing.Fixed(testModel, rates, time.Now())
	epoch.ID = 3
	r.board.Set(epoch)
	r.startFleet(s, log)
	r.startGateway(s, log)
	return r
}

func (r *rig) startFleet(s setup, log *slog.Logger) {
	urls := s.backendURLs
	for i, cfg := range s.inference {
		if s.backendURLs != nil {
			break
		}
		cfg.Model = "upstream/" + testModel
		server, err := inference.New(cfg)
		if err != nil {
			r.t.Fatal(err)
		}
		if i == 0 {
			r.backend = server
		}
		listener := httptest.NewServer(server.Handler())
		r.t.Cleanup(listener.Close)
		urls = append(urls, listener.URL)
	}
	var backends []gpu.BackendConfig
	pool := gpu.PoolConfig{Model: testModel, QueueLimit: 8, QueueTimeout: 5 * time.Second}
	for i, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			r.t.Fatal(err)
		}
		b := gpu.BackendConfig{Name: "gpu" + strconv.Itoa(i), URL: u, APIKey: "backend-key", Slots: 32,
			Models: map[string]string{testModel: "upstream/" + testModel}}
		if s.backend != nil {
			s.backend(&b)
		}
		backends = append(backends, b)
		pool.Backends = append(pool.Backends, b.Name)
	}
	if s.pool != nil {
		s.pool(&pool)
	}
	var err error
	if r.fleet, err = gpu.NewFleet(gpu.Config{Backends: backends, Pools: []gpu.PoolConfig{pool}, Log: log}); err != nil {
		r.t.Fatal(err)
	}
	r.fleet.Start(r.t.Context())
	r.t.Cleanup(r.fleet.Close)
}

func (r *rig) startGateway(s setup, log *slog.Logger) {
	service := gateway.Service{Name: testService, MinPurchase: minPurchase, MaxPurchase: maxPurchase, Models: []gateway.Model{{
		Name: testModel, OwnedBy: "sluice", CreatedAt: time.Unix(1_700_000_000, 0),
		Limits: chat.Limits{ContextTokens: 8192, MaxCompletion: 256, MinCompletion: 4,
			TemplateBase: inference.TemplateBase, TemplatePerMessage: inference.TemplatePerMessage},
	}}}
	if s.service != nil {
		s.service(&service)
	}
	cfg := gateway.Config{Services: []gateway.Service{service}, Ledger: r.ledger, Keys: r.keys, Board: r.board, Fleet: r.fleet,
		Invoices: r.node, ProductText: "Sluice test", AdminToken: adminToken, Version: "test", Log: log, Clock: r.clock.now}
	if s.gateway != nil {
		s.gateway(&cfg)
	}
	var err error
	if r.gw, err = gateway.New(cfg); err != nil {
		r.t.Fatal(err)
	}
	if r.srv, err = gateway.NewServer(gateway.ServerConfig{Handler: r.gw.Handler(), Log: log}); err != nil {
		r.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	go r.srv.Serve(listener)
	r.t.Cleanup(func() { r.srv.Close() })
	r.url = "http://" + listener.Addr().String()
	admin := httptest.NewServer(r.gw.AdminHandler())
	r.t.Cleanup(admin.Close)
	r.admin = admin.URL
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	r.t.Cleanup(transport.CloseIdleConnections)
	r.client = &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// lockedBuffer collects the log.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// fakeNode makes invoices in name only, and knows their preimages: whoever
// "pays" asks it.
type fakeNode struct {
	mu       sync.Mutex
	invoices map[string]gateway.Invoice // by payment request
	down     atomic.Bool
	gate     chan struct{} // when not nil, AddInvoice takes one element first
}

func newFakeNode() *fakeNode { return &fakeNode{invoices: map[string]gateway.Invoice{}} }

var errNodeAway = errors.New("node is away")

func (n *fakeNode) AddInvoice(ctx context.Context, invoice gateway.Invoice) (string, error) {
	if n.down.Load() {
		return "", errNodeAway
	}
	if n.gate != nil {
		select {
		case <-n.gate:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	hash := invoice.Preimage.Hash()
	bolt11 := fmt.Sprintf("lnbcrt%dn1p%s", int64(invoice.Amount)/100, hash)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.invoices[bolt11] = invoice
	return bolt11, nil
}

func (n *fakeNode) Ready(context.Context) error {
	if n.down.Load() {
		return errNodeAway
	}
	return nil
}

func (n *fakeNode) pay(t *testing.T, bolt11 string) gateway.Invoice {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	invoice, ok := n.invoices[bolt11]
	if !ok {
		t.Fatalf("the node never made the invoice %q", bolt11)
	}
	return invoice
}

func (n *fakeNode) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.invoices)
}

// answer is a whole answer.
type answer struct {
	status  int
	header  http.Header
	trailer http.Header
	body    []byte
}

func (a *answer) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("body is not JSON: %v\n%s", err, a.body)
	}
	return v
}

// msat reads an amount from a JSON body.
func (a *answer) msat(t *testing.T, name string) l402.Msat {
	t.Helper()
	n, ok := a.json(t)[name].(float64)
	if !ok {
		t.Fatalf("no number %q in %s", name, a.body)
	}
	return l402.Msat(n)
}

// wantProblem checks everything that all problems have in common.
func (a *answer) wantProblem(t *testing.T, status int, kind string) map[string]any {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d\n%s", a.status, status, a.body)
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q", got)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("cache control %q", got)
	}
	p := a.json(t)
	if got, _ := p["type"].(string); !strings.HasSuffix(got, kind) {
		t.Errorf("type %q, want one that ends in %q", got, kind)
	}
	if p["status"] != float64(status) || p["title"] == "" || p["detail"] == "" {
		t.Errorf("incomplete problem: %s", a.body)
	}
	if status != http.StatusPaymentRequired && a.header["Www-Authenticate"] != nil {
		t.Errorf("a challenge came with status %d", status)
	}
	return p
}

type header map[string]string

// do sends one request and reads the whole answer.
func (r *rig) do(method, path, body string, headers header) *answer {
	r.t.Helper()
	resp := r.open(r.t.Context(), method, path, body, headers)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: read answer: %v", method, path, err)
	}
	return &answer{resp.StatusCode, resp.Header, resp.Trailer, content}
}

// open sends one request and returns the answer to be read.
func (r *rig) open(ctx context.Context, method, path, body string, headers header) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp
}

// token is a paid credential.
type token struct {
	macaroon []byte
	preimage l402.Preimage
	amount   l402.Msat
	id       l402.Identifier
}

func (k token) String() string { return l402.FormatCredential(k.macaroon, k.preimage) }

// with returns the headers of a request that pays with the token.
func (k token) with(more ...string) header {
	h := header{"Authorization": k.String()}
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = more[i+1]
	}
	return h
}

// attenuate adds caveats.
func (k token) attenuate(t *testing.T, conditions ...string) token {
	t.Helper()
	m, err := l402.Attenuate(k.macaroon, conditions...)
	if err != nil {
		t.Fatal(err)
	}
	k.macaroon = m
	return k
}

// pay pays a challenge and returns its token.
func (r *rig) pay(a *answer) token {
	r.t.Helper()
	c, err := l402.ParseChallenge(a.header["Www-Authenticate"])
	if err != nil {
		r.t.Fatalf("status %d, challenge: %v\n%s", a.status, err, a.body)
	}
	id, _, err := l402.Inspect(c.Macaroon)
	if err != nil {
		r.t.Fatal(err)
	}
	invoice := r.node.pay(r.t, c.Invoice)
	if invoice.Preimage.Hash() != id.PaymentHash {
		r.t.Fatal("the invoice is not for the macaroon's payment hash")
	}
	return token{c.Macaroon, invoice.Preimage, invoice.Amount, id}
}

// buy opens an account with so much credit.
func (r *rig) buy(amount l402.Msat) token {
	r.t.Helper()
	return r.pay(r.do("POST", "/v1/chat/completions", "", header{"L402-Deposit-Msat": strconv.FormatInt(int64(amount), 10)}))
}

// balance asks the gateway.
func (r *rig) balance(k token) *answer {
	r.t.Helper()
	a := r.do("GET", "/l402/balance", "", k.with())
	if a.status != http.StatusOK {
		r.t.Fatalf("balance: status %d\n%s", a.status, a.body)
	}
	return a
}

// wantSpent checks that the account was charged so much in all and holds
// nothing.
func (r *rig) wantSpent(k token, charged l402.Msat) {
	r.t.Helper()
	r.idle(k)
	a := r.balance(k)
	if got := a.msat(r.t, "charged_msat"); got != charged {
		r.t.Errorf("charged %d msat in all, want %d", got, charged)
	}
	if got, want := a.msat(r.t, "available_msat"), a.msat(r.t, "deposited_msat")-charged; got != want {
		r.t.Errorf("available %d msat, want %d", got, want)
	}
}

// idle waits until nothing is held on the account.
func (r *rig) idle(k token) {
	r.t.Helper()
	r.until("the hold ends", func() bool { return r.balance(k).msat(r.t, "held_msat") == 0 })
}

// until polls for something that another process or goroutine does.
func (r *rig) until(what string, done func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			r.t.Fatalf("gave up waiting until %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// usage returns the account's charges, newest first.
func (r *rig) usage(k token) []metering.Entry {
	r.t.Helper()
	a := r.do("GET", "/l402/usage", "", k.with())
	var page struct {
		Charges []metering.Entry `json:"charges"`
	}
	if err := json.Unmarshal(a.body, &page); err != nil || a.status != http.StatusOK {
		r.t.Fatalf("usage: status %d, %v\n%s", a.status, err, a.body)
	}
	return page.Charges
}

// lastCharge returns the newest charge once it is there and nothing is held.
func (r *rig) lastCharge(k token) metering.Entry {
	r.t.Helper()
	var list []metering.Entry
	r.until("the charge is recorded", func() bool { list = r.usage(k); return len(list) > 0 })
	r.idle(k)
	return r.usage(k)[0]
}

// request makes a chat body. Members given replace the usual ones; "" removes
// one.
func request(members ...string) string {
	body := map[string]json.RawMessage{
		"model":       json.RawMessage(`"` + testModel + `"`),
		"messages":    json.RawMessage(`[{"role":"user","content":"Tell me about the river and its banks."}]`),
		"max_tokens":  json.RawMessage(`24`),
		"temperature": json.RawMessage(`0.7`),
		"ignore_eos":  json.RawMessage(`true`),
	}
	for i := 0; i < len(members); i += 2 {
		if members[i+1] == "" {
			delete(body, members[i])
			continue
		}
		body[members[i]] = json.RawMessage(members[i+1])
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return string(b)
}

const chatPath = "/v1/chat/completions"

// chat sends a chat request and reads the whole answer.
func (r *rig) chat(k token, body string, more ...string) *answer {
	r.t.Helper()
	return r.do("POST", chatPath, body, k.with(more...))
}

// truth is what the inference server really did for its newest chat request.
func (r *rig) truth() inference.Recorded {
	r.t.Helper()
	var last *inference.Recorded
	for _, rec := range r.backend.Requests() {
		if rec.Path == chatPath {
			last = &rec
		}
	}
	if last == nil {
		r.t.Fatal("the backend got no chat request")
	}
	return *last
}

// cost is what tokens cost at the test's prices.
func cost(prompt, completion int) l402.Msat { return l402.Msat(prompt + 2*completion) }

// trueCost is the cost of what the backend did for its newest request.
func (r *rig) trueCost() l402.Msat {
	rec := r.truth()
	return cost(rec.PromptTokens, rec.CompletionTokens)
}

// comment finds the cost comment of a stream.
func comment(t *testing.T, stream []byte) (cost, balance l402.Msat) {
	t.Helper()
	scan := bufio.NewScanner(bytes.NewReader(stream))
	scan.Buffer(nil, 64<<20)
	for scan.Scan() {
		if n, _ := fmt.Sscanf(scan.Text(), ": l402 cost_msat=%d balance_msat=%d", &cost, &balance); n == 2 {
			return cost, balance
		}
	}
	t.Fatalf("no cost comment in the stream:\n%s", tail(stream))
	return 0, 0
}

func tail(b []byte) []byte { return b[max(0, len(b)-600):] }

// dataLines returns the data of a stream's events.
func dataLines(stream []byte) []string {
	var lines []string
	for line := range strings.SplitSeq(string(stream), "\n") {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			lines = append(lines, data)
		}
	}
	return lines
}

// readEvents reads n events that carry data and returns what was read.
func readEvents(t *testing.T, body io.Reader, n int) []byte {
	t.Helper()
	var got bytes.Buffer
	reader := bufio.NewReader(body)
	for n > 0 {
		line, err := reader.ReadBytes('\n')
		got.Write(line)
		if err != nil {
			t.Fatalf("stream ended early: %v\n%s", err, tail(got.Bytes()))
		}
		if bytes.HasPrefix(line, []byte("data: ")) {
			n--
		}
	}
	return got.Bytes()
}

func amountHeader(t *testing.T, h http.Header, name string) l402.Msat {
	t.Helper()
	n, err := strconv.ParseInt(h.Get(name), 10, 64)
	if err != nil {
		t.Fatalf("header %s is %q", name, h.Get(name))
	}
	return l402.Msat(n)
}

func b64(b []byte) string   { return base64.StdEncoding.EncodeToString(b) }
func hexOf(b []byte) string { return hex.EncodeToString(b) }

type (
	gpuBackend = gpu.BackendConfig
	gpuPool    = gpu.PoolConfig
)

func withContinuous(on bool) func(*gpuBackend) {
	return func(b *gpuBackend) { b.ContinuousUsage = on }
}

func l402Msat(n int) l402.Msat { return l402.Msat(n) }

func amountText(m l402.Msat) string { return strconv.FormatInt(int64(m), 10) }

// contentEvents counts the events of a stream that carry text: one token each
// from the test's backend.
func contentEvents(stream []byte) (n int) {
	for _, data := range dataLines(stream) {
		var chunk struct {
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
			} `json:"choices"`
		}
		if json.Unmarshal([]byte(data), &chunk) == nil && len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
			n++
		}
	}
	return n
}

// newRequest makes a request for use outside the test's goroutine.
func (r *rig) newRequest(method, path, body string, headers header) *http.Request {
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	return req
}

func drainBody(resp *http.Response) {
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

type gatewayService = gateway.Service

// metrics reads the operator's metrics.
func (r *rig) metrics() string {
	r.t.Helper()
	resp, err := http.Get(r.admin + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("metrics: %d %v\n%s", resp.StatusCode, err, b)
	}
	return string(b)
}
