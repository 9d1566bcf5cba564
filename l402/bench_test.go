package l402

import (
	"net/http"
	"testing"
)

// The budget for one credential from header to verdict: 15 µs and 40
// allocations. Time is shown by the benchmark; allocations are a test.
const maxAllocations = 40

// headerCases are the credentials that the budget is measured on: as minted,
// and delegated with a retired key tried second.
func headerCases(t testing.TB) (*Keyring, map[string]http.Header) {
	t.Helper()
	vectors := readVectors[tokenVectors](t, "tokens.json")
	headers := map[string]http.Header{}
	for _, v := range vectors.Tokens {
		switch v.Name {
		case "as minted", "by a retired key", "delegated twice":
			headers[v.Name] = http.Header{"Authorization": {FormatCredential(v.Macaroon, Preimage(v.Preimage))}}
		}
	}
	if len(headers) != 3 {
		t.Fatal("vectors are missing")
	}
	return vectors.ring(t), headers
}

func check(ring *Keyring, h http.Header) error {
	c, err := CredentialFromHeader(h)
	if err != nil {
		return err
	}
	token, err := ring.Verify(c)
	if err != nil {
		return err
	}
	return token.Authorize("inference", testNow)
}

func TestAllocations(t *testing.T) {
	ring, headers := headerCases(t)
	for name, h := range headers {
		n := testing.AllocsPerRun(100, func() {
			if err := check(ring, h); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%s: %.0f allocations", name, n)
		if n > maxAllocations {
			t.Errorf("%s: %.0f allocations, at most %d are allowed", name, n, maxAllocations)
		}
	}
}

func BenchmarkCredential(b *testing.B) {
	ring, headers := headerCases(b)
	for name, h := range headers {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := check(ring, h); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkForged is what a caller without a token can make us do: a macaroon
// of the most caveats, under every key.
func BenchmarkForged(b *testing.B) {
	ring, _ := headerCases(b)
	big := caveatVector{Added: []string{"x"}, RepeatFirst: maxCaveats - 3}.build(b, ring)
	big[len(big)-1] ^= 1
	h := http.Header{"Authorization": {FormatCredential(big, testPreimage)}}
	b.ReportAllocs()
	for b.Loop() {
		if err := check(ring, h); err != ErrUnknownToken {
			b.Fatal(err)
		}
	}
}
