package conformance

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/internal/store/sqlite"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/apis"
	"sluice.example/sluice/pricing"
)

const service = "inference"

// These are the models of the gateway. All but one charge for tokens. The model that charges for
// GPU time has no bound before the answer, and an answer can use more than the balance.
const (
	modelTokens = "demo"
	modelTime   = "timed"
	modelDown   = "down" // its backend does not listen
)

// place is a running gateway with a scripted backend behind it. The test mints its tokens, so it
// needs no Lightning node.
type place struct {
	t    testing.TB
	url  string
	gw   *gateway.Gateway
	keys *l402.Keyring
}

// newPlace starts a place whose backend does what the prompt says. The place ends with the test.
func newPlace(t testing.TB) *place {
	t.Helper()
	return newPlaceBefore(t, func(p *place) http.Handler { return script{p} }, nil)
}

// newPlaceBefore starts a place with a backend that the test provides. profiles holds the known
// properties of the backend. With nil profiles the gateway asks the backend.
func newPlaceBefore(t testing.TB, backendOf func(*place) http.Handler, profiles map[string]format.Setting) *place {
	t.Helper()
	ctx := t.Context()
	p := &place{t: t}
	db, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "ledger.db"))
	must(t, err)
	t.Cleanup(func() { db.Close() })
	ledger, err := metering.Open(ctx, metering.Config{Store: db})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		ledger.Close(ctx)
	})
	p.keys, err = l402.NewKeyring(ledger.ID(), []l402.MasterKey{{ID: "test", State: l402.KeyMint, Secret: [32]byte{1, 2, 3}}})
	must(t, err)

	backend := httptest.NewServer(backendOf(p))
	t.Cleanup(backend.Close)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	fleet := newFleet(t, backend.URL, closed.URL)
	board, tokens, timed := new(pricing.Board), pricing.Rates{pricing.InputTokens: 1_000_000, pricing.OutputTokens: 2_000_000}, pricing.Rates{pricing.GPUMicros: 100_000}
	sold := gateway.Service{Name: service, MinPurchase: 10_000, MaxPurchase: 5_000_000, ForwardHeaders: []string{"X-Fault"}}
	for model, rates := range map[string]pricing.Rates{modelTokens: tokens, modelTime: timed, modelDown: tokens} {
		epoch := pricing.Fixed(model, rates, time.Now())
		epoch.ID = int64(len(sold.Models) + 1)
		board.Set(epoch)
		sold.Models = append(sold.Models, gateway.Model{Name: model, Base: rates, GPUSlice: 20 * time.Millisecond,
			Formats: apis.Names(), Limits: format.Limits{ContextTokens: 8192, MaxCompletion: 256, MinCompletion: 4}})
	}
	p.gw, err = gateway.New(gateway.Config{Services: []gateway.Service{sold}, Ledger: ledger, Keys: p.keys, Board: board, Prices: pricer.NewRecord(db), Fleet: fleet, Profiles: profiles, Invoices: cashier{}})
	must(t, err)
	server, err := intake.NewServer(intake.ServerConfig{Handler: p.gw.Handler()})
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	p.url = "http://" + listener.Addr().String() + "/v1"
	return p
}

func newFleet(t testing.TB, up, down string) *gpu.Fleet {
	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "test", Sampler: halfBusy{}, Every: 20 * time.Millisecond})
	go feed.Run(t.Context())
	for deadline := time.Now().Add(10 * time.Second); feed.Latest().At.IsZero(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no reading of the GPU")
		}
	}
	backend := func(name, address string, models ...string) gpu.BackendConfig {
		u, err := url.Parse(address)
		must(t, err)
		b := gpu.BackendConfig{Name: name, URL: u, Slots: 32, Models: map[string]string{}, GPUs: []gpu.GPU{{Feed: feed, Device: "GPU-1"}}}
		for _, m := range models {
			b.Models[m] = m
		}
		return b
	}
	pool := func(model, backend string) gpu.PoolConfig {
		return gpu.PoolConfig{Model: model, QueueLimit: 8, QueueTimeout: 5 * time.Second, Backends: []string{backend}}
	}
	fleet, err := gpu.NewFleet(gpu.Config{
		Backends: []gpu.BackendConfig{backend("up", up, modelTokens, modelTime), backend("down", down, modelDown)},
		Pools:    []gpu.PoolConfig{pool(modelTokens, "up"), pool(modelTime, "up"), pool(modelDown, "down")},
	})
	must(t, err)
	fleet.Start(t.Context())
	t.Cleanup(fleet.Close)
	return fleet
}

// halfBusy is a GPU that always runs at half of its power.
type halfBusy struct{}

func (halfBusy) Sample(context.Context) (telemetry.Reading, error) {
	d := telemetry.NewDevice("GPU-1")
	d.Utilization = 0.5
	return telemetry.Reading{Devices: []telemetry.Device{d}}, nil
}

// cashier makes invoices that nobody can pay.
type cashier struct{}

func (cashier) AddInvoice(_ context.Context, invoice gateway.Invoice) (string, error) {
	return fmt.Sprintf("lnbcrt%dn1p%s", int64(invoice.Amount)/100, invoice.Preimage.Hash()), nil
}

func (cashier) Ready(context.Context) error { return nil }

// key returns a paid credential with this credit, in the form of an API key.
func (p *place) key(credit l402.Msat, conditions ...string) string {
	p.t.Helper()
	preimage := l402.NewPreimage()
	m, err := p.keys.Mint(l402.MintParams{Service: service, PaymentHash: preimage.Hash(), TokenID: l402.NewTokenID(), Deposit: credit,
		ValidUntil: time.Now().Add(time.Hour)})
	must(p.t, err)
	if len(conditions) > 0 {
		m, err = l402.Attenuate(m, conditions...)
		must(p.t, err)
	}
	return strings.TrimPrefix(l402.FormatCredential(m, preimage), "L402 ")
}

// begun returns the number of answers whose first byte was sent to a client.
func (p *place) begun() string {
	w := httptest.NewRecorder()
	p.gw.AdminHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.SplitSeq(w.Body.String(), "\n") {
		if count, ok := strings.CutPrefix(line, `sluice_first_byte_seconds_count{model="`+modelTokens+`"} `); ok {
			return count
		}
	}
	return "0"
}

// drain shuts the gateway down at once, so that open answers are cut.
func (p *place) drain() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.gw.Drain(ctx) // this test does not check whether all answers were settled in time
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
