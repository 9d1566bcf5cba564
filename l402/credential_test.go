package l402

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
)

type credentialVector struct {
	Name     string      `json:"name"`
	Headers  [][2]string `json:"headers"`
	Macaroon hexBytes    `json:"macaroon"`
	Preimage string      `json:"preimage"`
	Error    string      `json:"error"`
}

func (v credentialVector) header() http.Header {
	h := http.Header{}
	for _, line := range v.Headers {
		h.Add(line[0], line[1])
	}
	return h
}

func TestCredentialFromHeader(t *testing.T) {
	for _, v := range readVectors[[]credentialVector](t, "credentials.json") {
		t.Run(v.Name, func(t *testing.T) {
			c, err := CredentialFromHeader(v.header())
			want := map[string]error{"": nil, "malformed": ErrMalformedCredential, "conflicting": ErrConflictingCredentials}[v.Error]
			if err != want {
				t.Fatalf("got %v, want %v", err, want)
			}
			if v.Macaroon == nil {
				if c != nil {
					t.Fatal("found a credential")
				}
				return
			}
			if c == nil || !bytes.Equal(c.Macaroon, v.Macaroon) || c.Preimage.Hex() != v.Preimage {
				t.Fatal("another credential was found")
			}
		})
	}
}

func TestCredentialTooLarge(t *testing.T) {
	ring := readVectors[tokenVectors](t, "tokens.json").ring(t)
	b := mint(t, ring)
	// The largest one that still parses, then one byte more.
	room := MaxMacaroonSize - len(b) - 5
	for _, extra := range []int{0, 1} {
		big := caveatVector{Added: []string{strings.Repeat("x", room+extra)}}.build(t, ring)
		_, err := CredentialFromHeader(http.Header{"Authorization": {FormatCredential(big, testPreimage)}})
		if want := []error{nil, ErrMalformedCredential}[extra]; err != want {
			t.Errorf("%d bytes: got %v, want %v", len(big), err, want)
		}
	}
}

func TestTooManyCaveats(t *testing.T) {
	ring := readVectors[tokenVectors](t, "tokens.json").ring(t)
	for n, want := range map[int]error{maxCaveats: nil, maxCaveats + 1: ErrUnknownToken} {
		b := caveatVector{Added: []string{"x"}, RepeatFirst: n - 3}.build(t, ring)
		if _, err := ring.Verify(&Credential{b, testPreimage}); err != want {
			t.Errorf("%d caveats: got %v, want %v", n, err, want)
		}
	}
}
