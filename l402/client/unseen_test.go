package client_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

// stripping is a proxy between client and gateway that drops headers.
type stripping struct {
	http.RoundTripper
	headers []string
	seen    []http.Header // the headers that the proxy received
}

func (s *stripping) RoundTrip(r *http.Request) (*http.Response, error) {
	s.seen = append(s.seen, r.Header.Clone())
	r = r.Clone(r.Context())
	for _, name := range s.headers {
		r.Header.Del(name)
	}
	return s.RoundTripper.RoundTrip(r)
}

func through(s *stripping) func(*client.Config) {
	return func(cfg *client.Config) { cfg.Base = s }
}

// A proxy that drops Authorization causes one purchase only, because the token then arrives in the
// header Macaroon.
func TestProxyThatDropsAuthorizationCostsOnePurchase(t *testing.T) {
	g, dir := newGateway(t), t.TempDir()
	w := &fakeWallet{g: g}
	proxy := &stripping{RoundTripper: g, headers: []string{"Authorization"}}
	c := buyer(t, g, w, dir, through(proxy))
	for range 4 {
		mustCall(t, c, callURL)
	}
	mustCall(t, buyer(t, g, w, dir, through(proxy)), callURL) // a later process
	if w.payments() != 1 || g.served != 5 || len(g.balances) != 1 {
		t.Errorf("%d payments, %d served, %d accounts", w.payments(), g.served, len(g.balances))
	}
	if b, err := c.Balance(t.Context(), "http://gateway.test"); err != nil || b.Available != 10_000-5*1000 {
		t.Errorf("balance %+v, %v", b, err)
	}
	if _, _, err := c.TopUp(t.Context(), "http://gateway.test", 20_000); err != nil || len(g.balances) != 1 {
		t.Errorf("top-up: %v, %d accounts", err, len(g.balances))
	}
}

// When the proxy drops both headers, each call fails with a clear error and nothing is paid, in
// this process and in later processes.
func TestProxyThatDropsAllCredentialsIsNamed(t *testing.T) {
	g, dir := newGateway(t), t.TempDir()
	w := &fakeWallet{g: g}
	proxy := &stripping{RoundTripper: g, headers: l402.CredentialHeaders()}
	for i := range 4 {
		_, _, err := call(t.Context(), buyer(t, g, w, dir, through(proxy)), callURL)
		var unseen *client.UnseenTokenError
		if !errors.As(err, &unseen) || !strings.Contains(err.Error(), "nothing was paid") || !strings.Contains(err.Error(), "proxy") {
			t.Fatalf("call %d: %v", i, err)
		}
		if w.payments() != 1 {
			t.Fatalf("call %d: %d payments", i, w.payments())
		}
	}
	for _, h := range proxy.seen {
		if m := h.Get("Macaroon"); m != "" && strings.Contains(m, "preimage=") {
			t.Error("the macaroon is not in hex")
		}
	}
	if _, _, err := call(client.WithNewAccount(t.Context()), buyer(t, g, w, dir, through(proxy)), callURL); w.payments() != 2 {
		t.Errorf("on purpose: %v, %d payments", err, w.payments())
	}
}

// The client does not buy anything when the gateway does not see a delegated token.
func TestUnseenDelegatedTokenBuysNothing(t *testing.T) {
	g := newGateway(t)
	w := &fakeWallet{g: g}
	_, sub, _ := delegated(t, g, w, client.Delegation{Budget: 5000})
	paid := w.payments()
	proxy := &stripping{RoundTripper: g, headers: l402.CredentialHeaders()}
	beyond := func(cfg *client.Config) { cfg.BuyBeyondDelegation = true }
	g.spoil = func(c *challenge) { // the answer of a gateway to a request without a token
		delete(c.problem, "balance_msat")
		c.problem["type"] = "urn:sluice:problem:payment-required"
	}
	_, _, err := call(t.Context(), buyer(t, g, w, sub, through(proxy), beyond), callURL)
	var unseen *client.UnseenTokenError
	if !errors.As(err, &unseen) || w.payments() != paid {
		t.Errorf("%v, %d payments", err, w.payments()-paid)
	}
}

// A gateway with other software sells tickets: each of its challenges is for a new token. The
// client replaces a token that was served. It does not replace a token that was never served.
func TestTicketsOfOtherGateways(t *testing.T) {
	tickets := func(t *testing.T) (*fakeGateway, *fakeWallet, string) {
		g := newGateway(t)
		g.spoil = func(c *challenge) {
			c.id.TokenID = l402.NewTokenID()
			c.caveats = c.caveats[:2] // no deposit
			c.problem = map[string]any{}
		}
		return g, &fakeWallet{g: g}, t.TempDir()
	}
	t.Run("served", func(t *testing.T) {
		g, w, dir := tickets(t)
		g.price = 0
		mustCall(t, buyer(t, g, w, dir), callURL)
		mustCall(t, buyer(t, g, w, dir), callURL)
		g.price = 1 // the ticket is used up
		if status, _, err := call(t.Context(), buyer(t, g, w, dir), callURL); err == nil || status == http.StatusOK || w.payments() != 2 {
			t.Errorf("%d %v, %d payments; want one more, and no third", status, err, w.payments())
		}
	})
	t.Run("never served", func(t *testing.T) {
		g, w, dir := tickets(t)
		for range 3 {
			if _, _, err := call(t.Context(), buyer(t, g, w, dir), callURL); err == nil || w.payments() != 1 {
				t.Fatalf("%v, %d payments", err, w.payments())
			}
		}
	})
}
