package chaos

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"sluice.example/sluice/internal/lab"
	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/internal/lab/loopback"
	"sluice.example/sluice/l402"
)

// Settings is how a gateway is configured. Durations are in the configuration's
// own words.
type Settings struct {
	Store      string // sqlite:PATH or a PostgreSQL URL
	LedgerID   string // hex; empty: any
	Keys       []l402.MasterKey
	Node       Node
	BackendURL string
	Lease      string // renewed every third of it
	Renew      string
	Slots      int    // of the backend, and places in the queue of each model ×4
	Output     string // price of the answers of "demo"; empty: 4000 sat/Mtok
	More       []Model

	listen, admin string
}

// Model is one more model, with a backend and a queue of its own and the prices
// of "demo".
type Model struct {
	Name, URL    string
	Slots, Queue int
}

// Node is how to reach an lnd.
type Node struct{ GRPC, TLSCert, Macaroon string }

// NewKey is a fresh master key that mints.
func NewKey(id string) l402.MasterKey {
	k := l402.MasterKey{ID: id, State: l402.KeyMint}
	rand.Read(k.Secret[:])
	return k
}

// FlatPrice is what a call of the model "flat" costs, in msat: its hold and its
// charge.
const FlatPrice = 500

// configuration sells two models. The model "demo" costs 1 msat for a token
// of the prompt and 4 for one of the answer.
var configuration = template.Must(template.New("gateway.yaml").Funcs(template.FuncMap{
	"quote": func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
	"hex":   func(k l402.MasterKey) string { return hex.EncodeToString(k.Secret[:]) },
}).Parse(`listen: {{.S.Listen}}
admin: {listen: {{.S.Admin}}}
store: {{quote .Store}}
keys:
{{range .Keys}}  - {id: {{.ID}}, state: {{.State}}, secret: {{quote (hex .)}}}
{{end}}lightning: {grpc: {{quote .Node.GRPC}}, tls_cert: {{quote .Node.TLSCert}}, macaroon: {{quote .Node.Macaroon}}, memo: Chaos}
ledger: {lease: {{.Lease}}, renew: {{.Renew}}{{with .LedgerID}}, id: {{quote .}}{{end}}}
services:
  - name: inference
    min_purchase: 4 sat
    max_purchase: 100000 sat
    models:
      - {name: demo, backends: [one], context_tokens: 4096, max_completion_tokens: 1024, min_completion_tokens: 8, pricing: {policy: static}, prices: {input: 1000 sat/Mtok, output: {{or .Output "4000 sat/Mtok"}}}, queue: {limit: {{.S.Queue}}, timeout: 30s}}
      - {name: flat, backends: [one], context_tokens: 4096, max_completion_tokens: 1024, pricing: {policy: static}, prices: {call: 500 msat}, queue: {limit: {{.S.Queue}}, timeout: 30s}}
{{range .More}}      - {name: {{.Name}}, backends: [{{.Name}}], context_tokens: 4096, max_completion_tokens: 1024, min_completion_tokens: 8, pricing: {policy: static}, prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok}, queue: {limit: {{.Queue}}, timeout: 30s}}
{{end}}backends:
  - {name: one, url: {{quote .BackendURL}}, slots: {{.Slots}}, tokenize: true, continuous_usage: true, models: {flat: demo}}
{{range .More}}  - {name: {{.Name}}, url: {{quote .URL}}, slots: {{.Slots}}, tokenize: true, continuous_usage: true, models: { {{.Name}}: demo}}
{{end}}`))

// S is what the configuration's text needs besides the settings.
type derived struct {
	Listen, Admin string
	Queue         int
}

// S derives the rest of the configuration.
func (s Settings) S() derived { return derived{s.listen, s.admin, 4 * s.Slots} }

// Gateway is one `gateway serve`.
type Gateway struct {
	Settings
	*lab.Server

	site *Site
	dir  string
}

// Gateway starts a gateway and waits until it is ready. It is stopped with the
// test, and must then end in good order.
func (s *Site) Gateway(t testing.TB, settings Settings) *Gateway {
	t.Helper()
	g := s.Prepare(t, settings)
	err := g.start()
	for range 2 { // an address that was free may be taken a moment later
		if err != nil && strings.Contains(err.Error(), "address already in use") {
			g = s.Prepare(t, settings)
			err = g.start()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of the gateway at %s ends with:\n%s", g.URL, g.Process().Tail(25))
		}
		if g.Running() {
			g.Resume(t) // a test that failed may have left it paused
			if err := g.Stop(); err != nil {
				t.Error(err)
			}
		}
	})
	return g
}

// Prepare writes a gateway's configuration and starts nothing.
func (s *Site) Prepare(t testing.TB, settings Settings) *Gateway {
	t.Helper()
	var err error
	if settings.listen, err = loopback.FreeAddress(); err != nil {
		t.Fatal(err)
	}
	if settings.admin, err = loopback.FreeAddress(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	g := &Gateway{Settings: settings, site: s, dir: dir, Server: &lab.Server{
		Gateway:  lab.NewGateway("http://"+settings.listen, "http://"+settings.admin, ""),
		Launcher: s.launcher, Program: s.program(), Config: filepath.Join(dir, "gateway.yaml"), Log: filepath.Join(dir, "gateway.log"),
	}}
	t.Cleanup(g.HTTP.CloseIdleConnections)
	return g
}

// Path is a file in the gateway's own folder.
func (g *Gateway) Path(name string) string { return filepath.Join(g.dir, name) }

// Write writes the configuration as the settings are now.
func (g *Gateway) Write() error {
	f, err := os.OpenFile(g.Config, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(configuration.Execute(f, g.Settings), f.Close())
}

// start starts the site's program with what the settings say now.
func (g *Gateway) start() error {
	if err := g.Write(); err != nil {
		return err
	}
	g.Program = g.site.program()
	return g.Start(context.Background())
}

// Pid is the process.
func (g *Gateway) Pid() int { return g.Process().Pid() }

// Kill ends the process as the kernel does (SIGKILL).
func (g *Gateway) Kill(t testing.TB) {
	t.Helper()
	g.signal(t, syscall.SIGKILL)
	<-g.Process().Done()
}

// Pause stops the process where it stands (SIGSTOP).
func (g *Gateway) Pause(t testing.TB) { t.Helper(); g.signal(t, syscall.SIGSTOP) }

// Resume lets it go on (SIGCONT).
func (g *Gateway) Resume(t testing.TB) { t.Helper(); g.signal(t, syscall.SIGCONT) }

func (g *Gateway) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := g.Process().Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Restart starts it again, with what the settings say now.
func (g *Gateway) Restart(t testing.TB, edits ...func(*Settings)) {
	t.Helper()
	for _, edit := range edits {
		edit(&g.Settings)
	}
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
}

// Refuses runs `gateway serve` and wants it to end with status 1 and a message.
func (g *Gateway) Refuses(t testing.TB, message string) {
	t.Helper()
	if err := g.Write(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, g.site.program(), "serve", "--config", g.Config).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), message) {
		t.Errorf("serve: %v, want exit status 1 and %q:\n%s", err, message, out)
	}
}

// Verify wants verify-ledger to find nothing. Payments that lnd has settled and
// the stream has not brought yet get a moment.
func (g *Gateway) Verify(t testing.TB) {
	t.Helper()
	labtest.Eventually(t, 15*time.Second, "the books agree", func() error {
		_, err := g.VerifyLedger(context.Background())
		return err
	})
}

// Keyring is the gateway's own, for tokens that would take a year to come by.
func (g *Gateway) Keyring(t testing.TB) *l402.Keyring {
	t.Helper()
	out, err := g.VerifyLedger(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(out, "ledger ")
	text, _, _ := strings.Cut(rest, ":")
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(l402.LedgerID{}) {
		t.Fatalf("verify-ledger does not name the ledger:\n%s", out)
	}
	ring, err := l402.NewKeyring(l402.LedgerID(raw), g.Keys)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}
