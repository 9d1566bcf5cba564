package chaos

import (
	"net/http"
	"testing"
	"time"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/l402"
)

// TestRotation changes the minting key of two gateways one after the other while
// they serve: no token is stranded, at either of them, at any time.
func TestRotation(t *testing.T) {
	t.Parallel()
	till := meet(t)
	settings := till.Settings(quick(t).URL)
	settings.Store = pgtest.Start(t)
	first, second := settings.Keys[0], NewKey("second")
	gateways := []*Gateway{site.Gateway(t, settings), site.Gateway(t, settings)}
	tokens := []Credential{till.Buy(t, gateways[0], 20_000)}
	deposited := int64(20_000)
	usable := func(when string) {
		t.Helper()
		for i, g := range gateways {
			for j, k := range tokens {
				if b := g.Balance(t, k); b.Deposited != deposited || b.Account != tokens[0].ID.TokenID.String() {
					t.Errorf("%s: gateway %d, token %d: %+v, want %d msat deposited", when, i, j, b, deposited)
				}
				g.Ask(t, http.MethodPost, ChatPath, Chat("demo", 4, false), k.Header()).Want(t, http.StatusOK)
			}
		}
	}
	state := func(k l402.MasterKey, s l402.KeyState) l402.MasterKey { k.State = s; return k }
	for _, step := range []struct {
		name string
		keys []l402.MasterKey
	}{
		{"the new key verifies", []l402.MasterKey{first, state(second, l402.KeyVerify)}},
		{"the new key mints, the old one is retired", []l402.MasterKey{second, state(first, l402.KeyVerify)}},
	} {
		for i, g := range gateways {
			if err := g.Stop(); err != nil {
				t.Fatal(err)
			}
			g.Restart(t, func(s *Settings) { s.Keys = step.keys })
			usable(step.name + " at some")
			// Topped up in place, with a token that any of the keys has minted.
			more := till.TopUp(t, g, tokens[0], 4000)
			if more.ID.TokenID != tokens[0].ID.TokenID {
				t.Errorf("%s: gateway %d tops up another account", step.name, i)
			}
			deposited += 4000
			tokens = append(tokens, more)
			g.Balance(t, more) // presented, it counts at once
			usable(step.name + ", after a top-up")
		}
	}
	gateways[0].Verify(t)
}

// TestExpired has tokens that ran out, of the minting and of a retired key: their
// balance is readable and can be topped up in place, and not be spent.
func TestExpired(t *testing.T) {
	t.Parallel()
	till := meet(t)
	g := site.Gateway(t, till.Settings(quick(t).URL))
	ring := g.Keyring(t)
	expired := mint(t, till, ring, 6000, time.Now().Add(-time.Minute))
	retired := g.Keys[0]
	retired.State = l402.KeyVerify
	for _, keys := range [][]l402.MasterKey{g.Keys, {NewKey("second"), retired}} {
		if err := g.Stop(); err != nil {
			t.Fatal(err)
		}
		g.Restart(t, func(s *Settings) { s.Keys = keys })
		before := g.Balance(t, expired)
		if before.Available < 6000 || before.Account != expired.ID.TokenID.String() {
			t.Fatalf("an expired token sees %+v", before)
		}
		refused := g.Ask(t, http.MethodPost, ChatPath, Chat("flat", 4, false), expired.Header())
		// The 402's own challenge tops up the same account, and so does a top-up. Of
		// another amount: for the same one the same challenge would come again.
		for _, fresh := range []Credential{till.Pay(t, refused), till.TopUp(t, g, expired, 5000)} {
			if fresh.ID.TokenID != expired.ID.TokenID {
				t.Error("an expired token was offered another account")
			}
			g.Ask(t, http.MethodPost, ChatPath, Chat("flat", 4, false), fresh.Header()).Want(t, http.StatusOK)
		}
		if b := g.Idle(t, expired, 10*time.Second); b.Deposited != before.Deposited+9000 || b.Charged != before.Charged+2*FlatPrice {
			t.Errorf("before the top-ups %+v, after them %+v", before, b)
		}
	}
	g.Verify(t)
}

// mint makes and pays for a token as the gateway would have made it long ago.
func mint(t *testing.T, till *Till, ring *l402.Keyring, amount int64, until time.Time) Credential {
	t.Helper()
	preimage, account := l402.NewPreimage(), l402.NewTokenID()
	hash := preimage.Hash()
	m, err := ring.Mint(l402.MintParams{Service: "inference", PaymentHash: hash, TokenID: account, Deposit: l402.Msat(amount), ValidUntil: until})
	if err != nil {
		t.Fatal(err)
	}
	invoice, err := till.Seller.AddInvoice(t.Context(), lightning.Invoice{
		Preimage: preimage, Amount: l402.Msat(amount), Expiry: time.Minute,
		Memo: "Chaos " + ring.SealMemo(account, hash, l402.Msat(amount)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := till.Agent.Pay(t.Context(), invoice, 1000, payLimit); err != nil {
		t.Fatal(err)
	}
	return Credential{m, preimage, l402.Identifier{PaymentHash: hash, TokenID: account}, amount}
}

// TestSameAddress has clients at one address ask for the same thing: they get
// different payment hashes.
func TestSameAddress(t *testing.T) {
	t.Parallel()
	till := meet(t)
	g := site.Gateway(t, till.Settings(quick(t).URL))
	seen := map[l402.PaymentHash]bool{}
	for i := range 8 {
		h := http.Header{"L402-Deposit-Msat": {"4000"}, "User-Agent": {"same"}}
		a := g.Ask(t, http.MethodPost, ChatPath, Chat("flat", 4, false), h).Want(t, http.StatusPaymentRequired)
		c, err := l402.ParseChallenge(a.Header.Values("WWW-Authenticate"))
		if err != nil {
			t.Fatal(err)
		}
		id, _, err := l402.Inspect(c.Macaroon)
		if err != nil {
			t.Fatal(err)
		}
		if seen[id.PaymentHash] {
			t.Errorf("request %d got a payment hash that another has", i)
		}
		seen[id.PaymentHash] = true
	}
}
