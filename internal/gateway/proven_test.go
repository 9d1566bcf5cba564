package gateway

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402"
)

// paidCredential mints a token and returns its credential, as a client sends it, with a preimage
// that paid for it.
func paidCredential(t testing.TB, keys *l402.Keyring, n byte, caveats ...string) string {
	t.Helper()
	preimage := l402.Preimage(bytes.Repeat([]byte{n}, len(l402.Preimage{})))
	macaroon, err := keys.Mint(l402.MintParams{Service: "inference", PaymentHash: preimage.Hash(), TokenID: l402.TokenID{n},
		Deposit: 1000, ValidUntil: time.Now().Add(time.Hour)})
	for _, c := range caveats {
		if err == nil {
			macaroon, err = l402.Attenuate(macaroon, c)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return l402.FormatCredential(macaroon, preimage)
}

func testKeys(t testing.TB) *l402.Keyring {
	t.Helper()
	keys, err := l402.NewKeyring(l402.LedgerID{1}, []l402.MasterKey{{ID: "test", State: l402.KeyMint, Secret: [32]byte{1}}})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestProvenCredentials: a credential is proven once, and what was not proven is proven each time.
func TestProvenCredentials(t *testing.T) {
	keys := testKeys(t)
	p := newProven(keys)
	ask := func(h http.Header) (*l402.Token, error) { return p.token(h) }
	one, other := paidCredential(t, keys, 1), paidCredential(t, keys, 2)
	in := func(name, value string) http.Header { return http.Header{name: {value}} }

	first, err := ask(in("Authorization", one))
	again, errAgain := ask(in("Authorization", strings.Clone(one)))
	if err != nil || errAgain != nil || first.ID != (l402.TokenID{1}) || again != first {
		t.Errorf("%v %v, then %v %v", first, err, again, errAgain)
	}
	if second, err := ask(in("Authorization", other)); err != nil || second.ID != (l402.TokenID{2}) {
		t.Errorf("another credential: %v %v", second, err)
	}
	boxed, err := ask(in("X-Api-Key", strings.TrimPrefix(one, "L402 ")))
	if err != nil || boxed.ID != first.ID {
		t.Errorf("in a box for keys: %v %v", boxed, err)
	}
	narrowed, err := ask(in("Authorization", paidCredential(t, keys, 1, "inference_models=small")))
	if err != nil || narrowed.AllowModel("large") == nil {
		t.Errorf("a narrowed token is taken for the whole one: %v %v", narrowed, err)
	}

	known := p.tokens.Len()
	for name, h := range map[string]http.Header{
		"two headers":   {"Authorization": {one}, "X-Api-Key": {other}},
		"two values":    {"Authorization": {one, other}},
		"one byte less": {"Authorization": {one[:len(one)-1]}},
		"a wrong proof": {"Authorization": {one[:len(one)-64] + other[len(other)-64:]}},
	} {
		for range 2 {
			if token, err := ask(h); err == nil {
				t.Errorf("%s: %v", name, token)
			}
		}
	}
	if token, err := ask(http.Header{}); token != nil || err != nil {
		t.Errorf("without a credential: %v %v", token, err)
	}
	if _, err := ask(http.Header{"Authorization": {one, one[:len(one)-2] + "00"}}); !errors.Is(err, l402.ErrConflictingCredentials) {
		t.Errorf("two values that contradict each other: %v", err)
	}
	long := strings.Replace(one, " ", strings.Repeat(" ", maxProvenSize), 1)
	if token, err := ask(in("Authorization", long)); err != nil || token.ID != first.ID {
		t.Errorf("a long value: %v %v", token, err)
	}
	if p.tokens.Len() != known {
		t.Errorf("%d credentials are remembered, want %d", p.tokens.Len(), known)
	}
}

// BenchmarkProof measures how a credential becomes a token: by computation, and from memory.
func BenchmarkProof(b *testing.B) {
	keys := testKeys(b)
	h := http.Header{"Authorization": {paidCredential(b, keys, 1)}}
	b.Run("computed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c, err := l402.CredentialFromHeader(h)
			if err == nil {
				_, err = keys.Verify(c)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		p := newProven(keys)
		for b.Loop() {
			if _, err := p.token(h); err != nil {
				b.Fatal(err)
			}
		}
	})
}
