package l402

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"time"
)

// hexBytes is a byte string written as hex in a vector file.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

// readVectors decodes a file of testdata. Another implementation (Python's hmac and hashlib) made
// these files, so that they check this implementation independently.
func readVectors[T any](t testing.TB, name string) T {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

type keyVector struct {
	ID     string   `json:"id"`
	State  KeyState `json:"state"`
	Secret hexBytes `json:"secret"`
}

type tokenVector struct {
	Name         string     `json:"name"`
	Macaroon     hexBytes   `json:"macaroon"`
	Preimage     hexBytes   `json:"preimage"`
	Error        string     `json:"error"`
	RootKey      hexBytes   `json:"root_key"`
	Conditions   []string   `json:"conditions"`
	BudgetIDs    []hexBytes `json:"budget_ids"`
	RateLimitIDs []hexBytes `json:"rate_limit_ids"`
	Chain        hexBytes   `json:"chain"`
	Service      string     `json:"service"`
	Deposit      Msat       `json:"deposit_msat"`
	ValidUntil   int64      `json:"valid_until"`
	RateLock     string     `json:"rate_lock"`
	Attenuated   bool       `json:"attenuated"`
	Labels       []string   `json:"labels"`
	Label        string     `json:"label"`
	Mint         bool       `json:"mint"` // Mint must return exactly these bytes
}

type tokenVectors struct {
	Ledger       hexBytes            `json:"ledger_id"`
	PaymentHash  hexBytes            `json:"payment_hash"`
	TokenID      hexBytes            `json:"token_id"`
	Keys         []keyVector         `json:"keys"`
	Fingerprints map[string]hexBytes `json:"fingerprints"`
	Tokens       []tokenVector       `json:"tokens"`
}

func (v tokenVectors) keys() []MasterKey {
	var keys []MasterKey
	for _, k := range v.Keys {
		keys = append(keys, MasterKey{ID: k.ID, State: k.State, Secret: [32]byte(k.Secret)})
	}
	return keys
}

func (v tokenVectors) ring(t testing.TB) *Keyring {
	t.Helper()
	ring, err := NewKeyring(LedgerID(v.Ledger), v.keys())
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// testPreimage is the preimage for every token of the vectors.
var testPreimage = Preimage([]byte("\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11"))

// testNow is before the expiry of the vectors' tokens.
var testNow = time.Unix(1_700_000_000, 0)

// rateLock reads a rate lock of the vectors, "<epoch>:<unix seconds>".
func rateLock(t testing.TB, s string) RateLock {
	t.Helper()
	if s == "" {
		return RateLock{}
	}
	l, ok := parseRateLock(s)
	if !ok {
		t.Fatalf("rate lock %q", s)
	}
	return l
}
