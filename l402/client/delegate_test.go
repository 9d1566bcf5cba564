package client_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

var until = time.Now().Add(24 * time.Hour).Truncate(time.Second)

// issuer is the gateway of the tests without a network. It mints tokens and verifies what holders
// made of them.
type issuer struct{ ring *l402.Keyring }

func newIssuer(t *testing.T) issuer {
	t.Helper()
	ring, err := l402.NewKeyring(l402.LedgerID{1}, []l402.MasterKey{{ID: "k", State: l402.KeyMint, Secret: [32]byte{2}}})
	if err != nil {
		t.Fatal(err)
	}
	return issuer{ring}
}

// token mints a token, adds conditions to it, and returns it as a buyer reads it.
func (i issuer) token(t *testing.T, conditions ...string) client.Token {
	t.Helper()
	preimage := l402.NewPreimage()
	m, err := i.ring.Mint(l402.MintParams{
		Service: "inference", PaymentHash: preimage.Hash(), TokenID: l402.NewTokenID(), Deposit: 100_000, ValidUntil: until,
		RateLock: l402.RateLock{Epoch: 7, Until: until},
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := range conditions {
		conditions[n] = strings.Replace(conditions[n], "PREIMAGE", preimage.Hex(), 1)
	}
	if m, err = l402.Attenuate(m, conditions...); err != nil {
		t.Fatal(err)
	}
	return imported(t, l402.Credential{Macaroon: m, Preimage: preimage})
}

func imported(t *testing.T, c l402.Credential) client.Token {
	t.Helper()
	tok, err := buyer(t, newGateway(t), &fakeWallet{}, t.TempDir()).Import(t.Context(), "http://gateway.test", c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// verify verifies the token as a gateway does.
func (i issuer) verify(t *testing.T, tok client.Token) *l402.Token {
	t.Helper()
	v, err := i.ring.Verify(&l402.Credential{Macaroon: tok.Macaroon, Preimage: tok.Preimage})
	if err == nil {
		err = v.Authorize("inference", time.Now())
	}
	if err != nil {
		t.Fatalf("the gateway refuses the delegated token: %v", err)
	}
	return v
}

func mustDelegate(t *testing.T, tok client.Token, d client.Delegation) client.Token {
	t.Helper()
	part, err := tok.Delegate(d, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return part
}

func TestDelegate(t *testing.T) {
	i := newIssuer(t)
	whole := i.token(t, "preimage=PREIMAGE")
	if whole.Attenuated {
		t.Error("a preimage= caveat alone makes a token attenuated")
	}
	end := time.Now().Add(time.Hour)
	d := client.Delegation{Budget: 5000, Models: []string{"a", "b"}, Capabilities: []string{"chat"}, ValidUntil: end, RequestsPerMinute: 60, Label: "crawler, two"}
	part := mustDelegate(t, whole, d)
	v := i.verify(t, part)
	if !part.Attenuated || part.ID != whole.ID || part.Origin != whole.Origin || part.Spent != 0 || len(part.Deposits) != 0 {
		t.Errorf("%+v", part)
	}
	if !v.Attenuated || v.ID != whole.ID || len(v.Budgets) != 1 || v.Budgets[0].Limit != 5000 || v.Budgets[0].Label != "crawler, two" ||
		len(v.RateLimits) != 1 || v.RateLimits[0].PerMinute != 60 || v.ValidUntil.Unix() != end.Unix() || v.RateLock.Epoch != 7 {
		t.Errorf("at the gateway: %+v", v)
	}
	if v.AllowModel("a") != nil || v.AllowModel("c") == nil || v.AllowCapability("chat") != nil || v.AllowCapability("images") == nil {
		t.Error("models or capabilities are not limited")
	}

	// A part of the delegated token may have equal or smaller limits.
	d.Models, d.Budget, d.RequestsPerMinute = []string{"b"}, 4000, 30
	deeper := i.verify(t, mustDelegate(t, part, d))
	if len(deeper.Budgets) != 2 || deeper.Budgets[0].ID != v.Budgets[0].ID || deeper.AllowModel("a") == nil {
		t.Errorf("a part of the part: %+v", deeper)
	}
	if len(whole.Macaroon) >= len(part.Macaroon) || i.verify(t, whole).Attenuated {
		t.Error("the token itself has changed")
	}
}

func TestEqualDelegationsDoNotShare(t *testing.T) {
	i := newIssuer(t)
	whole := i.token(t)
	d := client.Delegation{Budget: 5000, RequestsPerMinute: 1}
	one, two := mustDelegate(t, whole, d), mustDelegate(t, whole, d)
	a, b := i.verify(t, one), i.verify(t, two)
	if a.Chain == b.Chain || a.RateLimits[0].ID == b.RateLimits[0].ID || one.Name() == two.Name() {
		t.Error("two equal delegations share a budget, a rate or a name")
	}
	d.Budget = 0
	if a, b := i.verify(t, mustDelegate(t, whole, d)), i.verify(t, mustDelegate(t, whole, d)); a.RateLimits[0].ID == b.RateLimits[0].ID {
		t.Error("two equal delegations without a budget share a rate")
	}
}

func TestDelegateOnlyNarrows(t *testing.T) {
	i := newIssuer(t)
	part := i.token(t, "inference_budget_msat=5000", "inference_models=a,b", "inference_capabilities=chat", "inference_rpm=60",
		fmt.Sprint("inference_valid_until=", until.Add(-time.Hour).Unix()))
	for name, tc := range map[string]struct {
		d           client.Delegation
		limit, text string
	}{
		"nothing":            {client.Delegation{}, "", "at least one limit"},
		"a label only":       {client.Delegation{Label: "x"}, "", "at least one limit"},
		"larger budget":      {client.Delegation{Budget: 5001}, "budget", "can only become smaller (the token's is 5000 msat)"},
		"negative budget":    {client.Delegation{Budget: -1}, "budget", "whole number"},
		"another model":      {client.Delegation{Budget: 1, Models: []string{"a", "c"}}, "models", `"c" was not in it`},
		"two models in one":  {client.Delegation{Models: []string{"a, b"}}, "models", "no space between"},
		"another capability": {client.Delegation{Capabilities: []string{"images"}}, "capabilities", `"images" was not in it`},
		"higher rate":        {client.Delegation{RequestsPerMinute: 61}, "rpm", "can only become smaller (the token's is 60)"},
		"negative rate":      {client.Delegation{RequestsPerMinute: -1}, "rpm", "between 1 and"},
		"later end":          {client.Delegation{ValidUntil: until}, "expires", "only become earlier (the token ends at " + until.Add(-time.Hour).UTC().Format(time.RFC3339)},
		"end in the past":    {client.Delegation{ValidUntil: time.Now().Add(-time.Second)}, "expires", "must lie in the future"},
		"end before 1970":    {client.Delegation{ValidUntil: time.Unix(-1, 0)}, "expires", "unix seconds"},
		"long label":         {client.Delegation{Budget: 1, Label: strings.Repeat("x", 257)}, "label", "at most 256 bytes"},
		"unprintable label":  {client.Delegation{Budget: 1, Label: "a\x1b[2J"}, "label", "printable"},
		"too large":          {client.Delegation{Models: []string{strings.Repeat("m", 9000)}}, "models", "at most 8192 are allowed"},
		"far too large":      {client.Delegation{Models: []string{strings.Repeat("m", 70_000)}}, "models", "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			var e *client.DelegationError
			_, err := part.Delegate(tc.d, time.Now())
			if !errors.As(err, &e) || e.Limit != tc.limit || !strings.Contains(e.Reason, tc.text) {
				t.Errorf("%v, want %s: …%s…", err, tc.limit, tc.text)
			}
		})
	}
}

func TestDelegateCounts(t *testing.T) {
	i := newIssuer(t)
	tok, d := i.token(t), client.Delegation{Budget: 5000}
	for range l402.MaxBudgets {
		tok = mustDelegate(t, tok, d)
	}
	if got := len(i.verify(t, tok).Budgets); got != l402.MaxBudgets {
		t.Errorf("%d budgets", got)
	}
	var e *client.DelegationError
	if _, err := tok.Delegate(d, time.Now()); !errors.As(err, &e) || e.Limit != "budget" || !strings.Contains(e.Reason, "more than 4 budgets") {
		t.Errorf("fifth budget: %v", err)
	}
	for range l402.MaxAddedCaveats - 2*l402.MaxBudgets {
		tok = mustDelegate(t, tok, client.Delegation{Models: []string{"a"}})
	}
	i.verify(t, tok)
	if _, err := tok.Delegate(client.Delegation{Models: []string{"a"}}, time.Now()); !errors.As(err, &e) || e.Limit != "models" || !strings.Contains(e.Reason, "more than 16 added caveats") {
		t.Errorf("17th caveat: %v", err)
	}
}

func TestDelegateNeedsAUsableToken(t *testing.T) {
	i := newIssuer(t)
	whole, d := i.token(t), client.Delegation{Budget: 1}
	if _, err := whole.Delegate(d, until); !errors.Is(err, l402.ErrExpired) || !strings.Contains(err.Error(), "cannot be delegated") {
		t.Errorf("expired: %v", err)
	}
	var m macaroon.Macaroon
	if err := m.UnmarshalBinary(whole.Macaroon); err != nil {
		t.Fatal(err)
	}
	if err := m.AddThirdPartyCaveat([]byte("key"), []byte("id"), "elsewhere"); err != nil {
		t.Fatal(err)
	}
	whole.Macaroon, _ = m.MarshalBinary()
	if _, err := whole.Delegate(d, time.Now()); err == nil || !strings.Contains(err.Error(), "does not have the form") {
		t.Errorf("with a third party's caveat: %v", err)
	}
	for name, caveats := range map[string][]string{
		"none": nil, "no service": {"inference_valid_until=4000000000", "inference_deposit_msat=1"}, "no deposit": {"services=inference:0"},
		"other order": {"services=inference:0", "inference_deposit_msat=1", "inference_valid_until=4000000000"},
		"two tiers":   {"services=inference:0,images:0", "inference_valid_until=4000000000", "inference_deposit_msat=1"},
		"other lock":  {"services=inference:0", "inference_valid_until=4000000000", "inference_rate_lock=x", "inference_deposit_msat=1"},
	} {
		p := l402.NewPreimage()
		foreign := newGateway(t).mint(challenge{id: l402.Identifier{PaymentHash: p.Hash()}, caveats: caveats})
		if _, err := imported(t, l402.Credential{Macaroon: foreign, Preimage: p}).Delegate(d, time.Now()); err == nil || !strings.Contains(err.Error(), "does not have the form") {
			t.Errorf("caveats %s: %v", name, err)
		}
	}
}
