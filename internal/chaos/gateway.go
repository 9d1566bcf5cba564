package chaos

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"sluice.example/sluice/internal/devnet/loopback"
	"sluice.example/sluice/internal/devnet/proc"
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

// What the two models cost. The model "demo" costs 1 msat for a token of the
// prompt and 4 for one of the answer.
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
	URL string

	site    *Site
	dir     string
	process *proc.Process
	http    *http.Client
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
			t.Logf("the log of the gateway at %s ends with:\n%s", g.URL, g.process.Tail(25))
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
	g := &Gateway{
		Settings: settings, URL: "http://" + settings.listen, site: s, dir: t.TempDir(),
		http: &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256}},
	}
	t.Cleanup(g.http.CloseIdleConnections)
	return g
}

// Config is the path of the configuration file.
func (g *Gateway) Config() string { return filepath.Join(g.dir, "gateway.yaml") }

// Path is a file in the gateway's own folder.
func (g *Gateway) Path(name string) string { return filepath.Join(g.dir, name) }

// Write writes the configuration as the settings are now.
func (g *Gateway) Write() error {
	f, err := os.OpenFile(g.Config(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(configuration.Execute(f, g.Settings), f.Close())
}

func (g *Gateway) start() (err error) {
	if err := g.Write(); err != nil {
		return err
	}
	g.process, err = g.site.launcher.Start(proc.Spec{
		Name: "gateway", Path: g.site.program(), Args: []string{"serve", "--config", g.Config()}, Log: g.Path("gateway.log"),
	})
	if err != nil {
		return err
	}
	return g.awaitReady(30 * time.Second)
}

func (g *Gateway) awaitReady(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		err := g.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-g.process.Done():
			return g.process.Exit()
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the gateway is not ready: %w; its log ends with:\n%s", err, g.process.Tail(25))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Ready reports why /readyz does not answer 200.
func (g *Gateway) Ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	a, err := g.Do(ctx, http.MethodGet, "/readyz", "", nil)
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK {
		return fmt.Errorf("status %d: %s", a.Status, a.Body)
	}
	return nil
}

// Running says whether the process has not ended.
func (g *Gateway) Running() bool {
	select {
	case <-g.process.Done():
		return false
	default:
		return true
	}
}

// Pid is the process.
func (g *Gateway) Pid() int { return g.process.Pid() }

// Kill ends the process as the kernel does (SIGKILL).
func (g *Gateway) Kill(t testing.TB) {
	t.Helper()
	g.signal(t, syscall.SIGKILL)
	<-g.process.Done()
}

// Pause stops the process where it stands (SIGSTOP).
func (g *Gateway) Pause(t testing.TB) { t.Helper(); g.signal(t, syscall.SIGSTOP) }

// Resume lets it go on (SIGCONT).
func (g *Gateway) Resume(t testing.TB) { t.Helper(); g.signal(t, syscall.SIGCONT) }

func (g *Gateway) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(g.process.Pid(), s); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
}

// Stop ends it as an operator does and wants exit status 0.
func (g *Gateway) Stop() error {
	if err := g.process.Stop(40 * time.Second); err != nil {
		return err
	}
	if exit := g.process.Exit(); !strings.Contains(exit.Error(), "(exit status 0)") {
		return exit
	}
	return nil
}

// Restart starts it again, with what the settings say now.
func (g *Gateway) Restart(t testing.TB, edits ...func(*Settings)) {
	t.Helper()
	for _, edit := range edits {
		edit(&g.Settings)
	}
	g.http.CloseIdleConnections()
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
	out, err := exec.CommandContext(ctx, g.site.program(), "serve", "--config", g.Config()).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), message) {
		t.Errorf("serve: %v, want exit status 1 and %q:\n%s", err, message, out)
	}
}

// VerifyLedger runs the operator's check and returns what it prints.
func (g *Gateway) VerifyLedger() (string, error) {
	out, err := exec.Command(g.site.program(), "verify-ledger", "--config", g.Config()).CombinedOutput()
	if err == nil && !strings.Contains(string(out), "all agrees") {
		err = errors.New("it does not say that all agrees")
	}
	if err != nil {
		return string(out), fmt.Errorf("verify-ledger: %w\n%s", err, out)
	}
	return string(out), nil
}

// Verify wants verify-ledger to find nothing. Payments that lnd has settled and
// the stream has not brought yet get a moment.
func (g *Gateway) Verify(t testing.TB) {
	t.Helper()
	Eventually(t, 15*time.Second, "the books agree", func() error {
		_, err := g.VerifyLedger()
		return err
	})
}

// Keyring is the gateway's own, for tokens that would take a year to come by.
func (g *Gateway) Keyring(t testing.TB) *l402.Keyring {
	t.Helper()
	out, err := g.VerifyLedger()
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
