package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
	"sluice.example/sluice/l402/bolt11/bolt11test"
	"sluice.example/sluice/l402/client"
)

func TestPaysOnceAndReuses(t *testing.T) {
	g, dir := newGateway(t), t.TempDir()
	w := &fakeWallet{g: g}
	var bought []client.Purchase
	ctx := client.WithPurchases(t.Context(), func(p client.Purchase) { bought = append(bought, p) })
	c := buyer(t, g, w, dir)
	for range 3 {
		if status, body, err := call(ctx, c, callURL); err != nil || status != 200 || body != "answer" {
			t.Fatalf("%d %q %v", status, body, err)
		}
	}
	mustCall(t, buyer(t, g, w, dir), callURL) // the second buyer is a later process
	if w.payments() != 1 || g.challenges != 1 {
		t.Errorf("%d payments, %d challenges, want one each", w.payments(), g.challenges)
	}
	if len(bought) != 1 || bought[0].Amount != 10_000 || bought[0].Fee != 7 {
		t.Errorf("purchases told: %+v", bought)
	}
	if r := w.paid[0]; r.FeeLimit != 200 || r.Amount != 10_000 || r.Timeout != 30*time.Second {
		t.Errorf("order %+v, want fee limit 100 + 1%% of 10000", r)
	}
	if g.bodies[0] != "question" {
		t.Errorf("body after paying: %q", g.bodies[0])
	}
	if left := openIntents(t, dir); len(left) != 0 {
		t.Errorf("intents left: %v", left)
	}
}

func TestTopUpInPlace(t *testing.T) {
	g, dir := newGateway(t), t.TempDir()
	g.deposit = 2000
	w := &fakeWallet{g: g}
	c := buyer(t, g, w, dir)
	for range 5 {
		mustCall(t, c, callURL)
	}
	tokens := storedTokens(t, dir)
	if len(tokens) != 1 || len(tokens[0].Deposits) != 3 || tokens[0].Spent != 3*2007 {
		t.Fatalf("tokens %v with %d deposits, spent %s", tokens, len(tokens[0].Deposits), tokens[0].Spent)
	}
	if len(g.balances) != 1 {
		t.Errorf("%d accounts at the gateway", len(g.balances))
	}
}

func TestRefusals(t *testing.T) {
	var budget *client.BudgetError
	var bad *client.InvoiceError
	for name, tc := range map[string]struct {
		spoil func(*challenge)
		as    any
		text  string
	}{
		"hash of another macaroon": {func(c *challenge) { c.invoice.Hash[0] ^= 1; delete(c.problem, "payment_hash") }, &bad, "not the macaroon's"},
		"no amount":                {func(c *challenge) { c.invoice.Amount = 0; delete(c.problem, "amount_msat") }, &bad, "names no amount"},
		"over the cap": {func(c *challenge) {
			c.invoice.Amount, c.problem["amount_msat"], c.caveats = 50_001, 50_001, c.caveats[:2]
		}, &budget, "cap per request is 50000 msat"},
		"mainnet": {func(c *challenge) { c.invoice.Network = bolt11.Mainnet }, &bad, "for mainnet, the wallet is on regtest"},
		"signet":  {func(c *challenge) { c.invoice.Network = bolt11.Signet }, &bad, "for signet"},
		"simnet":  {func(c *challenge) { c.invoice.Network = bolt11.Simnet }, &bad, "for simnet"},
		"expired": {func(c *challenge) {
			c.invoice.At = time.Now().Add(-2 * time.Hour)
			c.invoice.ExpiresAt = c.invoice.At.Add(time.Hour)
		}, &bad, "expired"},
		"other amount in words": {func(c *challenge) { c.problem["amount_msat"] = 9_000 }, &bad, "description says 9000 msat"},
		"other hash in words":   {func(c *challenge) { c.problem["payment_hash"] = strings.Repeat("0", 64) }, &bad, "server's description"},
		"credits less":          {func(c *challenge) { c.caveats[2] = "inference_deposit_msat=9999" }, &bad, "credits only"},
		"garbage invoice":       {func(c *challenge) { c.raw = l402.FormatChallenge([]byte{2}, "lnbcrt1garbage") }, &bad, "macaroon of the challenge"},
		"unreadable":            {func(c *challenge) { c.raw = `L402 macaroon="x` }, &bad, "malformed"},
		"amount that wraps": {func(c *challenge) {
			c.raw = strings.Replace(l402.FormatChallenge(newGateway(t).mint(*c), bolt11test.Sign(newGateway(t).node, c.invoice)), "lnbcrt100n", "lnbcrt184467440737095516n", 1)
		}, &bad, "out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			g, dir := newGateway(t), t.TempDir()
			g.spoil = tc.spoil
			w := &fakeWallet{g: g}
			_, _, err := call(t.Context(), buyer(t, g, w, dir), callURL)
			if err == nil || !errors.As(err, tc.as) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("error %v, want %T with %q", err, tc.as, tc.text)
			}
			if w.payments() != 0 || len(openIntents(t, dir)) != 0 {
				t.Error("something was paid or promised")
			}
		})
	}
}

func TestTotalCapOutlivesTheProcess(t *testing.T) {
	g, dir := newGateway(t), t.TempDir()
	g.deposit = 1000
	w := &fakeWallet{g: g}
	limit := func(cfg *client.Config) { cfg.MaxTotal = 2200 } // two deposits need 1007 + 1000 + 110
	mustCall(t, buyer(t, g, w, dir, limit), callURL)
	mustCall(t, buyer(t, g, w, dir, limit), callURL)
	_, _, err := call(t.Context(), buyer(t, g, w, dir, limit), callURL)
	var budget *client.BudgetError
	if !errors.As(err, &budget) || budget.Cap != "total" || budget.Spent != 2014 || budget.Asked != 1110 || budget.Fee != 110 ||
		!strings.Contains(err.Error(), "asks for 1000 msat, for which routing may cost up to 110 msat more; 2014 msat of the total cap of 2200 msat") {
		t.Errorf("third purchase: %v", err)
	}
	if w.payments() != 2 {
		t.Errorf("%d payments", w.payments())
	}
}

func TestZeroCapPaysNothing(t *testing.T) {
	g := newGateway(t)
	w := &fakeWallet{g: g}
	_, _, err := call(t.Context(), buyer(t, g, w, t.TempDir(), func(cfg *client.Config) { cfg.MaxPerRequest = 0 }), callURL)
	var budget *client.BudgetError
	if !errors.As(err, &budget) || w.payments() != 0 {
		t.Errorf("%v, %d payments", err, w.payments())
	}
}

func TestNeverPaysTwiceInOneRoundTrip(t *testing.T) {
	g := newGateway(t)
	g.closed = true
	w := &fakeWallet{g: g}
	status, body, err := call(t.Context(), buyer(t, g, w, t.TempDir()), callURL)
	if err != nil || status != http.StatusPaymentRequired || !strings.Contains(body, "amount_msat") {
		t.Errorf("%d %q %v, want the second 402 itself", status, body, err)
	}
	if w.payments() != 1 {
		t.Errorf("%d payments", w.payments())
	}
}

func TestSameInvoiceTwice(t *testing.T) {
	g := newGateway(t)
	var first *challenge
	g.spoil = func(c *challenge) {
		if first == nil {
			first = c
		}
		*c = *first
	}
	w := &fakeWallet{g: g}
	c := buyer(t, g, w, t.TempDir())
	for range 10 { // the deposit pays for 10 calls
		mustCall(t, c, callURL)
	}
	var bad *client.InvoiceError
	if _, _, err := call(t.Context(), c, callURL); !errors.As(err, &bad) || !strings.Contains(err.Error(), "paid before") {
		t.Errorf("error %v", err)
	}
	if w.payments() != 1 {
		t.Errorf("%d payments", w.payments())
	}
}

func TestWithoutPaying(t *testing.T) {
	g := newGateway(t)
	w := &fakeWallet{g: g}
	status, _, err := call(client.WithoutPaying(t.Context()), buyer(t, g, w, t.TempDir()), callURL)
	if err != nil || status != http.StatusPaymentRequired || w.payments() != 0 {
		t.Errorf("%d %v, %d payments", status, err, w.payments())
	}
}

func TestOwnCredentialPassesThrough(t *testing.T) {
	g := newGateway(t)
	w := &fakeWallet{g: g}
	req, _ := http.NewRequest(http.MethodGet, callURL, nil)
	req.Header.Set("Authorization", "LSAT abc:def")
	resp, err := buyer(t, g, w, t.TempDir()).RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusPaymentRequired || w.payments() != 0 {
		t.Errorf("%v, %v, %d payments", resp, err, w.payments())
	}
}

func TestBodyThatCannotBeSentAgain(t *testing.T) {
	g := newGateway(t)
	w := &fakeWallet{g: g}
	c := buyer(t, g, w, t.TempDir(), func(cfg *client.Config) { cfg.MaxBody = 4 })
	post := func(body string) error {
		req, _ := http.NewRequest(http.MethodPost, callURL, io.MultiReader(strings.NewReader(body))) // hides GetBody
		resp, err := c.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := post("12345"); !errors.Is(err, client.ErrBodyTooLarge) || w.payments() != 0 {
		t.Errorf("long body: %v, %d payments", err, w.payments())
	}
	if err := post("1234"); err != nil || g.bodies[0] != "1234" {
		t.Errorf("short body: %v, %q", err, g.bodies)
	}
	if err := post("12345"); err != nil || g.bodies[1] != "12345" {
		t.Errorf("long body with a token: %v, %q", err, g.bodies)
	}
}

func TestConcurrentRequestsShareOnePurchase(t *testing.T) {
	g, dir := newGateway(t), t.TempDir()
	g.deposit = 50_000
	w := &fakeWallet{g: g}
	// Two clients on one directory behave like two processes, because their file locks exclude each
	// other like those of processes.
	clients := []*client.Client{buyer(t, g, w, dir), buyer(t, g, w, dir)}
	together(40, func(i int) {
		if status, _, err := call(t.Context(), clients[i%2], callURL); err != nil || status != 200 {
			t.Errorf("%d %v", status, err)
		}
	})
	if w.payments() != 1 || g.served != 40 {
		t.Errorf("%d payments, %d served", w.payments(), g.served)
	}
	if len(g.nonces) > 3 { // one per client without a token; no nonce is sent with a token
		t.Errorf("nonces %v", g.nonces)
	}
}

func TestConcurrentRequestsWithSmallDeposits(t *testing.T) {
	g := newGateway(t)
	g.deposit = 1000 // pays for one call
	w := &fakeWallet{g: g}
	c := buyer(t, g, w, t.TempDir())
	mustCall(t, c, callURL)
	together(20, func(int) {
		if status, _, err := call(t.Context(), c, callURL); err != nil || status != 200 {
			t.Errorf("%d %v", status, err)
		}
	})
	if w.payments() != 21 || len(g.balances) != 1 {
		t.Errorf("%d payments for 21 calls to %d accounts", w.payments(), len(g.balances))
	}
}

func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func TestTwoServicesAtOneOrigin(t *testing.T) {
	g, dir := newGateway(t), t.TempDir()
	w := &fakeWallet{g: g}
	g.spoil = func(c *challenge) { // a token of another service opens a new account
		if strings.HasPrefix(c.caveats[0], "services=images") {
			c.id.TokenID = l402.TokenID{42}
		}
	}
	c := buyer(t, g, w, dir)
	mustCall(t, c, callURL)
	g.closed = true // the gateway refuses the token for the other service
	status, _, err := call(t.Context(), c, "http://gateway.test/images/call")
	if err != nil || status != http.StatusPaymentRequired {
		t.Fatalf("%d %v", status, err)
	}
	g.closed = false
	mustCall(t, c, callURL)
	mustCall(t, c, "http://gateway.test/images/call")
	if w.payments() != 2 || len(storedTokens(t, dir)) != 2 {
		t.Errorf("%d payments, tokens %v", w.payments(), storedTokens(t, dir))
	}
}

func TestOtherOriginCannotReplaceAToken(t *testing.T) {
	g, evil, dir := newGateway(t), newGateway(t), t.TempDir()
	mustCall(t, buyer(t, g, &fakeWallet{g: g}, dir), callURL)
	ours := storedTokens(t, dir)[0]
	evil.spoil = func(c *challenge) { c.id.TokenID = ours.ID }
	mustCall(t, buyer(t, evil, &fakeWallet{g: evil}, dir), "http://evil.test/inference/call")
	if tokens := storedTokens(t, dir); len(tokens) != 2 {
		t.Fatalf("tokens %v", tokens)
	}
	mustCall(t, buyer(t, g, &fakeWallet{g: g}, dir), callURL)
	if g.challenges != 1 {
		t.Error("the token of the first origin was lost")
	}
}

func TestTopUpCommand(t *testing.T) {
	g, dir := newGateway(t), t.TempDir()
	w := &fakeWallet{g: g}
	c := buyer(t, g, w, dir)
	base := "http://gateway.test/"
	if _, _, err := c.TopUp(t.Context(), base, 20_000); !errors.Is(err, client.ErrNoToken) {
		t.Fatalf("without a token: %v", err)
	}
	mustCall(t, c, callURL)
	before := storedTokens(t, dir)[0]
	p, b, err := c.TopUp(t.Context(), base, 20_000)
	if err != nil || p.Token.ID != before.ID || p.Amount != 20_000 || b.Available != 10_000-1000+20_000 || b.Account != before.ID.String() {
		t.Fatalf("%+v %+v %v", p, b, err)
	}
	if got, err := c.Balance(t.Context(), base); err != nil || got.Available != b.Available {
		t.Errorf("balance %+v, %v", got, err)
	}
	g.spoil = func(c *challenge) { c.id.TokenID = l402.NewTokenID() }
	var bad *client.InvoiceError
	if _, _, err := c.TopUp(t.Context(), base, 20_000); !errors.As(err, &bad) {
		t.Errorf("challenge for another account: %v", err)
	}
	// The client does not silently pay more than it asked for, when the gateway's smallest purchase
	// is larger.
	for _, larger := range []func(*challenge){
		func(c *challenge) {
			c.invoice.Amount, c.problem["amount_msat"], c.caveats[2] = 4_000, 4_000, "inference_deposit_msat=4000"
		},
		func(c *challenge) {
			c.invoice.Amount, c.caveats[2] = 4_000, "inference_deposit_msat=4000"
			delete(c.problem, "amount_msat")
		},
	} {
		g.spoil = larger
		if _, _, err := c.TopUp(t.Context(), base, 1_000); !errors.As(err, &bad) || !strings.Contains(err.Error(), "asks for 4000 msat") {
			t.Errorf("more than was asked for: %v", err)
		}
	}
	var budget *client.BudgetError
	g.spoil = nil
	if _, _, err := c.TopUp(t.Context(), base, 60_000); !errors.As(err, &budget) {
		t.Errorf("above the cap: %v", err)
	}
	if w.payments() != 2 {
		t.Errorf("%d payments", w.payments())
	}
}

func TestNewChecksConfig(t *testing.T) {
	store, err := client.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	good := client.Config{Wallet: &fakeWallet{}, Store: store, Network: bolt11.Signet}
	if _, err := client.New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*client.Config){
		"wallet": func(c *client.Config) { c.Wallet = nil }, "store": func(c *client.Config) { c.Store = nil },
		"network": func(c *client.Config) { c.Network = "lightning" }, "cap": func(c *client.Config) { c.MaxPerRequest = -1 },
		"fee": func(c *client.Config) { c.MaxFee.PPM = 1_000_001 },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := client.New(cfg); err == nil {
			t.Errorf("bad %s was taken", name)
		}
	}
}

func TestCancelledBeforeAnything(t *testing.T) {
	g := newGateway(t)
	w := &fakeWallet{g: g}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := call(ctx, buyer(t, g, w, t.TempDir()), callURL); !errors.Is(err, context.Canceled) || w.payments() != 0 {
		t.Errorf("%v, %d payments", err, w.payments())
	}
}
