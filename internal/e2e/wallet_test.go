package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
	"google.golang.org/grpc"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
)

// wallet is one lnd of a demo, with all rights.
type wallet struct {
	*lightning.Client
	conn *grpc.ClientConn // for what Client does not offer

	mu   sync.Mutex
	paid []credential // by pay
}

func openWallet(f nodeFacts) (*wallet, error) {
	cert, err := os.ReadFile(f.TLSCert)
	if err != nil {
		return nil, err
	}
	mac, err := os.ReadFile(f.Macaroon)
	if err != nil {
		return nil, err
	}
	cfg := lightning.Config{Address: f.GRPC, TLSCert: cert, Macaroon: mac}
	w := &wallet{}
	if w.Client, err = lightning.Dial(cfg); err != nil {
		return nil, err
	}
	w.conn, err = lightning.Connect(cfg)
	return w, err
}

// credential is a paid token.
type credential struct {
	macaroon []byte
	preimage l402.Preimage
	id       l402.Identifier
	paid     int64 // msat, of this payment
}

// String is the value of the Authorization header.
func (k credential) String() string { return l402.FormatCredential(k.macaroon, k.preimage) }

// header pays with the credential; more headers may follow.
func (k credential) header(more ...string) http.Header {
	return header(append([]string{"Authorization", k.String()}, more...)...)
}

// attenuate adds caveats, offline.
func (k credential) attenuate(t testing.TB, conditions ...string) credential {
	t.Helper()
	m, err := l402.Attenuate(k.macaroon, conditions...)
	if err != nil {
		t.Fatal(err)
	}
	k.macaroon = m
	return k
}

// challenge is a 402 taken apart.
type challenge struct {
	macaroon []byte
	invoice  string
	id       l402.Identifier
	conds    []string
	bolt11   bolt11.Invoice
	problem  map[string]any
}

// challenge wants a 402 whose parts belong together.
func (a *answer) challenge(t testing.TB) challenge {
	t.Helper()
	c := challenge{problem: a.json(t)}
	a.wantProblem(t, http.StatusPaymentRequired, "")
	parsed, err := l402.ParseChallenge(a.header.Values("WWW-Authenticate"))
	if err != nil {
		t.Fatalf("challenge: %v\n%v\n%s", err, a.header, a.body)
	}
	c.macaroon, c.invoice = parsed.Macaroon, parsed.Invoice
	if c.id, c.conds, err = l402.Inspect(c.macaroon); err != nil {
		t.Fatal(err)
	}
	if c.bolt11, err = bolt11.Decode(c.invoice); err != nil {
		t.Fatalf("invoice: %v", err)
	}
	if c.bolt11.Network != bolt11.Regtest || c.bolt11.Hash != c.id.PaymentHash {
		t.Fatalf("the invoice is for %s on %s, the macaroon for %s", c.bolt11.Hash, c.bolt11.Network, c.id.PaymentHash)
	}
	return c
}

// msat is what the invoice asks for.
func (c challenge) msat() int64 { return int64(c.bolt11.Amount) }

// payLimit bounds one payment over the channel.
const payLimit = 20 * time.Second

// pay pays the challenge's invoice over the channel.
func (w *wallet) pay(t testing.TB, c challenge) credential {
	t.Helper()
	p, err := w.Pay(t.Context(), c.invoice, 1000, payLimit)
	if err != nil {
		t.Fatalf("pay %d msat: %v", c.msat(), err)
	}
	if p.Preimage.Hash() != c.id.PaymentHash {
		t.Fatal("the payment's preimage is not the macaroon's")
	}
	k := credential{c.macaroon, p.Preimage, c.id, c.msat()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paid = append(w.paid, k)
	return k
}

// secrets lists how everything that was paid for could be written down.
func (w *wallet) secrets() (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.paid {
		signature := k.macaroon[len(k.macaroon)-32:]
		list = append(list, k.preimage.Hex(), base64.StdEncoding.EncodeToString(k.preimage[:]),
			hex.EncodeToString(signature), base64.StdEncoding.EncodeToString(k.macaroon)[100:])
	}
	return list
}

// overpay sends amount for the challenge's hash, as a payer may who does not
// go by the invoice's amount.
func (w *wallet) overpay(t testing.TB, c challenge, amount int64) credential {
	t.Helper()
	dest, err := hex.DecodeString(c.bolt11.Payee)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), payLimit)
	defer cancel()
	stream, err := routerrpc.NewRouterClient(w.conn).SendPaymentV2(ctx, &routerrpc.SendPaymentRequest{
		Dest: dest, AmtMsat: amount, PaymentHash: c.id.PaymentHash[:],
		PaymentAddr: c.bolt11.Secret[:], FinalCltvDelta: int32(c.bolt11.FinalCLTV), FeeLimitMsat: 1000,
		TimeoutSeconds: 15, NoInflightUpdates: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for {
		update, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		switch update.Status {
		case lnrpc.Payment_SUCCEEDED:
			p, err := l402.ParsePreimage(update.PaymentPreimage)
			if err != nil {
				t.Fatal(err)
			}
			return credential{c.macaroon, p, c.id, amount}
		case lnrpc.Payment_FAILED:
			t.Fatalf("pay %d msat for an invoice of %d: %s", amount, c.msat(), update.FailureReason)
		}
	}
}

// forge makes and pays an invoice directly on a node, as its other users can.
func forge(t testing.TB, node, payer *wallet, amount int64, memo string) l402.PaymentHash {
	t.Helper()
	preimage := l402.NewPreimage()
	invoice, err := node.AddInvoice(t.Context(), lightning.Invoice{Preimage: preimage, Amount: l402.Msat(amount), Memo: memo, Expiry: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := payer.Pay(t.Context(), invoice, 1000, payLimit); err != nil {
		t.Fatalf("pay the forged invoice: %v", err)
	}
	return preimage.Hash()
}

// buy opens an account with that much credit, in msat.
func (g *gateway) buy(t testing.TB, amount int64) credential {
	t.Helper()
	k := agent.pay(t, g.post(t, "", header("L402-Deposit-Msat", strconv.FormatInt(amount, 10))).challenge(t))
	if k.paid != amount {
		t.Fatalf("asked for credit of %d msat, was sold %d", amount, k.paid)
	}
	return k
}

// altered is b with one bit of its byte at i, from the end when negative, turned.
func altered(b []byte, i int) []byte {
	out := bytes.Clone(b)
	if i < 0 {
		i += len(out)
	}
	out[i] ^= 1
	return out
}
