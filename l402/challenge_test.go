package l402

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

type challengeVector struct {
	Name     string   `json:"name"`
	Values   []string `json:"values"`
	Macaroon hexBytes `json:"macaroon"`
	Invoice  string   `json:"invoice"`
	Error    string   `json:"error"`
}

func TestParseChallenge(t *testing.T) {
	for _, v := range readVectors[[]challengeVector](t, "challenges.json") {
		t.Run(v.Name, func(t *testing.T) {
			c, err := ParseChallenge(v.Values)
			want := map[string]error{"": nil, "none": ErrNoChallenge, "malformed": ErrMalformedChallenge}[v.Error]
			if !errors.Is(err, want) {
				t.Fatalf("got %v, want %v", err, want)
			}
			if err == nil && (!bytes.Equal(c.Macaroon, v.Macaroon) || c.Invoice != v.Invoice) {
				t.Errorf("got %x, %q", c.Macaroon, c.Invoice)
			}
		})
	}
}

func TestFormatChallenge(t *testing.T) {
	got := FormatChallenge([]byte{2, 255, 254}, "lnbc1")
	want := `L402 macaroon="Av/+", invoice="lnbc1", version="0", token="Av/+"`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseChallengeTooLarge(t *testing.T) {
	many := make([]string, 3)
	for i := range many {
		many[i] = strings.Repeat(",", maxChallengeSize/2)
	}
	if _, err := ParseChallenge(many); !errors.Is(err, ErrMalformedChallenge) {
		t.Errorf("got %v", err)
	}
}

func TestDecodeMacaroon(t *testing.T) {
	for _, v := range readVectors[[]credentialVector](t, "credentials.json") {
		if v.Error != "" || len(v.Headers) != 1 || v.Headers[0][0] != "Authorization" {
			continue
		}
		scheme, encoded := cutScheme(v.Headers[0][1])
		if !isOurs(scheme) || strings.Contains(encoded, ",") {
			continue
		}
		encoded, _, _ = strings.Cut(encoded, ":")
		if b, err := DecodeMacaroon(encoded); err != nil || !bytes.Equal(b, v.Macaroon) {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
	for _, s := range []string{"", "=", "x", "AgI", "Ag==\n"} {
		if _, err := DecodeMacaroon(s); !errors.Is(err, ErrMacaroon) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
