package chaos

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet"
	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/l402"
)

// another is a second network, of one test alone: another node with nothing in
// its database.
func another(t *testing.T) *Till {
	t.Helper()
	n, err := devnet.Start(t.Context(), devnet.Config{Dir: t.TempDir(), Out: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	return Meet(t, n)
}

// credited waits until an account has been credited that much in all, seen by a
// credential that was not the last one paid: the node's word alone does it.
func credited(t *testing.T, g *Gateway, k Credential, deposited int64) {
	t.Helper()
	labtest.Eventually(t, 30*time.Second, fmt.Sprintf("%d msat are credited", deposited), func() error {
		b, err := g.TryBalance(k)
		if err == nil && b.Deposited != deposited {
			err = fmt.Errorf("deposited %d msat", b.Deposited)
		}
		return err
	})
}

// TestNode replaces the Lightning node by a new one, then stops that, then loses its disk.
func TestNode(t *testing.T) {
	t.Parallel()
	till, backend := meet(t), quick(t)
	next := another(t)
	t.Run("replaced", func(t *testing.T) { replaced(t, till, next, till.Settings(backend.URL)) })
	t.Run("stopped", func(t *testing.T) { stopped(t, next, next.Settings(backend.URL)) })
	t.Run("rebuilt", func(t *testing.T) { replanted(t, next, next.Settings(backend.URL)) })
}

func replaced(t *testing.T, old, next *Till, settings Settings) {
	g := site.Gateway(t, settings)
	k := old.Buy(t, g, 20_000)
	old.TopUp(t, g, k, 5000)
	credited(t, g, k, 25_000)
	g.Ask(t, http.MethodPost, ChatPath, Chat("flat", 4, false), k.Header()).Want(t, http.StatusOK)
	g.Verify(t)
	if err := g.Stop(); err != nil {
		t.Fatal(err)
	}

	n := next.Network.Gateway
	g.Restart(t, func(s *Settings) { s.Node = Node{n.GRPC, n.TLSCertPath, n.InvoiceMacaroonPath} })
	if b := g.Balance(t, k); b.Available != 25_000-FlatPrice {
		t.Errorf("on the new node the balance is %+v", b)
	}
	g.Ask(t, http.MethodPost, ChatPath, Chat("flat", 4, false), k.Header()).Want(t, http.StatusOK)
	next.TopUp(t, g, k, 6000) // the new node's first settlement
	credited(t, g, k, 31_000)
	fresh := next.Buy(t, g, 7000)
	if b := g.Balance(t, fresh); b.Available != 7000 {
		t.Errorf("a purchase on the new node: %+v", b)
	}
	g.Verify(t)

	// What is paid while the gateway is away is credited when it is back.
	challenge := g.Ask(t, http.MethodPost, "/l402/topup", `{"amount_msat":8000}`, k.Header())
	if err := g.Stop(); err != nil {
		t.Fatal(err)
	}
	next.Pay(t, challenge)
	g.Restart(t)
	credited(t, g, k, 39_000)
	g.Verify(t)

	// Back at the old one, which remembers more than it did.
	if err := g.Stop(); err != nil {
		t.Fatal(err)
	}
	g.Restart(t, func(s *Settings) { s.Node = settings.Node })
	old.TopUp(t, g, k, 4000)
	credited(t, g, k, 43_000)
	if b := g.Idle(t, k, 5*time.Second); b.Charged != 2*FlatPrice {
		t.Errorf("in the end: %+v", b)
	}
	g.Verify(t)
	strangers(t, g, settings)
}

// strangers are gateways with the right keys and the wrong database, or the
// other way round: they refuse to start, and say why.
func strangers(t *testing.T, g *Gateway, settings Settings) {
	t.Helper()
	out, err := g.VerifyLedger(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(out, "ledger ")
	id, _, _ = strings.Cut(id, ":")
	other := settings
	other.Keys = []l402.MasterKey{NewKey("other")}
	owner := site.Gateway(t, other) // of a ledger with other keys

	// A SQLite file is one gateway's, and a database may be away.
	wrong := settings
	wrong.Store = "sqlite:" + g.Path("ledger.db")
	site.Prepare(t, wrong).Refuses(t, "open ledger")
	wrong.Store = "postgres://nobody@127.0.0.1:1/nothing"
	site.Prepare(t, wrong).Refuses(t, "open ledger")

	if err := errors.Join(g.Stop(), owner.Stop()); err != nil {
		t.Fatal(err)
	}
	wrong = settings
	wrong.Store = "sqlite:" + owner.Path("ledger.db")
	site.Prepare(t, wrong).Refuses(t, "do not belong")
	wrong = other
	wrong.Store = "sqlite:" + g.Path("ledger.db")
	site.Prepare(t, wrong).Refuses(t, "do not belong")
	// An empty database is a new ledger, for a gateway that does not say which it
	// has to be.
	wrong = settings
	wrong.LedgerID = id
	site.Prepare(t, wrong).Refuses(t, "this database holds ledger")
}

// stopped takes the node away for a while under load: what is paid for goes on,
// purchases are refused cleanly, and afterwards nothing is lost.
func stopped(t *testing.T, till *Till, settings Settings) {
	g := site.Gateway(t, settings)
	accounts := buyMany(t, till, g, 4, 1_000_000)
	k := accounts[0]
	before := g.Ask(t, http.MethodPost, "/l402/topup", `{"amount_msat":9000}`, k.Header()).Want(t, http.StatusPaymentRequired)
	load := Start(Plan{Gateways: []*Gateway{g}, Accounts: accounts[1:], Callers: 4, Asks: []string{Chat("demo", 16, true)}})
	load.AwaitPaid(t, 0, 4, 30*time.Second)
	if thorough() { // not in good order
		signal(t, syscall.SIGKILL, till.Network.Gateway.Pid())
	}
	if err := till.Network.Gateway.Stop(); err != nil {
		t.Fatal(err)
	}
	back := time.Now().Add(either(30*time.Second, 8*time.Second))
	refused := 0
	for time.Now().Before(back) {
		began := time.Now()
		a := g.Ask(t, http.MethodPost, "/l402/topup", `{"amount_msat":4000}`, accounts[1].Header())
		if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || !strings.Contains(string(a.Body), "lightning-unavailable") {
			t.Fatalf("without the node a top-up is answered %d: %s", a.Status, a.Body)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the refusal took %s", took)
		}
		refused++
		load.AwaitPaid(t, 0, 4, 10*time.Second)
		time.Sleep(200 * time.Millisecond)
	}
	if g.Ready(t.Context()) == nil {
		t.Error("the gateway says that it is ready without its node")
	}
	if err := till.Network.Gateway.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, 30*time.Second, "the gateway is ready again", func() error { return g.Ready(t.Context()) })
	seen := load.Stop()
	WantClean(t, seen)
	t.Logf("%s; %d top-ups refused", Summary(seen), refused)
	// An invoice from before is paid, and credited by the node's word.
	till.Pay(t, before)
	credited(t, g, k, 1_009_000)
	if b := g.Balance(t, till.Buy(t, g, 5000)); b.Available != 5000 {
		t.Errorf("a purchase afterwards: %+v", b)
	}
	Reconcile(t, shifted(seen), g, accounts...)
}

// shifted are requests of a load over all accounts but the first.
func shifted(seen []Seen) []Seen {
	for i := range seen {
		seen[i].Account++
	}
	return seen
}
