package l402

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"gopkg.in/macaroon.v2"
)

func TestVerifyVectors(t *testing.T) {
	vectors := readVectors[tokenVectors](t, "tokens.json")
	ring := vectors.ring(t)
	for _, v := range vectors.Tokens {
		t.Run(v.Name, func(t *testing.T) {
			token, err := ring.Verify(&Credential{Macaroon: v.Macaroon, Preimage: Preimage(v.Preimage)})
			want := map[string]error{"": nil, "unknown": ErrUnknownToken, "preimage": ErrPreimage}[v.Error]
			if err != want {
				t.Fatalf("got %v, want %v", err, want)
			}
			if err != nil {
				return
			}
			checkToken(t, token, v)
			if err := token.Authorize(v.Service, testNow); err != nil {
				t.Errorf("authorize: %v", err)
			}
			if err := token.Authorize("another", testNow); err != ErrOtherService {
				t.Errorf("authorize for another service: %v", err)
			}
			if token.ID != TokenID(vectors.TokenID) || token.PaymentHash != PaymentHash(vectors.PaymentHash) {
				t.Errorf("token %v, hash %v", token.ID, token.PaymentHash)
			}
			if id, conditions, err := Inspect(v.Macaroon); err != nil || id.TokenID != token.ID || !slices.Equal(conditions, v.Conditions) {
				t.Errorf("inspect: %v, %q, %v", id, conditions, err)
			}
			sameAsLibrary(t, v)
		})
	}
}

func checkToken(t *testing.T, token *Token, v tokenVector) {
	t.Helper()
	if token.Service != v.Service || token.Deposit != v.Deposit || token.ValidUntil.Unix() != v.ValidUntil ||
		token.Attenuated != v.Attenuated || token.Label != v.Label || token.RateLock != rateLock(t, v.RateLock) {
		t.Errorf("got %+v", token)
	}
	if string(token.Chain[:]) != string(v.Chain) {
		t.Errorf("chain %v, want %x", token.Chain, []byte(v.Chain))
	}
	if len(token.Budgets) != len(v.BudgetIDs) || len(token.RateLimits) != len(v.RateLimitIDs) {
		t.Fatalf("budgets %v, rate limits %v", token.Budgets, token.RateLimits)
	}
	for i, b := range token.Budgets {
		if string(b.ID[:]) != string(v.BudgetIDs[i]) || b.Label != v.Labels[i] {
			t.Errorf("budget %d: %+v", i, b)
		}
	}
	for i, r := range token.RateLimits {
		if string(r.ID[:]) != string(v.RateLimitIDs[i]) {
			t.Errorf("rate limit %d: %+v", i, r)
		}
	}
}

// sameAsLibrary checks that the macaroon library verifies the same signature.
func sameAsLibrary(t *testing.T, v tokenVector) {
	t.Helper()
	var m macaroon.Macaroon
	if err := m.UnmarshalBinary(v.Macaroon); err != nil {
		t.Fatal(err)
	}
	if _, err := m.VerifySignature(v.RootKey, nil); err != nil {
		t.Errorf("the library refuses the signature: %v", err)
	}
}

func TestMintVectors(t *testing.T) {
	vectors := readVectors[tokenVectors](t, "tokens.json")
	ring := vectors.ring(t)
	for _, v := range vectors.Tokens {
		if !v.Mint {
			continue
		}
		got, err := ring.Mint(MintParams{Service: v.Service, PaymentHash: PaymentHash(vectors.PaymentHash), TokenID: TokenID(vectors.TokenID),
			Deposit: v.Deposit, ValidUntil: unix(v.ValidUntil), RateLock: rateLock(t, v.RateLock)})
		if err != nil || !bytes.Equal(got, v.Macaroon) {
			t.Errorf("%s: %v\n got %x\nwant %x", v.Name, err, got, []byte(v.Macaroon))
		}
	}
}

// TestChainMatchesLibrary signs macaroons of many shapes with the library, also with third-party
// caveats, and compares the signature after each caveat.
func TestChainMatchesLibrary(t *testing.T) {
	for n := range 8 {
		rootKey := bytes.Repeat([]byte{byte(n + 1)}, 16*n+1)
		if len(rootKey) > 64 {
			rootKey = rootKey[:64]
		}
		m, err := macaroon.New(rootKey, bytes.Repeat([]byte("id"), n*40), "here", macaroon.V2)
		if err != nil {
			t.Fatal(err)
		}
		var want [][]byte
		for i := range n * 3 {
			if i%3 == 2 {
				err = m.AddThirdPartyCaveat([]byte("shared"), bytes.Repeat([]byte("c"), i*31), "there")
			} else {
				err = m.AddFirstPartyCaveat(bytes.Repeat([]byte{byte(i)}, i*50))
			}
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, m.Signature())
		}
		b, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := parseMacaroon(b)
		if err != nil {
			t.Fatal(err)
		}
		c := newChain()
		c.sign(rootKey, raw)
		if !c.signed(m.Signature()) || c.signed(make([]byte, 32)) {
			t.Errorf("%d caveats: final signature differs", len(want))
		}
		for i := range want {
			if !bytes.Equal(c.at[i][:], want[i]) {
				t.Errorf("%d caveats: signature %d differs", len(want), i)
			}
		}
	}
}

func TestVerifyNothing(t *testing.T) {
	if _, err := readVectors[tokenVectors](t, "tokens.json").ring(t).Verify(nil); err != ErrUnknownToken {
		t.Errorf("got %v", err)
	}
}

func TestKeyStates(t *testing.T) {
	key := func(id string, state KeyState) MasterKey {
		return MasterKey{ID: id, State: state, Secret: sha256.Sum256([]byte(id))}
	}
	ledger := LedgerID{1}
	ring := func(keys ...MasterKey) *Keyring {
		r, err := NewKeyring(ledger, keys)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := ring(key("a", KeyMint))
	token := mint(t, before)
	for name, c := range map[string]struct {
		ring *Keyring
		want error
	}{
		"same":                       {before, nil},
		"another minting key first":  {ring(key("b", KeyMint), key("a", KeyMint)), nil},
		"retired":                    {ring(key("b", KeyMint), key("a", KeyVerify)), nil},
		"retired, listed first":      {ring(key("a", KeyVerify), key("b", KeyMint)), nil},
		"revoked":                    {ring(key("b", KeyMint), key("a", KeyRevoked)), ErrUnknownToken},
		"gone":                       {ring(key("b", KeyMint)), ErrUnknownToken},
		"same name, another secret":  {ring(MasterKey{ID: "a", State: KeyMint, Secret: [32]byte{9}}), ErrUnknownToken},
		"same secret, another label": {ring(MasterKey{ID: "z", State: KeyMint, Secret: key("a", KeyMint).Secret}), nil},
	} {
		if _, err := c.ring.Verify(&Credential{Macaroon: token, Preimage: testPreimage}); err != c.want {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}

	rotated := ring(key("a", KeyVerify), key("b", KeyMint), key("c", KeyMint))
	fresh := mint(t, rotated)
	if _, err := ring(key("b", KeyMint)).Verify(&Credential{Macaroon: fresh, Preimage: testPreimage}); err != nil {
		t.Errorf("the first minting key did not mint: %v", err)
	}
	if _, err := before.Verify(&Credential{Macaroon: fresh, Preimage: testPreimage}); err != ErrUnknownToken {
		t.Errorf("a verifying key minted: %v", err)
	}
	other, err := NewKeyring(LedgerID{2}, []MasterKey{key("a", KeyMint)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Verify(&Credential{Macaroon: token, Preimage: testPreimage}); err != ErrUnknownToken {
		t.Errorf("a token of another ledger verifies: %v", err)
	}
}

func TestNewKeyringRefuses(t *testing.T) {
	one, two := [32]byte{1}, [32]byte{2}
	for name, keys := range map[string][]MasterKey{
		"no key":          nil,
		"none mints":      {{"a", KeyVerify, one}, {"b", KeyRevoked, two}},
		"no id":           {{"", KeyMint, one}},
		"same id":         {{"a", KeyMint, one}, {"a", KeyVerify, two}},
		"same secret":     {{"a", KeyMint, one}, {"b", KeyVerify, one}},
		"revoked as well": {{"a", KeyMint, one}, {"b", KeyRevoked, one}},
		"zero secret":     {{"a", KeyMint, [32]byte{}}},
		"unknown state":   {{"a", KeyMint, one}, {"b", "retired", two}},
		"no state":        {{"a", "", one}},
	} {
		if _, err := NewKeyring(LedgerID{}, keys); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestFingerprint(t *testing.T) {
	vectors := readVectors[tokenVectors](t, "tokens.json")
	for _, k := range vectors.keys() {
		got := k.Fingerprint(LedgerID(vectors.Ledger))
		if !bytes.Equal(got[:], vectors.Fingerprints[k.ID]) {
			t.Errorf("key %s: %x", k.ID, got)
		}
		if got == k.Fingerprint(LedgerID{}) {
			t.Errorf("key %s: same fingerprint for another ledger", k.ID)
		}
	}
}

func TestMintRefuses(t *testing.T) {
	ring := readVectors[tokenVectors](t, "tokens.json").ring(t)
	good := MintParams{Service: "inference", Deposit: 1, ValidUntil: testNow}
	if _, err := ring.Mint(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*MintParams){
		"no service":           func(p *MintParams) { p.Service = "" },
		"underscore":           func(p *MintParams) { p.Service = "a_b" },
		"capital":              func(p *MintParams) { p.Service = "A" },
		"digit first":          func(p *MintParams) { p.Service = "1a" },
		"long name":            func(p *MintParams) { p.Service = strings.Repeat("a", 65) },
		"no deposit":           func(p *MintParams) { p.Deposit = 0 },
		"negative deposit":     func(p *MintParams) { p.Deposit = -1 },
		"deposit out of range": func(p *MintParams) { p.Deposit = MaxMsat + 1 },
		"no expiry":            func(p *MintParams) { p.ValidUntil = unix(0) },
		"far expiry":           func(p *MintParams) { p.ValidUntil = unix(maxUnixTime + 1) },
		"lock of no epoch":     func(p *MintParams) { p.RateLock.Until = testNow },
		"lock of no time":      func(p *MintParams) { p.RateLock.Epoch = 1 },
	} {
		p := good
		change(&p)
		if _, err := ring.Mint(p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSecretsRedactThemselves(t *testing.T) {
	token := mint(t, readVectors[tokenVectors](t, "tokens.json").ring(t))
	key := MasterKey{ID: "k", State: KeyMint, Secret: [32]byte(testPreimage)}
	for _, secret := range []any{testPreimage, &testPreimage, key, &key, Credential{Macaroon: token, Preimage: testPreimage}, &Credential{Macaroon: token, Preimage: testPreimage}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			out := strings.ToLower(fmt.Sprintf(verb, secret))
			for _, leak := range []string{"1111", "17 17", "17, 17", "0x11", `\x11`} {
				if strings.Contains(out, leak) {
					t.Errorf("%T under %s: %s", secret, verb, out)
				}
			}
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "a", testPreimage, "b", key, "c", Credential{Macaroon: token, Preimage: testPreimage}, "d", &Credential{Macaroon: token, Preimage: testPreimage}, "e", []any{testPreimage, key})
	if strings.Contains(log.String(), "1111") || strings.Contains(log.String(), "17,17") {
		t.Errorf("log: %s", log.String())
	}
	// Errors about a credential contain neither the preimage nor the macaroon.
	h := http.Header{"Authorization": {FormatCredential(token, testPreimage) + "x"}}
	if _, err := CredentialFromHeader(h); err == nil || strings.Contains(err.Error(), "1111") {
		t.Errorf("got %v", err)
	}
}

func TestEncodersNeverWriteSecrets(t *testing.T) {
	for _, secret := range []interface{ MarshalText() ([]byte, error) }{testPreimage, MasterKey{}, Credential{}} {
		if b, err := secret.MarshalText(); err == nil {
			t.Errorf("%T: %s", secret, b)
		}
	}
}

// mint makes a token of the service "inference" whose preimage is testPreimage.
func mint(t testing.TB, ring *Keyring) []byte {
	t.Helper()
	b, err := ring.Mint(MintParams{Service: "inference", PaymentHash: testPreimage.Hash(), TokenID: TokenID{7}, Deposit: 250_000, ValidUntil: unix(2_000_000_000)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// isCaveatError returns the *CaveatError in err, and whether there is one.
func isCaveatError(err error) (*CaveatError, bool) {
	var c *CaveatError
	ok := errors.As(err, &c)
	return c, ok
}
