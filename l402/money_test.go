package l402

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
)

func TestParseIdentifier(t *testing.T) {
	type vector struct {
		Name        string   `json:"name"`
		Hex         hexBytes `json:"hex"`
		PaymentHash string   `json:"payment_hash"`
		TokenID     string   `json:"token_id"`
		Bad         bool     `json:"bad"`
	}
	for _, v := range readVectors[[]vector](t, "identifiers.json") {
		t.Run(v.Name, func(t *testing.T) {
			id, err := ParseIdentifier(v.Hex)
			if v.Bad {
				if err != ErrIdentifier {
					t.Fatalf("got %v, want ErrIdentifier", err)
				}
				return
			}
			if err != nil || id.PaymentHash.String() != v.PaymentHash || id.TokenID.String() != v.TokenID {
				t.Fatalf("got %v, %v", id, err)
			}
			if string(id.Encode()) != string(v.Hex) {
				t.Errorf("encodes to %x", id.Encode())
			}
		})
	}
}

func TestParseMsat(t *testing.T) {
	for _, n := range []Msat{0, 1, 9, 10, 999, 2_099_999_999_999_999_999, MaxMsat} {
		if got, err := ParseMsat(strconv.FormatInt(int64(n), 10)); err != nil || got != n {
			t.Errorf("%d: got %d, %v", n, got, err)
		}
	}
	for _, s := range []string{"", " ", "00", "01", "-0", "+1", "1 ", "1.0", "1e3", "0x1", "1_0", "٣",
		"2100000000000000001", "9223372036854775807", "9223372036854775808", "99999999999999999999999"} {
		if n, err := ParseMsat(s); err == nil {
			t.Errorf("%q was read as %d", s, n)
		}
	}
}

func TestMsatArithmetic(t *testing.T) {
	for _, c := range []struct{ a, b, want Msat }{{1, 2, 3}, {MaxMsat, MaxMsat, 2 * MaxMsat}, {5, -7, -2}, {math.MaxInt64, -1, math.MaxInt64 - 1}} {
		if got, err := c.a.Add(c.b); err != nil || got != c.want {
			t.Errorf("%d + %d: got %d, %v", c.a, c.b, got, err)
		}
	}
	for _, c := range [][2]Msat{{math.MaxInt64, 1}, {math.MinInt64, -1}} {
		if got, err := c[0].Add(c[1]); !errors.Is(err, ErrMsatRange) {
			t.Errorf("%d + %d: got %d, %v", c[0], c[1], got, err)
		}
	}
	for n, want := range map[Msat]Msat{0: 0, 1: 1000, 999: 1000, 1000: 1000, 1001: 2000, MaxMsat: MaxMsat, MaxMsat - 1: MaxMsat} {
		if got := n.CeilSats(); got != want {
			t.Errorf("%d rounds up to %d, want %d", n, got, want)
		}
	}
}

func TestParseHex(t *testing.T) {
	id := NewTokenID()
	if got, err := ParseTokenID(strings.ToUpper(id.String())); err != nil || got != id {
		t.Errorf("got %v, %v", got, err)
	}
	for _, s := range []string{"", "0", strings.Repeat("0", 63), strings.Repeat("0", 65), strings.Repeat("0", 63) + "g", " " + strings.Repeat("0", 63)} {
		_, errToken := ParseTokenID(s)
		_, errHash := ParsePaymentHash(s)
		_, errPreimage := ParsePreimage(s)
		if errToken == nil || errHash == nil || errPreimage == nil {
			t.Errorf("%q was read", s)
		}
		if len(s) > 1 && strings.Contains(errPreimage.Error(), s) {
			t.Errorf("the error repeats the digits: %v", errPreimage)
		}
	}
}
