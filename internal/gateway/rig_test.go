package gateway_test

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/internal/store/sqlite"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// testRates are the prices of every test: 1 msat per prompt token and 2 msat per completion token.
var testRates = pricing.Rates{pricing.InputTokens: 1_000_000, pricing.OutputTokens: 2_000_000}

const (
	testModel   = "demo"
	testService = "inference"
	adminToken  = "operator-secret"
	minPurchase = 50_000
	maxPurchase = 5_000_000
)

// TestMain runs six parallel tests at a time, unless the command line says otherwise: tests that are parallel wait more
// than they work. Tests that measure memory or a pace are not parallel.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		flag.Set("test.parallel", "6")
	}
	os.Exit(m.Run())
}

// rig is a gateway on a real listener. It has a real ledger on SQLite, scripted inference servers as
// backends, and a Lightning node whose invoices the test can pay.
type rig struct {
	t       testing.TB
	gw      *gateway.Gateway
	srv     *http.Server
	url     string
	admin   string
	path    string // of the ledger's database
	born    time.Time
	ledger  *metering.Ledger
	prices  *pricer.Record
	keys    *l402.Keyring
	board   *pricing.Board
	fleet   *gpu.Fleet
	node    *fakeNode
	backend *inference.Server // the first inference server
	client  *http.Client
	log     *lockedBuffer
	clock   *clock

	backendURL string // of the last inference server
}

// setup is what a test may change before the rig starts.
type setup struct {
	inference   []inference.Config // one backend for each
	backendURLs []string           // replaces the inference servers
	backend     func(*gpu.BackendConfig)
	pool        func(*gpu.PoolConfig)
	pools       []gpu.PoolConfig // of models beside the first one
	profile     format.Setting   // of each backend
	service     func(*gateway.Service)
	gateway     func(*gateway.Config)
	ledger      func(*metering.Config)
	server      func(*intake.ServerConfig)
	rates       *pricing.Rates
}

func newRig(t testing.TB, configure ...func(*setup)) *rig {
	t.Helper()
	s := setup{profile: does(false, false), inference: []inference.Config{{TokensPerSecond: 5000, Record: true, AllowFaults: true, Seed: 7}}}
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

	r.born = time.Now()
	r.path = filepath.Join(t.TempDir(), "ledger.db")
	db, err := sqlite.Open(ctx, r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	r.prices = pricer.NewRecord(db)
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
		r.backendURL = listener.URL // the last server's URL remains
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
	if r.fleet, err = gpu.NewFleet(gpu.Config{Backends: backends, Pools: append(s.pools, pool), Log: log}); err != nil {
		r.t.Fatal(err)
	}
	r.fleet.Start(r.t.Context())
	r.t.Cleanup(r.fleet.Close)
}

func (r *rig) startGateway(s setup, log *slog.Logger) {
	service := gateway.Service{Name: testService, MinPurchase: minPurchase, MaxPurchase: maxPurchase, ForwardHeaders: []string{"X-Fault", "X-Custom"}, Models: []gateway.Model{{
		Name: testModel, OwnedBy: "sluice", CreatedAt: time.Unix(1_700_000_000, 0),
		Limits: format.Limits{ContextTokens: 8192, MaxCompletion: 256, MinCompletion: 4,
			TemplateBase: inference.TemplateBase, TemplatePerMessage: inference.TemplatePerMessage},
	}}}
	if s.service != nil {
		s.service(&service)
	}
	cfg := gateway.Config{Services: []gateway.Service{service}, Ledger: r.ledger, Keys: r.keys, Board: r.board, Prices: r.prices, Fleet: r.fleet,
		Profiles: r.profiles(s), Invoices: r.node, ProductText: "Sluice test", AdminToken: adminToken, Version: "test", Log: log, Clock: r.clock.now}
	if s.gateway != nil {
		s.gateway(&cfg)
	}
	var err error
	if r.gw, err = gateway.New(cfg); err != nil {
		r.t.Fatal(err)
	}
	server := intake.ServerConfig{Handler: r.gw.Handler(), Log: log}
	if s.server != nil {
		s.server(&server)
	}
	if r.srv, err = intake.NewServer(server); err != nil {
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

// profiles returns a profile for each backend with the setting of the test.
func (r *rig) profiles(s setup) map[string]format.Setting {
	settings := map[string]format.Setting{}
	for _, pool := range append(s.pools, gpu.PoolConfig{Model: testModel}) {
		for _, b := range r.fleet.Pool(pool.Model).Backends() {
			settings[b.Name()] = s.profile
		}
	}
	return settings
}

// buy opens an account and buys amount for it.
func (r *rig) buy(amount l402.Msat) token {
	r.t.Helper()
	return r.pay(r.do("POST", "/v1/chat/completions", "", header{"L402-Deposit-Msat": strconv.FormatInt(int64(amount), 10)}))
}

// until polls until done returns true, for what another process or goroutine does.
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

type (
	gpuBackend = gpu.BackendConfig
	gpuPool    = gpu.PoolConfig
)

// does returns the setting of a backend that counts tokens, if tokenize, and reports running usage,
// if continuous.
func does(tokenize, continuous bool) format.Setting {
	return format.Setting{Engine: format.EngineGeneric, Tokenize: &tokenize, ContinuousUsage: &continuous}
}

type gatewayService = gateway.Service

// metrics returns the operator's metrics.
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
