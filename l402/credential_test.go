package l402

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
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
	// The first macaroon has the largest size that can be parsed. The second has one byte more.
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
		if _, err := ring.Verify(&Credential{Macaroon: b, Preimage: testPreimage}); err != want {
			t.Errorf("%d caveats: got %v, want %v", n, err, want)
		}
	}
}

// When a credential has several macaroons, the macaroon that a key of the ring signed counts,
// whatever its place. Two macaroons that keys of the ring signed are two different credentials.
func TestSeveralMacaroonsInOneCredential(t *testing.T) {
	ring := readVectors[tokenVectors](t, "tokens.json").ring(t)
	foreign, err := NewKeyring(LedgerID{9}, []MasterKey{{ID: "x", State: KeyMint, Secret: [32]byte{9}}})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := mint(t, ring), mint(t, foreign)
	narrowed, err := Attenuate(ours, "inference_budget_msat=5")
	if err != nil {
		t.Fatal(err)
	}
	carried, err := Attenuate(ours, "preimage="+testPreimage.Hex())
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	verify := func(h http.Header) error {
		c, err := CredentialFromHeader(h)
		if err != nil {
			return err
		}
		token, err := ring.Verify(c)
		if err == nil && token.Attenuated {
			return errors.New("another token")
		}
		return err
	}
	end := ":" + testPreimage.Hex()
	for name, c := range map[string]struct {
		value string
		want  error
	}{
		"ours first":        {encode(ours) + "," + encode(theirs) + end, nil},
		"ours last":         {encode(theirs) + "," + encode(theirs) + "," + encode(ours) + end, nil},
		"ours twice":        {encode(ours) + "," + encode(ours) + end, nil},
		"with its preimage": {encode(carried) + "," + encode(ours) + end, nil},
		"ours and a part":   {encode(ours) + "," + encode(narrowed) + end, ErrConflictingCredentials},
		"none of ours":      {encode(theirs) + end, ErrUnknownToken},
		"wrong preimage":    {encode(theirs) + "," + encode(ours) + ":" + strings.Repeat("00", 32), ErrPreimage},
	} {
		for _, h := range []http.Header{
			{"Authorization": {"L402 " + c.value}}, {"Authorization": {"Bearer " + c.value}}, {"X-Api-Key": {c.value}}, {"Token": {c.value}},
			{"Authorization": {"L402 " + c.value}, "X-Api-Key": {c.value}},
		} {
			if err := verify(h); !errors.Is(err, c.want) {
				t.Errorf("%s: %v; want %v", name, err, c.want)
			}
		}
	}
	if err := verify(http.Header{"Authorization": {"L402 " + encode(ours) + end}, "X-Api-Key": {encode(narrowed) + end}}); err != ErrConflictingCredentials {
		t.Errorf("a whole and a part in two places: %v", err)
	}
}

// A request may carry the credential in any header of the list, and in no other header. A proxy
// that forwards requests removes the headers of the list.
func TestCredentialHeadersAreTheOnesRead(t *testing.T) {
	ring := readVectors[tokenVectors](t, "tokens.json").ring(t)
	m := mint(t, ring)
	carried, err := Attenuate(m, "preimage="+testPreimage.Hex())
	if err != nil {
		t.Fatal(err)
	}
	forms := []string{FormatCredential(m, testPreimage), strings.TrimPrefix(FormatCredential(m, testPreimage), "L402 "), hex.EncodeToString(carried)}
	read := func(name string) bool {
		for _, value := range forms {
			if c, err := CredentialFromHeader(http.Header{name: {value}}); err == nil && c != nil {
				return true
			}
		}
		return false
	}
	for _, name := range CredentialHeaders() {
		if name != http.CanonicalHeaderKey(name) || !read(name) {
			t.Errorf("%s is listed and not read", name)
		}
	}
	for _, name := range []string{"Cookie", "Proxy-Authorization", "Api-Key", "X-Auth-Token"} {
		if read(name) {
			t.Errorf("%s is read and not listed", name)
		}
	}
}
