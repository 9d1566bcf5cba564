package l402

import (
	"net/http"
	"testing"
)

// maxAllocations is how many allocations the check of one credential may make, from the header to
// the verdict. The check should take at most 15 µs. A test checks the allocations. The benchmark
// only shows the time.
const maxAllocations = 40

// headerCases returns the headers with which the check is measured: a token as minted, and a
// delegated token whose key is retired and is tried second.
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

// BenchmarkForged measures the most expensive request of a caller without a token: a macaroon with
// the largest number of caveats, checked under every key.
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
