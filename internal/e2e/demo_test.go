package e2e

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/internal/lab/proc"
)

// TestDemoTellsItsFacts reads demo.json as a script would.
func TestDemoTellsItsFacts(t *testing.T) {
	t.Parallel()
	info, err := os.Stat(filepath.Join(demo.dir, "demo.json"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.FileMode(0o600) {
		t.Errorf("demo.json has mode %s, want -rw-------", info.Mode())
	}
	for name, value := range map[string]string{
		"gateway_url": demo.GatewayURL, "admin_url": demo.AdminURL, "admin_token": demo.AdminToken, "service": demo.Service,
		"model": demo.Model, "backend_url": demo.BackendURL,
	} {
		if value == "" || strings.HasSuffix(value, "/") {
			t.Errorf("%s is %q", name, value)
		}
	}
	if len(demo.GatewayURLs) != 1 || demo.GatewayURLs[0] != demo.GatewayURL {
		t.Errorf("gateway_urls is %q", demo.GatewayURLs)
	}
	paths := []string{demo.GatewayConfig, demo.AgentConfig}
	for _, role := range []string{"agent", "gateway"} {
		node := demo.LND[role]
		if node.GRPC == "" {
			t.Errorf("lnd.%s has no grpc", role)
		}
		paths = append(paths, node.TLSCert, node.Macaroon)
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil || !filepath.IsAbs(path) {
			t.Errorf("path %q: %v", path, err)
		}
	}
	for _, role := range []string{"demo", "gateway", "backend", "gpu_exporter", "btcd", "lnd_gateway", "lnd_agent"} {
		if pid := demo.PIDs[role]; pid == 0 || !proc.Alive(pid) {
			t.Errorf("pids.%s is %d, which does not run", role, pid)
		}
	}
	if got := demo.operator(t, http.MethodGet, "/admin/status"); got.status != http.StatusOK {
		t.Errorf("admin_token is refused: %d", got.status)
	}
	story, err := os.ReadFile(demo.dir + ".log")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"402 Payment Required", "msat over the channel", "This GPU is simulated", "ceiling", "a new caller's 402", "gets a 412",
		"back at its floor", "they agree to the msat", "all agrees"} {
		if !strings.Contains(string(story), part) {
			t.Errorf("the story does not tell %q:\n%s", part, story)
		}
	}
}

// TestDemoKeepsOffForeignFolders starts no demo where it would wipe somebody's
// files.
func TestDemoKeepsOffForeignFolders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mine := filepath.Join(dir, "ledger.db")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(binaries, "gateway"), "demo", "--once", "--dir", dir).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), "empty folder") {
		t.Errorf("demo in a foreign folder: %v\n%s", err, out)
	}
	if content, err := os.ReadFile(mine); string(content) != "mine" {
		t.Errorf("a foreign file was touched: %q, %v", content, err)
	}
}

// TestDemoSurvivesItsParts takes a demo of its own apart: its gateway is killed
// and started again, its seller's lnd stands still for a while, and at last the
// demo itself is killed.
func TestDemoSurvivesItsParts(t *testing.T) {
	t.Parallel()
	d, err := startDemo(filepath.Join(t.TempDir(), "demo"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.process.Kill)
	payer, err := openWallet(d.LND["agent"])
	if err != nil {
		t.Fatal(err)
	}
	k := payer.pay(t, d.post(t, "", header("L402-Deposit-Msat", "20000")).challenge(t))
	before := d.post(t, chat(), k.header()).want(t, http.StatusOK).msat(t, "L402-Balance-Msat")

	d.replaceGateway(t)
	if b := d.balance(t, k); b.Available != before || !proc.Alive(d.PIDs["demo"]) {
		t.Errorf("after a restart of the gateway %d msat are left of %d; demo alive: %t", b.Available, before, proc.Alive(d.PIDs["demo"]))
	}
	d.standStill(t, k, payer)

	if err := syscall.Kill(d.PIDs["demo"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, 10*time.Second, "all of the demo's processes end with it", func() error {
		for role, pid := range d.PIDs {
			if proc.Alive(pid) {
				return fmt.Errorf("%s still runs", role)
			}
		}
		return nil
	})
}

// replaceGateway kills the demo's gateway and starts one on the same files.
func (d *demonstration) replaceGateway(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(d.PIDs["gateway"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, 5*time.Second, "the gateway is gone", func() error {
		if proc.Alive(d.PIDs["gateway"]) {
			return fmt.Errorf("it still runs")
		}
		return nil
	})
	s := newServer(d.Gateway, d.GatewayConfig, filepath.Join(t.TempDir(), "gateway.log"))
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Process().Kill)
}

// standStill stops the seller's lnd for some seconds: who has a balance goes on,
// who has none is told to come back, and all is well afterwards.
func (d *demonstration) standStill(t *testing.T, k credential, payer *wallet) {
	t.Helper()
	lnd := d.PIDs["lnd_gateway"]
	if err := syscall.Kill(lnd, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	restored := false
	restore := func() {
		if !restored {
			restored = true
			syscall.Kill(lnd, syscall.SIGCONT)
		}
	}
	defer restore()
	d.post(t, chat(), k.header()).want(t, http.StatusOK)
	refused := d.post(t, chat(), nil)
	refused.wantProblem(t, http.StatusServiceUnavailable, "lightning-unavailable")
	if refused.header.Get("Retry-After") == "" {
		t.Error("no Retry-After while lnd is away")
	}
	labtest.Eventually(t, 10*time.Second, "/readyz names lightning", func() error {
		a := d.do(t, http.MethodGet, "/readyz", "", nil)
		parts := decode[struct{ Parts map[string]string }](t, a.body).Parts
		if a.status != http.StatusServiceUnavailable || parts["lightning"] == "ok" || parts["store"] != "ok" || parts["backends"] != "ok" {
			return fmt.Errorf("status %d, %s", a.status, a.body)
		}
		return nil
	})
	d.do(t, http.MethodGet, "/healthz", "", nil).want(t, http.StatusOK)
	restore()
	var a *answer
	labtest.Eventually(t, 30*time.Second, "challenges are given again", func() error {
		if a = d.post(t, chat(), nil); a.status != http.StatusPaymentRequired {
			return fmt.Errorf("status %d", a.status)
		}
		return nil
	})
	fresh := payer.pay(t, a.challenge(t))
	labtest.Eventually(t, 20*time.Second, "the stream of settled invoices is back", func() error {
		view := decode[struct {
			Deposited int64 `json:"deposited_msat"`
		}](t, d.operator(t, http.MethodGet, "/admin/accounts/"+fresh.id.TokenID.String()).body)
		if view.Deposited != fresh.paid {
			return fmt.Errorf("%d msat are credited without presentation", view.Deposited)
		}
		return nil
	})
	labtest.Eventually(t, 10*time.Second, "/readyz is well", func() error {
		if a := d.do(t, http.MethodGet, "/readyz", "", nil); a.status != http.StatusOK {
			return fmt.Errorf("%s", a.body)
		}
		return nil
	})
}
