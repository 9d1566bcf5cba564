package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/l402"
)

// deposited is what the operator sees of an account, without anybody
// presenting its token.
func (g *gateway) deposited(t testing.TB, id l402.TokenID) int64 {
	t.Helper()
	a := g.operator(t, http.MethodGet, "/admin/accounts/"+id.String()).want(t, http.StatusOK)
	return decode[balance](t, a.body).Deposited
}

// wantDeposited waits until the account was credited with exactly amount.
func (g *gateway) wantDeposited(t testing.TB, id l402.TokenID, amount int64) {
	t.Helper()
	labtest.Eventually(t, 20*time.Second, "the payment is credited without presentation", func() error {
		if got := g.deposited(t, id); got != amount {
			return fmt.Errorf("credited are %d msat, want %d", got, amount)
		}
		return nil
	})
}

// listed finds a payment among the deposits of a state.
func (g *gateway) listed(t testing.TB, state string, hash l402.PaymentHash) (amount int64, found bool) {
	t.Helper()
	a := g.operator(t, http.MethodGet, "/admin/deposits?state="+state).want(t, http.StatusOK)
	list := decode[struct {
		Deposits []struct {
			Hash     string `json:"payment_hash"`
			Credited int64  `json:"credited_msat"`
		}
	}](t, a.body)
	for _, d := range list.Deposits {
		if d.Hash == hash.String() {
			return d.Credited, true
		}
	}
	return 0, false
}

// sums are the books' totals as verify-ledger adds them up. It also wants all
// to agree.
func (g *own) sums(t testing.TB) (deposited, charged int64) {
	t.Helper()
	out, err := exec.Command(filepath.Join(binaries, "gateway"), "verify-ledger", "--config", g.config).CombinedOutput()
	if err != nil {
		t.Fatalf("verify-ledger: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		var adjusted, available, held int64
		if n, _ := fmt.Sscanf(line, "deposited %d + adjusted %d = available %d + held %d + charged %d msat",
			&deposited, &adjusted, &available, &held, &charged); n == 5 {
			if deposited+adjusted != available+held+charged {
				t.Errorf("the sums differ: %s", line)
			}
			return deposited, charged
		}
	}
	t.Fatalf("verify-ledger tells no sums:\n%s", out)
	return 0, 0
}

// TestOverpaidAfterTheEvent credits what arrived, once, when the settle event
// comes before the token is presented.
func TestOverpaidAfterTheEvent(t *testing.T) {
	t.Parallel()
	c := lab.post(t, "", header("L402-Deposit-Msat", "7000")).challenge(t)
	k := agent.overpay(t, c, 8765)
	lab.wantDeposited(t, k.id.TokenID, 8765)
	for range 3 {
		if b := lab.balance(t, k); b.Deposited != 8765 || b.Available != 8765 {
			t.Errorf("presented after the event: %+v, want 8765 msat", b)
		}
	}
}

// TestUnpresentedIsUnclaimed shows the operator what was paid and never used.
func TestUnpresentedIsUnclaimed(t *testing.T) {
	t.Parallel()
	c := lab.post(t, "", nil).challenge(t)
	k := agent.pay(t, c)
	lab.wantDeposited(t, k.id.TokenID, k.paid)
	if got, found := lab.listed(t, "unclaimed", k.id.PaymentHash); !found || got != k.paid {
		t.Errorf("unclaimed are %d msat (%t), want %d", got, found, k.paid)
	}
	if b := lab.balance(t, k); b.Deposited != k.paid {
		t.Errorf("presentation credits %d msat of %d", b.Deposited, k.paid)
	}
	labtest.Eventually(t, 5*time.Second, "it is claimed", func() error {
		if _, found := lab.listed(t, "unclaimed", k.id.PaymentHash); found {
			return errors.New("it is still listed")
		}
		return nil
	})
}

// valve is a TCP proxy that can hold everything up.
type valve struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	open     *sync.Cond
	closed   bool
}

// newValve returns an open valve before target; it ends with the test.
func newValve(t testing.TB, target string) *valve {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{listener: l, target: target}
	v.open = sync.NewCond(&v.mu)
	t.Cleanup(func() { v.set(false); l.Close() })
	go v.serve()
	return v
}

func (v *valve) serve() {
	for {
		in, err := v.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", v.target)
		if err != nil {
			in.Close()
			continue
		}
		go v.pump(in, out)
		go v.pump(out, in)
	}
}

func (v *valve) pump(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	_, _ = io.Copy(gated{to, v}, from) // however it ends, both sides close
}

// set closes or opens the valve.
func (v *valve) set(closed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = closed
	v.open.Broadcast()
}

// gated writes while the valve is open.
type gated struct {
	io.Writer
	valve *valve
}

func (g gated) Write(p []byte) (int, error) {
	g.valve.mu.Lock()
	for g.valve.closed {
		g.valve.open.Wait()
	}
	g.valve.mu.Unlock()
	return g.Writer.Write(p)
}

// TestPresentedBeforeTheEvent keeps the settle event from the gateway until
// the token was presented: the invoice's amount is credited at once, what was
// paid beyond it when the event comes, and nothing twice.
func TestPresentedBeforeTheEvent(t *testing.T) {
	t.Parallel()
	node := demo.LND["gateway"]
	v := newValve(t, node.GRPC)
	node.GRPC = v.listener.Addr().String()
	g := startGateway(t, func(s *setup) { s.LND = node })
	plain, over := g.post(t, "", nil).challenge(t), g.post(t, "", header("L402-Deposit-Msat", "6000")).challenge(t)
	v.set(true)
	k, rich := agent.pay(t, plain), agent.overpay(t, over, 7777)
	for range 2 {
		if got := g.balance(t, k).Deposited; got != 4000 {
			t.Errorf("presented before the event: %d msat, want 4000", got)
		}
		if got := g.balance(t, rich).Deposited; got != 6000 {
			t.Errorf("presented before the event: %d msat, want the invoice's 6000", got)
		}
	}
	paid := g.post(t, chat(), rich.header()).want(t, http.StatusOK).msat(t, "L402-Cost-Msat")
	v.set(false)
	g.wantDeposited(t, rich.id.TokenID, 7777)
	g.wantDeposited(t, k.id.TokenID, 4000)
	if b := g.idle(t, rich); b.Deposited != 7777 || b.Available != 7777-paid {
		t.Errorf("after the event: %+v", b)
	}
	if deposited, charged := g.sums(t); deposited != 11_777 || charged != paid {
		t.Errorf("deposited %d msat, charged %d; want 11777, %d", deposited, charged, paid)
	}
}

// TestDownAtTheFirstSettlement pays the first invoice that a ledger ever had
// while its gateway is dead.
func TestDownAtTheFirstSettlement(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	c := g.post(t, "", header("L402-Deposit-Msat", "9000")).challenge(t)
	g.kill(t)
	k := agent.overpay(t, c, 9100)
	g.restart(t)
	g.wantDeposited(t, k.id.TokenID, 9100)
	if got, found := g.listed(t, "unclaimed", k.id.PaymentHash); !found || got != 9100 {
		t.Errorf("unclaimed are %d msat (%t), want 9100", got, found)
	}
	if b := g.balance(t, k); b.Deposited != 9100 || b.Available != 9100 {
		t.Errorf("presentation added something: %+v", b)
	}
	g.kill(t)
	g.restart(t) // all is replayed once more
	next := g.buy(t, 4000)
	g.wantDeposited(t, next.id.TokenID, 4000)
	if got := g.balance(t, k).Deposited; got != 9100 {
		t.Errorf("after another restart %d msat are credited", got)
	}
	if deposited, _ := g.sums(t); deposited != 13_100 {
		t.Errorf("credited %d msat in all, 13100 were paid", deposited)
	}
}

// TestForgedMemo has other users of the same lnd copy the memo of our invoices
// onto theirs: nobody is credited.
func TestForgedMemo(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	seller, err := openWallet(demo.LND["gateway"])
	if err != nil {
		t.Fatal(err)
	}
	unpaid := g.post(t, "", nil).challenge(t)
	k := g.buy(t, 4000)
	g.balance(t, k)
	again := g.do(t, http.MethodPost, "/l402/topup", `{"amount_msat":4000}`, k.header()).challenge(t)
	for _, memo := range []string{unpaid.bolt11.Description, again.bolt11.Description} {
		forge(t, seller, agent, 4000, memo)
		forge(t, seller, agent, 4000, string(altered([]byte(memo), -1)))
		forge(t, seller, agent, 400_000, memo)
	}
	// lnd tells its settlements in order: once a later one is credited, all
	// were heard of.
	last := agent.pay(t, g.post(t, "", header("L402-Deposit-Msat", "5000")).challenge(t))
	g.wantDeposited(t, last.id.TokenID, 5000)
	if got := g.deposited(t, unpaid.id.TokenID); got != 0 {
		t.Errorf("a copied memo credited %d msat to the account it names", got)
	}
	if got := g.balance(t, k).Deposited; got != 4000 {
		t.Errorf("an account that paid 4000 msat has %d", got)
	}
	if deposited, _ := g.sums(t); deposited != 9000 {
		t.Errorf("credited %d msat in all, want 9000", deposited)
	}
	// The real invoices can still be paid.
	g.wantDeposited(t, agent.pay(t, unpaid).id.TokenID, 4000)
}
