package chaos

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet"
	"sluice.example/sluice/internal/devnet/devnettest"
	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
)

// Till is a Lightning network as seller and buyer use it.
type Till struct {
	Network *devnet.Network
	Agent   *lightning.Client // the buyer's wallet
	Seller  *lightning.Client // the gateway's node, with all rights
}

// Meet connects to both nodes of a network.
func Meet(t testing.TB, n *devnet.Network) *Till {
	t.Helper()
	return &Till{Network: n, Agent: devnettest.Wallet(t, n.Agent), Seller: devnettest.Wallet(t, n.Gateway)}
}

// Settings is a gateway that sells through the network's node: SQLite, a fresh
// key, leases of 15 s.
func (w *Till) Settings(backendURL string) Settings {
	n := w.Network.Gateway
	return Settings{
		Store: "sqlite:ledger.db", Keys: []l402.MasterKey{NewKey("first")}, BackendURL: backendURL, Lease: "15s", Renew: "5s", Slots: 64,
		Node: Node{n.GRPC, n.TLSCertPath, n.InvoiceMacaroonPath},
	}
}

// payLimit bounds one payment over the channel.
const payLimit = 30 * time.Second

// Pay pays the challenge of a 402.
func (w *Till) Pay(t testing.TB, a *Answer) Credential {
	t.Helper()
	a.Want(t, http.StatusPaymentRequired)
	c, err := l402.ParseChallenge(a.Header.Values("WWW-Authenticate"))
	if err != nil {
		t.Fatalf("challenge: %v", err)
	}
	id, _, err := l402.Inspect(c.Macaroon)
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.Agent.Pay(t.Context(), c.Invoice, 1000, payLimit)
	if err != nil {
		t.Fatal(err)
	}
	if p.Hash != id.PaymentHash || p.Preimage.Hash() != id.PaymentHash {
		t.Fatal("the payment is not the macaroon's")
	}
	return Credential{c.Macaroon, p.Preimage, id, int64(p.Amount)}
}

// Buy opens an account with that much credit, in msat.
func (w *Till) Buy(t testing.TB, g *Gateway, amount int64) Credential {
	t.Helper()
	k := w.Pay(t, g.offered(t, amount))
	if k.Paid != amount {
		t.Fatalf("asked for credit of %d msat, was sold %d", amount, k.Paid)
	}
	return k
}

// offered asks for a challenge. The node is shared with every other test, so a
// 503 is taken as what it is: come back later.
func (g *Gateway) offered(t testing.TB, amount int64) *Answer {
	t.Helper()
	h := http.Header{"L402-Deposit-Msat": {strconv.FormatInt(amount, 10)}}
	for deadline := time.Now().Add(payLimit); ; time.Sleep(time.Second) {
		a := g.Ask(t, http.MethodPost, ChatPath, "", h)
		if a.Status != http.StatusServiceUnavailable || time.Now().After(deadline) {
			return a
		}
	}
}

// TopUp buys more for the account of a credential.
func (w *Till) TopUp(t testing.TB, g *Gateway, k Credential, amount int64) Credential {
	t.Helper()
	return w.Pay(t, g.Ask(t, http.MethodPost, "/l402/topup", `{"amount_msat":`+strconv.FormatInt(amount, 10)+`}`, k.Header()))
}
