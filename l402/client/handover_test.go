package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

const gatewayURL = "http://gateway.test"

// delegated buys an account in one store and gives a part of it to another store. It returns the
// directories of the parent's store and of the sub-agent's store, and the part.
func delegated(t *testing.T, g *fakeGateway, w client.Wallet, d client.Delegation) (parent, sub string, part client.Token) {
	t.Helper()
	parent, sub = t.TempDir(), t.TempDir()
	mustCall(t, buyer(t, g, w, parent), callURL)
	part, err := storedTokens(t, parent)[0].Delegate(d, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	mustImport(t, buyer(t, g, w, sub), handOver(t, part))
	return parent, sub, part
}

// handOver exports a token and parses the result, as two agents do with a file.
func handOver(t *testing.T, part client.Token) l402.Credential {
	t.Helper()
	file, err := part.Export()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.ParseCredential(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustImport(t *testing.T, c *client.Client, cred l402.Credential) client.Token {
	t.Helper()
	tok, err := c.Import(t.Context(), gatewayURL, cred)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestSubAgentSpendsOnlyWhatItWasGiven(t *testing.T) {
	g := newGateway(t)
	w := &fakeWallet{g: g}
	_, sub, part := delegated(t, g, w, client.Delegation{Budget: 2500})
	c := buyer(t, g, w, sub)
	mustCall(t, c, callURL)
	mustCall(t, c, callURL)
	for _, c := range []*client.Client{c, buyer(t, g, w, sub)} { // in this process, and in a later process
		var budget *client.BudgetError
		_, _, err := call(t.Context(), c, callURL)
		if !errors.As(err, &budget) || budget.Cap != "delegated" || budget.Asked != 1000 || budget.Limit != 500 ||
			!strings.Contains(err.Error(), "the delegated token at http://gateway.test:80 has 500 msat left, this request may cost 1000 msat") {
			t.Errorf("beyond the budget: %v", err)
		}
	}
	if status, _, err := call(client.WithoutPaying(t.Context()), c, callURL); err != nil || status != http.StatusPaymentRequired {
		t.Errorf("without paying: %d %v", status, err)
	}
	if _, _, err := c.TopUp(t.Context(), gatewayURL, 20_000); !errors.Is(err, client.ErrDelegated) {
		t.Errorf("top-up: %v", err)
	}
	if w.payments() != 1 || len(openIntents(t, sub)) != 0 {
		t.Errorf("%d payments", w.payments())
	}
	if tokens := storedTokens(t, sub); len(tokens) != 1 || tokens[0].Authorization() != part.Authorization() || !tokens[0].Attenuated || tokens[0].Spent != 0 {
		t.Errorf("the store has %v", tokens)
	}
	if b, err := c.Balance(t.Context(), gatewayURL); err != nil || b.Account != part.ID.String() {
		t.Errorf("balance %+v, %v", b, err)
	}
}

func TestBuyBeyondDelegation(t *testing.T) {
	g := newGateway(t)
	w := &fakeWallet{g: g}
	_, sub, part := delegated(t, g, w, client.Delegation{Budget: 1000})
	beyond := func(cfg *client.Config) { cfg.BuyBeyondDelegation = true }
	c := buyer(t, g, w, sub, beyond)
	for range 12 { // the part pays for one call; an account of the agent's own, which is topped up, pays for the rest
		mustCall(t, c, callURL)
	}
	if w.payments() != 3 || len(g.balances) != 2 {
		t.Errorf("%d payments to %d accounts", w.payments(), len(g.balances))
	}
	tokens := storedTokens(t, sub)
	if len(tokens) != 2 || tokens[0].Attenuated || tokens[0].ID == part.ID || tokens[1].Name() != part.Name() {
		t.Fatalf("tokens %v", tokens)
	}
	mustCall(t, buyer(t, g, w, sub), callURL) // the agent's own account is not a delegation
	if _, _, err := buyer(t, g, w, sub).TopUp(t.Context(), gatewayURL, 20_000); err != nil {
		t.Errorf("top-up of its own account: %v", err)
	}
}

func TestOtherRefusalsOfADelegatedToken(t *testing.T) {
	g := newGateway(t)
	w := &fakeWallet{g: g}
	_, sub, _ := delegated(t, g, w, client.Delegation{ValidUntil: time.Now().Add(time.Minute)})
	g.closed = true
	g.spoil = func(c *challenge) { c.problem["type"] = "urn:sluice:problem:payment-required" }
	for name, tc := range map[string]struct {
		change func(*client.Config)
		url    string
		text   string
	}{
		"expired":         {func(cfg *client.Config) { cfg.Now = func() time.Time { return time.Now().Add(time.Hour) } }, callURL, "has expired"},
		"not taken":       {func(*client.Config) {}, callURL, "does not pay for this request"},
		"another service": {func(*client.Config) {}, gatewayURL + "/images/call", "does not pay for this request"},
	} {
		var budget *client.BudgetError
		_, _, err := call(t.Context(), buyer(t, g, w, sub, tc.change), tc.url)
		if !errors.As(err, &budget) || !strings.Contains(err.Error(), tc.text) || w.payments() != 1 {
			t.Errorf("%s: %v, %d payments", name, err, w.payments())
		}
	}
	if status, _, err := call(t.Context(), buyer(t, g, w, sub), "http://other.test/inference/call"); err != nil || status != http.StatusPaymentRequired || w.payments() != 2 {
		t.Errorf("another origin: %d %v, %d payments, want its own purchase", status, err, w.payments())
	}
}

func TestAnotherProcessImportsMore(t *testing.T) {
	g := newGateway(t)
	w := &fakeWallet{g: g}
	parent, sub, _ := delegated(t, g, w, client.Delegation{Budget: 1000})
	c := buyer(t, g, w, sub)
	mustCall(t, c, callURL)
	more, err := storedTokens(t, parent)[0].Delegate(client.Delegation{Budget: 1000}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	// This credential has the same deposit, and so the same payment hash, as the credential before.
	mustImport(t, buyer(t, g, w, sub), handOver(t, more))
	mustCall(t, c, callURL)
	if len(storedTokens(t, sub)) != 2 || w.payments() != 1 {
		t.Errorf("tokens %v, %d payments", storedTokens(t, sub), w.payments())
	}
}

func TestImportReplacesNothing(t *testing.T) {
	g := newGateway(t)
	w := &fakeWallet{g: g}
	parent, sub, part := delegated(t, g, w, client.Delegation{Budget: 5000})
	whole := storedTokens(t, parent)[0]
	p := buyer(t, g, w, parent)
	if _, err := p.Import(t.Context(), gatewayURL, handOver(t, part)); err == nil || !strings.Contains(err.Error(), "a store of its own") {
		t.Errorf("a part beside the whole: %v", err)
	}
	mustImport(t, p, handOver(t, whole)) // the import of the same credential loses nothing
	if got := storedTokens(t, parent); len(got) != 1 || got[0].Spent != whole.Spent || len(got[0].Deposits) != 1 || !got[0].CreatedAt.Equal(whole.CreatedAt) {
		t.Errorf("after importing it again: %+v", got)
	}
	if _, _, err := p.TopUp(t.Context(), gatewayURL, 20_000); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Import(t.Context(), gatewayURL, handOver(t, whole)); err == nil {
		t.Error("an older deposit replaced the newest")
	}

	// The whole account is imported where a part of it was imported before.
	s := buyer(t, g, w, sub)
	mustImport(t, s, handOver(t, whole))
	if got := storedTokens(t, sub); len(got) != 2 || got[0].Attenuated {
		t.Errorf("tokens %v", got)
	}
	mustCall(t, s, callURL)
}

func TestImportRefuses(t *testing.T) {
	i := newIssuer(t)
	whole := i.token(t)
	with := func(conditions ...string) l402.Credential {
		m, err := l402.Attenuate(whole.Macaroon, conditions...)
		if err != nil {
			t.Fatal(err)
		}
		return l402.Credential{Macaroon: m, Preimage: whole.Preimage}
	}
	late := func(cfg *client.Config) { cfg.Now = func() time.Time { return until } }
	for name, tc := range map[string]struct {
		base, text string
		c          l402.Credential
		change     func(*client.Config)
	}{
		"no URL":      {"gateway", "no http or https URL", with(), nil},
		"no macaroon": {gatewayURL, "not a version 2", l402.Credential{}, nil},
		"misspelt":    {gatewayURL, "would refuse the credential", with("inference_modles=a"), nil},
		"widened":     {gatewayURL, "only become smaller", with("inference_budget_msat=1", "inference_budget_msat=2"), nil},
		"preimage":    {gatewayURL, "preimage", l402.Credential{Macaroon: whole.Macaroon}, nil},
		"expired":     {gatewayURL, "expired", with("inference_budget_msat=1"), late},
	} {
		c := buyer(t, newGateway(t), &fakeWallet{}, t.TempDir())
		if tc.change != nil {
			c = buyer(t, newGateway(t), &fakeWallet{}, t.TempDir(), tc.change)
		}
		if _, err := c.Import(t.Context(), tc.base, tc.c); err == nil || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An expired account can be topped up.
	mustImport(t, buyer(t, newGateway(t), &fakeWallet{}, t.TempDir(), late), with())
}

func TestPaysForNoAttenuatedToken(t *testing.T) {
	g := newGateway(t)
	w := &fakeWallet{g: g}
	g.spoil = func(c *challenge) { c.caveats = append(c.caveats, "inference_budget_msat=1") }
	var bad *client.InvoiceError
	if _, _, err := call(t.Context(), buyer(t, g, w, t.TempDir()), callURL); !errors.As(err, &bad) || w.payments() != 0 {
		t.Errorf("%v, %d payments", err, w.payments())
	}
}

func TestParseCredential(t *testing.T) {
	i := newIssuer(t)
	tok, other := i.token(t), i.token(t)
	_, secret, _ := strings.Cut(tok.Authorization(), " ")
	mac, preimage, _ := strings.Cut(secret, ":")
	for name, text := range map[string]string{
		"line": tok.Authorization(), "with a line end": tok.Authorization() + "\r\n", "as a header": "authorization: " + tok.Authorization(),
		"another scheme": "LSAT " + secret, "Bearer": "Bearer " + secret,
		"object":        fmt.Sprintf(`{"macaroon":%q,"preimage":%q}`, mac, preimage),
		"authorization": fmt.Sprintf(` {"authorization":%q, "more": 1}`, tok.Authorization()),
	} {
		c, err := client.ParseCredential([]byte(text))
		if err != nil || l402.FormatCredential(c.Macaroon, c.Preimage) != tok.Authorization() {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"nothing": "", "no scheme": secret, "two lines": tok.Authorization() + "\n" + tok.Authorization(),
		"two macaroons":  "L402 " + mac + "," + strings.Split(strings.Fields(other.Authorization())[1], ":")[0] + ":" + preimage,
		"half an object": `{"macaroon":"` + mac + `"}`, "two objects": `{"authorization":"` + tok.Authorization() + `"}{}`,
		"no macaroon": "L402 aaaa:" + preimage, "empty object": "{}", "no object": `{"macaroon":` + secret,
		"preimage of another": fmt.Sprintf(`{"macaroon":%q,"preimage":%q}`, mac, other.Preimage.Hex()),
		"contradiction":       fmt.Sprintf(`{"macaroon":%q,"preimage":%q,"authorization":%q}`, mac, preimage, other.Authorization()),
	} {
		c, err := client.ParseCredential([]byte(text))
		if err == nil || strings.Contains(err.Error(), mac[:20]) || strings.Contains(err.Error(), preimage[:8]) || c.Macaroon != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseCredential(f *testing.F) {
	p := l402.Preimage{1}
	m := newGateway(f).mint(challenge{id: l402.Identifier{PaymentHash: p.Hash()}, caveats: []string{"services=inference:0", "preimage=" + p.Hex()}})
	f.Add([]byte(l402.FormatCredential(m, p)))
	f.Add([]byte(`{"macaroon":"AgA=","preimage":"` + p.Hex() + `"}`))
	f.Add([]byte(`{"authorization":"` + l402.FormatCredential(m, p) + `"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := client.ParseCredential(data)
		if err != nil {
			return
		}
		again, err := client.ParseCredential([]byte(l402.FormatCredential(c.Macaroon, c.Preimage)))
		if err != nil || string(again.Macaroon) != string(c.Macaroon) || again.Preimage != c.Preimage {
			t.Fatalf("read back: %v", err)
		}
	})
}
