package e2e

import (
	"encoding/hex"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
)

// TestKeyRotation goes through the life of a master key: mint, verify, revoked.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	old := g.buy(t, 20_000)
	g.post(t, chat(), old.header()).want(t, http.StatusOK)
	left := g.idle(t, old).Available
	pending := g.post(t, "", nil).challenge(t)

	// A new key mints, the old one goes on verifying: nothing is stranded.
	first, second := g.Keys[0], newKey("second")
	first.State = "verify"
	stop := func() {
		t.Helper()
		if err := g.stop(); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	g.restart(t, func(s *setup) { s.Keys = []masterKey{second, first} })
	if got := g.balance(t, old).Available; got != left {
		t.Errorf("after the rotation the old token has %d msat, want %d", got, left)
	}
	g.post(t, chat(), old.header()).want(t, http.StatusOK)
	more := agent.pay(t, g.do(t, http.MethodPost, "/l402/topup", `{"amount_msat":5000}`, old.header()).challenge(t))
	if b := g.idle(t, more); more.id.TokenID != old.id.TokenID || b.Deposited != 25_000 {
		t.Errorf("the top-up of an old token: account %s, %+v", more.id.TokenID, b)
	}
	fresh := g.buy(t, 4000)
	g.balance(t, fresh)
	// An invoice of the old key that is paid only now is known by its memo.
	g.wantDeposited(t, agent.pay(t, pending).id.TokenID, pending.msat())
	g.verify(t)

	// Revoked, its tokens are strangers. What the new key minted works, also
	// for the same account.
	first.State = "revoked"
	stop()
	g.restart(t, func(s *setup) { s.Keys = []masterKey{second, first} })
	if c := g.post(t, chat(), old.header()).challenge(t); c.id.TokenID == old.id.TokenID {
		t.Error("a token of a revoked key was offered its account")
	}
	if b := g.balance(t, more); b.Deposited != 25_000 {
		t.Errorf("the new key's token of the same account sees %+v", b)
	}
	// Left out, it is as unknown.
	stop()
	g.restart(t, func(s *setup) { s.Keys = []masterKey{second} })
	g.post(t, chat(), old.header()).challenge(t)
	g.post(t, chat(), more.header()).want(t, http.StatusOK)
}

// TestForeignKeys refuses to start where keys and database do not belong
// together.
func TestForeignKeys(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	k := g.buy(t, 4000)
	g.balance(t, k)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	refused := func(want string) {
		t.Helper()
		if err := g.write(); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(filepath.Join(binaries, "gateway"), "serve", "--config", g.config).CombinedOutput()
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), want) {
			t.Errorf("serve: %v, want exit status 1 and %q\n%s", err, want, out)
		}
	}
	own := g.Keys
	g.Keys = []masterKey{newKey("stranger")}
	refused("do not belong")
	g.Keys, g.Store = own, "sqlite:other.db" // a new ledger takes any keys
	g.restart(t)
	if c := g.post(t, chat(), k.header()).challenge(t); c.id.TokenID == k.id.TokenID {
		t.Error("another ledger knows the token")
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	g.Store = "sqlite:ledger.db"
	g.Sale += "nonsense: true\n"
	refused("nonsense")
	g.Sale = strings.TrimSuffix(g.Sale, "nonsense: true\n")
	g.restart(t)
	if got := g.balance(t, k).Available; got != 4000 {
		t.Errorf("the right database has %d msat", got)
	}
}

// keyring is the gateway's own, for tokens that would take a year to come by.
func (g *own) keyring(t testing.TB) *l402.Keyring {
	t.Helper()
	out, err := exec.Command(filepath.Join(binaries, "gateway"), "verify-ledger", "--config", g.config).CombinedOutput()
	if err != nil {
		t.Fatalf("verify-ledger: %v\n%s", err, out)
	}
	_, rest, _ := strings.Cut(string(out), "ledger ")
	text, _, _ := strings.Cut(rest, ":")
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 16 {
		t.Fatalf("verify-ledger does not name the ledger:\n%s", out)
	}
	var keys []l402.MasterKey
	for _, k := range g.Keys {
		secret, err := hex.DecodeString(k.Secret)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, l402.MasterKey{ID: k.ID, State: l402.KeyState(k.State), Secret: [32]byte(secret)})
	}
	ring, err := l402.NewKeyring(l402.LedgerID(raw), keys)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// TestExpiredToken may look and top up, but not spend; the top-up is of the
// same account.
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	ring := g.keyring(t)
	seller, err := openWallet(demo.LND["gateway"])
	if err != nil {
		t.Fatal(err)
	}
	// As the gateway would have made it a year ago.
	preimage, account := l402.NewPreimage(), l402.NewTokenID()
	mac, err := ring.Mint(l402.MintParams{Service: "inference", PaymentHash: preimage.Hash(), TokenID: account, Deposit: 6000, ValidUntil: time.Now().Add(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	invoice, err := seller.AddInvoice(t.Context(), lightning.Invoice{Preimage: preimage, Amount: 6000,
		Memo: "old " + ring.SealMemo(account, preimage.Hash(), 6000), Expiry: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Pay(t.Context(), invoice, 1000, payLimit); err != nil {
		t.Fatal(err)
	}
	k := credential{mac, preimage, l402.Identifier{PaymentHash: preimage.Hash(), TokenID: account}, 6000}
	if b := g.balance(t, k); b.Available != 6000 {
		t.Errorf("an expired token sees %+v", b)
	}
	c := g.post(t, chat(), k.header()).challenge(t)
	if c.id.TokenID != account || c.problem["balance_msat"] != float64(6000) {
		t.Errorf("the 402 is for account %s with a balance of %v, want the same account and 6000", c.id.TokenID, c.problem["balance_msat"])
	}
	fresh := agent.pay(t, g.do(t, http.MethodPost, "/l402/topup", `{"amount_msat":4000}`, k.header()).challenge(t))
	g.post(t, chat(), fresh.header()).want(t, http.StatusOK)
	if b := g.idle(t, fresh); b.Deposited != 10_000 || b.Account != account.String() {
		t.Errorf("after the top-up: %+v", b)
	}
	// Narrowed by its holder as well, it is nobody's account any more.
	if c := g.post(t, chat(), k.attenuate(t, "inference_label=x").header()).challenge(t); c.id.TokenID == account {
		t.Error("an attenuated expired token was offered the account")
	}
	g.verify(t)
}

// TestLeakedKeyIsNoticed presents a token whose payment never happened: it is
// credited, for a macaroon and its preimage are the proof, but verify-ledger
// and the list of unconfirmed deposits tell the operator.
func TestLeakedKeyIsNoticed(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	preimage := l402.NewPreimage()
	id := l402.Identifier{PaymentHash: preimage.Hash(), TokenID: l402.NewTokenID()}
	mac, err := g.keyring(t).Mint(l402.MintParams{Service: "inference", PaymentHash: id.PaymentHash, TokenID: id.TokenID, Deposit: 6000, ValidUntil: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	k := credential{mac, preimage, id, 6000}
	if b := g.balance(t, k); b.Available != 6000 {
		t.Fatalf("balance %+v", b)
	}
	out, err := exec.Command(filepath.Join(binaries, "gateway"), "verify-ledger", "--config", g.config).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), id.PaymentHash.String()) {
		t.Errorf("verify-ledger: %v, want exit status 1 and the payment's hash\n%s", err, out)
	}
}

// TestFrozenAccount is refused until the operator relents; revoked, for good.
func TestFrozenAccount(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	body := chat("model", `"running"`)
	path := "/admin/accounts/" + k.id.TokenID.String()
	lab.post(t, body, k.header()).want(t, http.StatusOK)
	for _, row := range []struct {
		action string
		status int
	}{{"freeze", 403}, {"unfreeze", 200}, {"revoke", 403}} {
		lab.operator(t, http.MethodPost, path+"/"+row.action).want(t, http.StatusOK)
		if a := lab.post(t, body, k.header()); a.status != row.status || a.header["Www-Authenticate"] != nil {
			t.Errorf("after %s: status %d, want %d", row.action, a.status, row.status)
		}
	}
	if got := len(lab.charges(t, k)); got != 2 {
		t.Errorf("%d charges, want 2", got)
	}
	lab.operator(t, http.MethodPost, path+"/delete").want(t, http.StatusNotFound)
}

// TestCheckConfig accepts what serve runs on, and names the line of a mistake.
func TestCheckConfig(t *testing.T) {
	t.Parallel()
	gateway := filepath.Join(binaries, "gateway")
	if out, err := exec.Command(gateway, "check-config", demo.GatewayConfig).CombinedOutput(); err != nil {
		t.Errorf("the demo's configuration: %v\n%s", err, out)
	}
	content, err := os.ReadFile(demo.GatewayConfig)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(string(content), "listen:", "lissten:", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(gateway, "check-config", path).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), "line 2") || !strings.Contains(string(out), `"listen"`) {
		t.Errorf("a misspelt key: %v\n%s", err, out)
	}
}
