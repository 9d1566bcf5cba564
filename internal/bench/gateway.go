package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/internal/store/postgres"
	"sluice.example/sluice/internal/store/sqlite"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// gatewayPlan describes a gateway. Its parts are connected as in `gateway serve`, with the default
// configuration except for what configure sets. The gateway logs each request to a file.
type gatewayPlan struct {
	Store   string // URL of PostgreSQL, or path of an SQLite file
	Backend string // host:port
	// Accounts is how many paid tokens the gateway writes into the file Credentials. Each line is
	// the value of one Authorization header. The tokens are not credited in advance: as always, the
	// first request with a token credits its deposit.
	Accounts    int
	Credentials string
	Lightning   *lightning.Config // nil: the gateway cannot make invoices
	Profile     bool              // serve profiles, and sample waits for locks
}

// deposit is the credit of each account at the start, in msat. It is enough for all rounds.
const deposit l402.Msat = 1_000_000_000_000 // 10 bitcoin

// rates are prices at which every request costs something.
var rates = pricing.Rates{pricing.InputTokens: 1_000_000, pricing.OutputTokens: 4_000_000}

const serviceName = "bench"

// store is the interface that both databases implement.
type store interface {
	metering.Store
	pricer.Store
	Close() error
}

func openStore(ctx context.Context, name string) (store, error) {
	if strings.HasPrefix(name, "postgres:") {
		return postgres.Open(ctx, name)
	}
	return sqlite.Open(ctx, name)
}

func serveGateway(ctx context.Context, plan []byte, tell func(any) error) (err error) {
	var p gatewayPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return err
	}
	debug.SetGCPercent(200) // as `gateway serve` does
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	db, err := openStore(ctx, p.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	ledger, err := metering.Open(ctx, metering.Config{Store: db, Log: log})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), childGrace/2)
		defer cancel()
		err = errors.Join(err, ledger.Close(ctx))
	}()
	cfg, err := p.configure(ctx, ledger, pricer.NewRecord(db), log)
	if err != nil {
		return err
	}
	defer cfg.Fleet.Close()
	cfg.Fleet.Start(ctx)
	g, err := gateway.New(cfg)
	if err != nil {
		return err
	}
	srv, err := intake.NewServer(intake.ServerConfig{Handler: g.Handler(), Log: log})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	where := server{Addr: listener.Addr().String()}
	if p.Profile {
		if where.Pprof, err = serveProfiles(); err != nil {
			return err
		}
	}
	return serveUntil(ctx, srv, listener, tell, where)
}

// configure builds the parts of the gateway: keys that are bound to the ledger, a price in force,
// one backend, and the tokens.
func (p gatewayPlan) configure(ctx context.Context, ledger *metering.Ledger, prices *pricer.Record, log *slog.Logger) (cfg gateway.Config, err error) {
	key := l402.MasterKey{ID: "bench", State: l402.KeyMint}
	rand.Read(key.Secret[:])
	keys, err := l402.NewKeyring(ledger.ID(), []l402.MasterKey{key})
	if err != nil {
		return cfg, err
	}
	if err := ledger.BindKeys(ctx, [][32]byte{key.Fingerprint(ledger.ID())}); err != nil {
		return cfg, err
	}
	epoch, err := prices.PublishEpoch(ctx, pricing.Fixed(modelName, rates, time.Now()))
	if err != nil {
		return cfg, err
	}
	board := new(pricing.Board)
	board.Set(epoch)
	fleet, err := gpu.NewFleet(gpu.Config{
		Backends: []gpu.BackendConfig{{Name: "backend", URL: &url.URL{Scheme: "http", Host: p.Backend}, Slots: 4096}},
		Pools:    []gpu.PoolConfig{{Model: modelName, Backends: []string{"backend"}, QueueLimit: 4096, QueueTimeout: 30 * time.Second}},
		Log:      log,
	})
	if err != nil {
		return cfg, err
	}
	invoices, err := p.invoicer(log)
	if err != nil {
		return cfg, err
	}
	return gateway.Config{
		Services: []gateway.Service{{Name: serviceName, MinPurchase: 100 * l402.MsatPerSat, MaxPurchase: 100_000 * l402.MsatPerSat,
			Models: []gateway.Model{{Name: modelName, OwnedBy: "bench", Limits: format.Limits{
				ContextTokens: 8192, MaxCompletion: 1024, MinCompletion: 16, TemplateBase: 64, TemplatePerMessage: 16}}}}},
		Ledger: ledger, Keys: keys, Board: board, Prices: prices, Fleet: fleet, Invoices: invoices,
		// The limits on challenges are off, because all load comes from one address.
		Challenges:  new(intake.ChallengeLimits),
		ProductText: "prepaid credit for API calls", Version: "bench", Log: log,
	}, writeCredentials(p.Credentials, keys, p.Accounts)
}

// writeCredentials mints one token for each of many new accounts and writes the credentials to
// path. It does nothing when path is "".
func writeCredentials(path string, keys *l402.Keyring, accounts int) error {
	if path == "" {
		return nil
	}
	var text strings.Builder
	for range accounts {
		preimage := l402.NewPreimage()
		macaroon, err := keys.Mint(l402.MintParams{Service: serviceName, PaymentHash: preimage.Hash(), TokenID: l402.NewTokenID(),
			Deposit: deposit, ValidUntil: time.Now().Add(24 * time.Hour)})
		if err != nil {
			return err
		}
		text.WriteString(l402.FormatCredential(macaroon, preimage) + "\n")
	}
	return os.WriteFile(path, []byte(text.String()), 0o600)
}

// invoicer returns an invoicer for a real node, or noNode when the plan has no node.
func (p gatewayPlan) invoicer(log *slog.Logger) (gateway.Invoicer, error) {
	if p.Lightning == nil {
		return noNode{}, nil
	}
	cfg := *p.Lightning
	cfg.Log = log
	client, err := lightning.Dial(cfg) // stays open until this process ends
	return node{client}, err
}

var errNoNode = errors.New("this gateway has no Lightning node")

// noNode replaces a node where only paid requests are measured.
type noNode struct{}

func (noNode) AddInvoice(context.Context, gateway.Invoice) (string, error) { return "", errNoNode }
func (noNode) Ready(context.Context) error                                 { return errNoNode }

// node is a real Lightning node.
type node struct{ client *lightning.Client }

func (n node) AddInvoice(ctx context.Context, inv gateway.Invoice) (string, error) {
	return n.client.AddInvoice(ctx, lightning.Invoice{Preimage: inv.Preimage, Amount: inv.Amount, Memo: inv.Memo, Expiry: inv.Expiry})
}

func (n node) Ready(ctx context.Context) error { return n.client.Ready(ctx) }

// serveProfiles serves net/http/pprof on its own listener until this process ends.
func serveProfiles() (addr string, err error) {
	runtime.SetMutexProfileFraction(100)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	go func() { _ = http.Serve(listener, mux) }() // ends with the process
	return listener.Addr().String(), nil
}
