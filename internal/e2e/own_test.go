package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"

	"sluice.example/sluice/internal/devnet/inference"
	driver "sluice.example/sluice/internal/lab"
	"sluice.example/sluice/internal/lab/loopback"
)

// masterKey is one key of a configuration.
type masterKey struct{ ID, State, Secret string }

func newKey(id string) masterKey {
	var secret [32]byte
	rand.Read(secret[:])
	return masterKey{id, "mint", hex.EncodeToString(secret[:])}
}

// setup is how a gateway of a test is configured. Amounts and times are in the
// configuration's own words.
type setup struct {
	Dir            string // keeps all of its files
	Listen, Admin  string
	Token          string
	Store          string
	Keys           []masterKey
	LND            nodeFacts
	Service        string
	Lifetime       string
	Lease, Renew   string
	Drain          string
	Cert, Key      string // of the TLS listener
	BackendURL     string
	Sale           string // models, more services and backends; else one model
	InvoiceTimeout string
}

// saleOfOne sells the model demo from one backend.
const saleOfOne = `    models:
      - {name: demo, backends: [one], context_tokens: 4096, max_completion_tokens: 256, min_completion_tokens: 8, prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok}}
backends:
  - {name: one, url: «BACKEND», slots: 64, tokenize: true, continuous_usage: true}
`

var configuration = template.Must(template.New("gateway.yaml").Parse(`listen: {{.Listen}}
{{if .Cert}}tls: {cert: {{.Cert}}, key: {{.Key}}}
{{end}}admin: {listen: {{.Admin}}, token: {{.Token}}}
store: {{.Store}}
keys:
{{range .Keys}}  - {id: {{.ID}}, state: {{.State}}, secret: {{.Secret}}}
{{end}}lightning:
  grpc: {{.LND.GRPC}}
  tls_cert: {{.LND.TLSCert}}
  macaroon: {{.LND.Macaroon}}
  timeout: {{.InvoiceTimeout}}
  memo: End-to-end test
ledger: {lease: {{.Lease}}, renew: {{.Renew}}}
drain_timeout: {{.Drain}}
services:
  - name: {{.Service}}
    min_purchase: 4 sat
    max_purchase: 10000 sat
    token_lifetime: {{.Lifetime}}
    forward_headers: [X-Fault, X-Case]
{{.Sale}}`))

// own is a gateway process of a test's own.
type own struct {
	*gateway
	setup
	server *driver.Server
	config string
}

// newSetup is a gateway in dir on the demo's lnd, with a key and a ledger of
// its own.
func newSetup(dir string) setup {
	return setup{
		Dir: dir, Token: rand.Text(), Store: "sqlite:ledger.db", Keys: []masterKey{newKey("first")}, LND: demo.LND["gateway"],
		Service: "inference", Lifetime: "365d", Lease: "15s", Renew: "5s", Drain: "30s", BackendURL: demo.BackendURL,
		Sale: saleOfOne, InvoiceTimeout: "10s",
	}
}

// startGateway starts a gateway for one test and ends it with the test, which
// must go in good order.
func startGateway(t testing.TB, edits ...func(*setup)) *own {
	t.Helper()
	s := newSetup(t.TempDir())
	for _, edit := range edits {
		edit(&s)
	}
	g, err := serve(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway's log ends with:\n%s", g.server.Process().Tail(40))
		}
		if g.server.Running() {
			if err := g.stop(); err != nil {
				t.Error(err)
			}
		}
	})
	return g
}

// serve writes the configuration and starts `gateway serve`, until it is ready.
func serve(s setup) (*own, error) {
	var err error
	for range 3 { // a port that was free may be taken a moment later
		if s.Listen, err = loopback.FreeAddress(); err != nil {
			return nil, err
		}
		if s.Admin, err = loopback.FreeAddress(); err != nil {
			return nil, err
		}
		var g *own
		if g, err = launch(s); err == nil || !strings.Contains(err.Error(), "address already in use") {
			return g, err
		}
	}
	return nil, err
}

func launch(s setup) (*own, error) {
	scheme := "http://"
	if s.Cert != "" {
		scheme = "https://"
	}
	g := &own{gateway: newGateway(scheme+s.Listen, "http://"+s.Admin, s.Token), setup: s, config: filepath.Join(s.Dir, "gateway.yaml")}
	g.server = newServer(g.Gateway, g.config, filepath.Join(s.Dir, "gateway.log"))
	if err := g.write(); err != nil {
		return nil, err
	}
	return g, g.server.Start(context.Background())
}

// write writes the configuration as the setup has it now.
func (g *own) write() error {
	s := g.setup
	s.Sale = strings.ReplaceAll(s.Sale, "«BACKEND»", s.BackendURL)
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(g.config, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return configuration.Execute(f, s)
}

// newServer is a gateway of this build that is not started.
func newServer(g *driver.Gateway, config, log string) *driver.Server {
	return &driver.Server{Gateway: g, Launcher: launcher, Program: filepath.Join(binaries, "gateway"), Config: config, Log: log}
}

// stop ends the gateway as an operator does and wants a clean end.
func (g *own) stop() error { return g.server.Stop() }

// kill ends it as the kernel does.
func (g *own) kill(t testing.TB) {
	t.Helper()
	g.signal(t, syscall.SIGKILL)
	<-g.server.Process().Done()
}

func (g *own) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := g.server.Process().Signal(s); err != nil {
		t.Fatal(err)
	}
}

// restart starts it again, with what the setup says now.
func (g *own) restart(t testing.TB, edits ...func(*setup)) {
	t.Helper()
	for _, edit := range edits {
		edit(&g.setup)
	}
	if err := g.write(); err != nil {
		t.Fatal(err)
	}
	if err := g.server.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// verify wants the operator's check to find nothing.
func (g *own) verify(t testing.TB) {
	t.Helper()
	if err := verifyLedger(g.config); err != nil {
		t.Error(err)
	}
}

// startInference runs an inference server in this process and returns its URL.
func startInference(ctx context.Context, cfg inference.Config) (*inference.Server, string, error) {
	s, err := inference.New(cfg)
	if err != nil {
		return nil, "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	go s.Serve(ctx, l)
	return s, "http://" + l.Addr().String(), nil
}
