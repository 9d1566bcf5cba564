package client_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"gopkg.in/macaroon.v2"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
	"sluice.example/sluice/l402/bolt11/bolt11test"
	"sluice.example/sluice/l402/client"
)

// fakeGateway sells calls at a fixed price. The first segment of a path is the service. When spoil
// is set, it changes each challenge before the challenge is sent.
type fakeGateway struct {
	price   l402.Msat // per call
	deposit l402.Msat // amount of each invoice
	spoil   func(*challenge)
	closed  bool // answers 402 to every request

	mu         sync.Mutex
	root       []byte
	node       *btcec.PrivateKey
	balances   map[l402.TokenID]l402.Msat
	spent      map[string]l402.Msat // by macaroon, in msat
	credited   map[l402.PaymentHash]bool
	preimages  map[l402.PaymentHash]l402.Preimage
	challenges int
	served     int
	bodies     []string
	nonces     map[string]bool
}

// challenge is what goes into a 402.
type challenge struct {
	id      l402.Identifier
	caveats []string
	invoice bolt11.Invoice
	problem map[string]any
	raw     string // when set, replaces the whole header
}

func newGateway(t testing.TB) *fakeGateway {
	t.Helper()
	node, err := btcec.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	root := make([]byte, 32)
	rand.Read(root)
	return &fakeGateway{
		price: 1000, deposit: 10_000, root: root, node: node,
		balances:  map[l402.TokenID]l402.Msat{},
		spent:     map[string]l402.Msat{},
		credited:  map[l402.PaymentHash]bool{},
		preimages: map[l402.PaymentHash]l402.Preimage{},
		nonces:    map[string]bool{},
	}
}

// RoundTrip lets tests use the gateway without a network.
func (g *fakeGateway) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	r.Body.Close()
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

func (g *fakeGateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	service := strings.Split(r.URL.Path, "/")[1]
	id, known := g.account(r.Header)
	switch r.URL.Path {
	case "/l402/balance":
		fmt.Fprintf(w, `{"account":"%s","available_msat":%d,"budgets":[]}`, id, g.balances[id])
		return
	case "/l402/topup":
		var v struct {
			Amount l402.Msat `json:"amount_msat"`
		}
		if err := json.Unmarshal(body, &v); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		g.demand(w, id, "inference", v.Amount)
		return
	}
	mac, left, delegated := g.delegated(r.Header)
	if !known || g.closed || g.balances[id] < g.price || left < g.price {
		g.nonces[r.Header.Get("L402-Client-Nonce")] = true
		if delegated {
			id = l402.NewTokenID()
		}
		g.demand(w, id, service, g.deposit, "type", "urn:sluice:problem:insufficient-balance", "required_msat", g.price, "balance_msat", left)
		return
	}
	g.balances[id] -= g.price
	g.spent[mac] += g.price
	g.served++
	g.bodies = append(g.bodies, string(body))
	w.Header().Set(client.HeaderCost, strconv.FormatInt(int64(g.price), 10))
	w.Header().Set(client.HeaderBalance, strconv.FormatInt(int64(g.balances[id]), 10))
	io.WriteString(w, "answer")
}

// account verifies the credential of a request and credits its deposit. Without a credential it
// returns the id of a new account.
func (g *fakeGateway) account(h http.Header) (l402.TokenID, bool) {
	c, err := l402.CredentialFromHeader(h)
	if err != nil || c == nil {
		return l402.NewTokenID(), false
	}
	var m macaroon.Macaroon
	id, conditions, err := l402.Inspect(c.Macaroon)
	if err != nil || m.UnmarshalBinary(c.Macaroon) != nil || c.Preimage.Hash() != id.PaymentHash {
		return l402.NewTokenID(), false
	}
	var credit l402.Msat
	check := func(caveat string) error {
		if _, v, ok := strings.Cut(caveat, "_deposit_msat="); ok {
			credit, err = l402.ParseMsat(v)
		}
		return err
	}
	if m.Verify(g.root, check, nil) != nil || len(conditions) == 0 {
		return l402.NewTokenID(), false
	}
	if !g.credited[id.PaymentHash] {
		g.credited[id.PaymentHash] = true
		g.balances[id.TokenID] += credit
	}
	return id.TokenID, true
}

// delegated returns what is left of the innermost budget of the credential, and whether a holder
// added a caveat.
func (g *fakeGateway) delegated(h http.Header) (mac string, left l402.Msat, attenuated bool) {
	left = l402.MaxMsat
	c, err := l402.CredentialFromHeader(h)
	if err != nil || c == nil {
		return "", left, false
	}
	_, conditions, err := l402.Inspect(c.Macaroon)
	if err != nil {
		return "", left, false
	}
	mac = string(c.Macaroon)
	for _, caveat := range conditions {
		if _, v, ok := strings.Cut(caveat, "_budget_msat="); ok {
			limit, _ := l402.ParseMsat(v)
			left = limit - g.spent[mac]
		}
	}
	return mac, left, !strings.Contains(conditions[len(conditions)-1], "_deposit_msat=")
}

// demand answers with a challenge. members are the names and values of further members of the
// problem document.
func (g *fakeGateway) demand(w http.ResponseWriter, account l402.TokenID, service string, amount l402.Msat, members ...any) {
	g.challenges++
	p := l402.NewPreimage()
	g.preimages[p.Hash()] = p
	c := challenge{
		id: l402.Identifier{PaymentHash: p.Hash(), TokenID: account},
		caveats: []string{"services=" + service + ":0",
			fmt.Sprintf("%s_valid_until=%d", service, time.Now().Add(time.Hour).Unix()),
			fmt.Sprintf("%s_deposit_msat=%d", service, amount)},
		invoice: regtestInvoice(p.Hash(), amount),
		problem: map[string]any{"amount_msat": amount, "payment_hash": p.Hash().String()},
	}
	for i := 0; i < len(members); i += 2 {
		c.problem[members[i].(string)] = members[i+1]
	}
	if g.spoil != nil {
		g.spoil(&c)
	}
	if c.raw == "" {
		c.raw = l402.FormatChallenge(g.mint(c), bolt11test.Sign(g.node, c.invoice))
	}
	w.Header().Set("WWW-Authenticate", c.raw)
	w.WriteHeader(http.StatusPaymentRequired)
	json.NewEncoder(w).Encode(c.problem)
}

func (g *fakeGateway) mint(c challenge) []byte {
	m, err := macaroon.New(g.root, c.id.Encode(), "", macaroon.V2)
	if err != nil {
		panic(err)
	}
	for _, caveat := range c.caveats {
		if err := m.AddFirstPartyCaveat([]byte(caveat)); err != nil {
			panic(err)
		}
	}
	b, err := m.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return b
}

// regtestInvoice returns an invoice that can be paid for one hour.
func regtestInvoice(hash l402.PaymentHash, amount l402.Msat) bolt11.Invoice {
	now := time.Now()
	return bolt11.Invoice{
		Network: bolt11.Regtest, Hash: hash, Amount: amount, Description: "a call", At: now, ExpiresAt: now.Add(time.Hour), Secret: [32]byte{1},
	}
}

// fakeWallet pays the invoices of one gateway. When the functions pay and track are set, they
// replace its behaviour.
type fakeWallet struct {
	g     *fakeGateway
	pay   func(ctx context.Context, r client.PayRequest) (client.Paid, error)
	track func(hash l402.PaymentHash) (client.State, client.Paid, error)

	mu   sync.Mutex
	paid []client.PayRequest
}

func (w *fakeWallet) Pay(ctx context.Context, r client.PayRequest) (client.Paid, error) {
	w.mu.Lock()
	w.paid = append(w.paid, r)
	w.mu.Unlock()
	if w.pay != nil {
		return w.pay(ctx, r)
	}
	return w.proof(r.Hash), nil
}

func (w *fakeWallet) Track(_ context.Context, hash l402.PaymentHash) (client.State, client.Paid, error) {
	if w.track != nil {
		return w.track(hash)
	}
	return client.Unknown, client.Paid{}, nil
}

// proof returns the result of a successful payment of the gateway's invoice.
func (w *fakeWallet) proof(hash l402.PaymentHash) client.Paid {
	w.g.mu.Lock()
	defer w.g.mu.Unlock()
	return client.Paid{Preimage: w.g.preimages[hash], Fee: 7}
}

func (w *fakeWallet) payments() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.paid)
}

// buyer returns a client over the store in dir whose requests go straight to g.
func buyer(t testing.TB, g *fakeGateway, w client.Wallet, dir string, change ...func(*client.Config)) *client.Client {
	t.Helper()
	store, err := client.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := client.Config{
		Wallet: w, Store: store, Network: bolt11.Regtest, MaxPerRequest: 50_000,
		MaxFee: client.Fee{Base: 100, PPM: 10_000}, PaymentTimeout: 30 * time.Second, Base: g,
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const callURL = "http://gateway.test/inference/call"

// call makes one request and returns its status and body.
func call(ctx context.Context, c *client.Client, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("question"))
	if err != nil {
		return 0, "", err
	}
	resp, err := (&http.Client{Transport: c}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func mustCall(t *testing.T, c *client.Client, url string) {
	t.Helper()
	status, body, err := call(t.Context(), c, url)
	if err != nil || status != http.StatusOK || body != "answer" {
		t.Fatalf("call: %d %q, %v", status, body, err)
	}
}

func openIntents(t *testing.T, dir string) []client.Intent {
	t.Helper()
	store, err := client.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	intents, err := store.Intents()
	if err != nil {
		t.Fatal(err)
	}
	return intents
}

func storedTokens(t *testing.T, dir string) []client.Token {
	t.Helper()
	store, err := client.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := store.Tokens()
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}
