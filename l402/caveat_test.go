package l402

import (
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"
)

func unix(s int64) time.Time { return time.Unix(s, 0) }

type caveatVector struct {
	Name         string          `json:"name"`
	Minted       *[]string       `json:"minted"` // replaces the caveats that Mint writes
	Added        []string        `json:"added"`
	RepeatFirst  int             `json:"repeat_first"` // how often the first added caveat is repeated
	ThirdParty   bool            `json:"third_party"`  // a third-party caveat at the end
	Reason       string          `json:"reason"`       // part of the CaveatError's reason; "": the token is accepted
	Condition    string          `json:"condition"`
	Expired      bool            `json:"expired"`
	ValidUntil   int64           `json:"valid_until"`
	Attenuated   *bool           `json:"attenuated"`
	Limits       []Msat          `json:"limits"`
	Labels       []string        `json:"labels"`
	Label        *string         `json:"label"`
	Rates        []int64         `json:"rates"`
	Models       map[string]bool `json:"models"`
	Capabilities map[string]bool `json:"capabilities"`
	Size         int             `json:"size"`
}

// build returns a macaroon with the vector's caveats, signed with the key of ring.
func (v caveatVector) build(t testing.TB, ring *Keyring) []byte {
	t.Helper()
	minted := []string{"services=inference:0", "inference_valid_until=2000000000", "inference_deposit_msat=250000"}
	if v.Minted != nil {
		minted = *v.Minted
	}
	added := v.Added
	for range v.RepeatFirst - 1 {
		added = append([]string{v.Added[0]}, added...)
	}
	id := Identifier{PaymentHash: testPreimage.Hash(), TokenID: TokenID{7}}.Encode()
	c := newChain()
	ring.rootKey(c, &ring.keys[0], id)
	m, err := macaroon.New(c.sum[:], id, "", macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	for _, condition := range append(minted, added...) {
		if err := m.AddFirstPartyCaveat([]byte(condition)); err != nil {
			t.Fatal(err)
		}
	}
	if v.ThirdParty {
		if err := m.AddThirdPartyCaveat([]byte("shared"), []byte("inference_rpm=1"), "elsewhere"); err != nil {
			t.Fatal(err)
		}
	}
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCaveats(t *testing.T) {
	ring := readVectors[tokenVectors](t, "tokens.json").ring(t)
	for _, v := range readVectors[[]caveatVector](t, "caveats.json") {
		t.Run(v.Name, func(t *testing.T) {
			b := v.build(t, ring)
			if v.Size > 0 && v.Size != len(b) {
				t.Fatalf("the macaroon has %d bytes, want %d", len(b), v.Size)
			}
			token, err := ring.Verify(&Credential{Macaroon: b, Preimage: testPreimage})
			if err != nil {
				t.Fatal(err)
			}
			err = token.Authorize("inference", testNow)
			switch refused, ok := isCaveatError(err); {
			case v.Reason != "":
				if !ok || !strings.Contains(refused.Reason, v.Reason) || v.Condition != "" && refused.Condition != v.Condition {
					t.Fatalf("got %v, want a refusal: %s", err, v.Reason)
				}
				if v.Minted == nil && (token.Deposit != 250_000 || !token.Attenuated && v.Condition != "preimage") {
					t.Errorf("got %+v", token) // the deposit is read whatever was added
				}
				return
			case v.Expired:
				if err != ErrExpired {
					t.Fatalf("got %v, want ErrExpired", err)
				}
			case err != nil:
				t.Fatal(err)
			}
			v.check(t, token)
		})
	}
}

func (v caveatVector) check(t *testing.T, token *Token) {
	t.Helper()
	if want := len(v.Added) > 0; v.Attenuated == nil && v.Limits == nil && token.Attenuated != want || v.Attenuated != nil && token.Attenuated != *v.Attenuated {
		t.Errorf("attenuated: %v", token.Attenuated)
	}
	if v.ValidUntil > 0 && token.ValidUntil.Unix() != v.ValidUntil {
		t.Errorf("valid until %v", token.ValidUntil)
	}
	if v.Label != nil && token.Label != *v.Label {
		t.Errorf("label %q", token.Label)
	}
	var limits []Msat
	var labels []string
	ids := map[[32]byte]bool{}
	for _, b := range token.Budgets {
		limits, labels, ids[b.ID] = append(limits, b.Limit), append(labels, b.Label), true
	}
	if !slices.Equal(limits, v.Limits) || v.Labels != nil && !slices.Equal(labels, v.Labels) || len(ids) != len(limits) {
		t.Errorf("budgets %+v", token.Budgets)
	}
	if n := len(limits); n > 0 && token.Chain != ChainID(token.Budgets[n-1].ID) {
		t.Errorf("chain %v", token.Chain)
	}
	var rates []int64
	for _, r := range token.RateLimits {
		rates = append(rates, r.PerMinute)
	}
	if !slices.Equal(rates, v.Rates) {
		t.Errorf("rates %v", rates)
	}
	checkNames(t, "model", v.Models, token.AllowModel)
	checkNames(t, "capability", v.Capabilities, token.AllowCapability)
}

func checkNames(t *testing.T, kind string, want map[string]bool, allow func(string) error) {
	t.Helper()
	if want == nil {
		want = map[string]bool{"anything": true, "": true}
	}
	for name, ok := range want {
		err := allow(name)
		if _, refused := isCaveatError(err); ok != (err == nil) || !ok && !refused {
			t.Errorf("%s %q: %v", kind, name, err)
		}
	}
}

func TestAuthorizeAnyService(t *testing.T) {
	ring := readVectors[tokenVectors](t, "tokens.json").ring(t)
	token, err := ring.Verify(&Credential{Macaroon: mint(t, ring), Preimage: testPreimage})
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Authorize("", testNow); err != nil {
		t.Error(err)
	}
	if err := token.Authorize("", token.ValidUntil); err != ErrExpired {
		t.Errorf("at the expiry: %v", err)
	}
	if err := token.Authorize("embed", token.ValidUntil); err != ErrOtherService {
		t.Errorf("another service, expired: %v", err)
	}
}

// TestDelegation checks three things. Two copies of a sub-token name the same budget. Two
// sub-tokens of one parent share only the parent's budget. The parent is not changed.
func TestDelegation(t *testing.T) {
	ring := readVectors[tokenVectors](t, "tokens.json").ring(t)
	verify := func(b []byte) *Token {
		t.Helper()
		token, err := ring.Verify(&Credential{Macaroon: b, Preimage: testPreimage})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	attenuate := func(b []byte, conditions ...string) []byte {
		t.Helper()
		b, err := Attenuate(b, conditions...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	parent := attenuate(mint(t, ring), "inference_budget_msat=1000")
	one := attenuate(parent, "inference_label=one", "inference_budget_msat=10")
	same := attenuate(parent, "inference_label=one", "inference_budget_msat=10")
	two := attenuate(parent, "inference_label=two", "inference_budget_msat=10")
	p, a, b, c := verify(parent), verify(one), verify(same), verify(two)
	if a.Chain != b.Chain || a.Chain == c.Chain || a.Chain == p.Chain || p.Chain == (ChainID{}) {
		t.Error("chains do not tell sub-tokens apart")
	}
	if a.Budgets[0].ID != p.Budgets[0].ID || c.Budgets[0].ID != p.Budgets[0].ID {
		t.Error("children do not spend from the parent's budget")
	}
	narrowed := verify(attenuate(one, "inference_models=m"))
	if narrowed.Chain != a.Chain {
		t.Error("a caveat that is no budget opened another chain")
	}
}

func TestAttenuateRefuses(t *testing.T) {
	ring := readVectors[tokenVectors](t, "tokens.json").ring(t)
	good := mint(t, ring)
	for name, b := range map[string][]byte{"nothing": nil, "noise": []byte("x"), "trailing byte": append(slices.Clone(good), 0)} {
		if _, err := Attenuate(b, "x=1"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Attenuate(good, strings.Repeat("x", MaxMacaroonSize)); err == nil {
		t.Error("too large: no error")
	}
	if _, _, err := Inspect([]byte("x")); err != ErrMacaroon {
		t.Errorf("inspect noise: %v", err)
	}
}
