package l402

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/macaroon.v2"
)

// FuzzParseIdentifier checks that an identifier that was parsed is encoded to the same bytes.
func FuzzParseIdentifier(f *testing.F) {
	f.Add(Identifier{PaymentHash: PaymentHash{1}, TokenID: TokenID{2}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, err := ParseIdentifier(b); err == nil && !bytes.Equal(id.Encode(), b) {
			t.Errorf("%x encodes to %x", b, id.Encode())
		}
	})
}

// FuzzParseMacaroon checks that parseMacaroon accepts exactly the bytes that the library reads as
// version 2 and writes again unchanged.
func FuzzParseMacaroon(f *testing.F) {
	for _, v := range readVectors[tokenVectors](f, "tokens.json").Tokens {
		f.Add([]byte(v.Macaroon))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := parseMacaroon(b)
		var m macaroon.Macaroon
		canonical := m.UnmarshalBinary(b) == nil && m.Version() == macaroon.V2 && len(b) <= MaxMacaroonSize && len(m.Caveats()) <= maxCaveats
		if canonical {
			again, err := m.MarshalBinary()
			canonical = err == nil && bytes.Equal(again, b)
		}
		if canonical != (err == nil) {
			t.Errorf("%x: got %v, the library says %v", b, err, canonical)
		}
	})
}

// FuzzCredential checks that no header causes a panic, that a credential is the same after
// formatting and parsing, and that only the token of the seeds, possibly with added caveats, is
// genuine.
func FuzzCredential(f *testing.F) {
	for _, v := range readVectors[[]credentialVector](f, "credentials.json") {
		h := v.header()
		f.Add(h.Get("Authorization"), h.Get("Macaroon"), h.Get("Grpc-Metadata-Macaroon"), h.Get("X-Api-Key"), h.Get("Token"))
	}
	vectors := readVectors[tokenVectors](f, "tokens.json")
	ring := vectors.ring(f)
	f.Fuzz(func(t *testing.T, authorization, macaroon, grpc, key, metadata string) {
		h := http.Header{}
		for name, value := range map[string]string{"Authorization": authorization, "Macaroon": macaroon,
			"Grpc-Metadata-Macaroon": grpc, "X-Api-Key": key, "Token": metadata} {
			if value != "" {
				h.Set(name, value)
			}
		}
		c, err := CredentialFromHeader(h)
		if err != nil && c != nil {
			t.Fatal("an error and a credential")
		}
		if c == nil {
			return
		}
		again, err := CredentialFromHeader(http.Header{"Authorization": {FormatCredential(c.Macaroon, c.Preimage)}})
		if err != nil || !again.join(c) {
			t.Fatalf("does not survive formatting: %v", err)
		}
		token, err := ring.Verify(c)
		if err == nil && (token.ID != TokenID(vectors.TokenID) || token.PaymentHash != c.Preimage.Hash()) {
			t.Fatalf("forged: %+v", token)
		}
		if err == nil {
			token.Authorize("inference", testNow)
		}
	})
}

// FuzzCaveats checks that a token is never wider than its parent, whatever caveats a holder adds.
// Each line of the input is one caveat.
func FuzzCaveats(f *testing.F) {
	for _, v := range readVectors[[]caveatVector](f, "caveats.json") {
		if v.Minted == nil && !v.ThirdParty && len(v.Added) > 0 {
			f.Add(strings.Join(v.Added[:len(v.Added)-1], "\n"), v.Added[len(v.Added)-1])
		}
	}
	ring := readVectors[tokenVectors](f, "tokens.json").ring(f)
	minted := mint(f, ring)
	judge := func(t *testing.T, b []byte) (*Token, error) {
		token, err := ring.Verify(&Credential{Macaroon: b, Preimage: testPreimage})
		if err != nil {
			t.Fatal(err)
		}
		return token, token.Authorize("inference", testNow)
	}
	f.Fuzz(func(t *testing.T, before, last string) {
		parentBytes, err := Attenuate(minted, strings.Split(before, "\n")...)
		if err != nil {
			return
		}
		childBytes, err := Attenuate(parentBytes, last)
		if err != nil {
			return
		}
		parent, parentErr := judge(t, parentBytes)
		child, childErr := judge(t, childBytes)
		if childErr != nil {
			return
		}
		switch {
		case parentErr != nil:
			t.Errorf("%q made a refused token (%v) usable", last, parentErr)
		case child.Service != parent.Service || child.Deposit != parent.Deposit || child.RateLock != parent.RateLock:
			t.Errorf("%q changed what was minted", last)
		case child.ValidUntil.After(parent.ValidUntil):
			t.Errorf("%q: later expiry", last)
		case len(child.Budgets) < len(parent.Budgets) || len(child.Budgets) > MaxBudgets || len(child.RateLimits) < len(parent.RateLimits):
			t.Errorf("%q: budgets %v became %v", last, parent.Budgets, child.Budgets)
		}
		for i, b := range parent.Budgets {
			if child.Budgets[i].ID != b.ID || child.Budgets[i].Limit != b.Limit {
				t.Errorf("%q changed budget %d", last, i)
			}
		}
		for i := 1; i < len(child.Budgets); i++ {
			if child.Budgets[i].Limit > child.Budgets[i-1].Limit {
				t.Errorf("%q: a larger budget", last)
			}
		}
		for _, name := range append([]string{"a", "chat", ""}, child.models.names...) {
			if child.AllowModel(name) == nil && parent.AllowModel(name) != nil ||
				child.AllowCapability(name) == nil && parent.AllowCapability(name) != nil {
				t.Errorf("%q allows %q, which its parent does not", last, name)
			}
		}
	})
}

// FuzzParseChallenge checks that a challenge that was read has a bounded size, is printable, and is
// the same after formatting and parsing.
func FuzzParseChallenge(f *testing.F) {
	for _, v := range readVectors[[]challengeVector](f, "challenges.json") {
		f.Add(strings.Join(v.Values, "\n"))
	}
	f.Fuzz(func(t *testing.T, values string) {
		c, err := ParseChallenge(strings.Split(values, "\n"))
		if err != nil {
			return
		}
		again, err := ParseChallenge([]string{FormatChallenge(c.Macaroon, c.Invoice)})
		if err != nil || !bytes.Equal(again.Macaroon, c.Macaroon) || again.Invoice != c.Invoice {
			t.Errorf("%q does not survive formatting: %v", values, err)
		}
	})
}

// FuzzOpenMemo checks that OpenMemo accepts only the exact text that SealMemo returned, and only
// for the same invoice.
func FuzzOpenMemo(f *testing.F) {
	ring := readVectors[tokenVectors](f, "tokens.json").ring(f)
	vectors := readVectors[[]memoVector](f, "memos.json")
	for _, v := range vectors {
		f.Add(v.Sealed, int64(v.Amount))
	}
	f.Fuzz(func(t *testing.T, s string, amount int64) {
		_, err := ring.OpenMemo(s, testPreimage.Hash(), Msat(amount))
		known := slices.ContainsFunc(vectors, func(v memoVector) bool { return v.TokenID != "" && v.Sealed == s && int64(v.Amount) == amount })
		if (err == nil) != known {
			t.Errorf("%q for %d: %v", s, amount, err)
		}
	})
}

// FuzzParseMsat checks that each number has only one accepted spelling.
func FuzzParseMsat(f *testing.F) {
	for _, s := range []string{"0", "1", "01", "-1", "2100000000000000000", "2100000000000000001", "9223372036854775808", "1e3", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseMsat(s)
		if err == nil && (!n.Valid() || strconv.FormatInt(int64(n), 10) != s) {
			t.Errorf("%q was read as %d", s, n)
		}
		if v, perr := strconv.ParseUint(s, 10, 63); perr == nil && v <= uint64(MaxMsat) && strconv.FormatUint(v, 10) == s && err != nil {
			t.Errorf("%q was refused: %v", s, err)
		}
	})
}
