package metering

import (
	"bytes"
	"encoding/hex"
	"math"
	"reflect"
	"strings"
	"testing"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

func contexts() []*holdContext {
	return []*holdContext{
		{},
		{service: "inference", model: "m", epoch: 3, prompt: 2000, rates: pricing.Rates{pricing.InputTokens: 150_000, pricing.OutputTokens: 600_000}},
		{budgets: []l402.Budget{{ID: [32]byte{1}, Limit: 5}, {ID: [32]byte{2}, Limit: l402.MaxMsat}}, chain: l402.ChainID{2},
			epoch: math.MaxInt64, rates: pricing.Rates{pricing.WallMicros: pricing.MaxRate},
			idempotency: &Idempotency{Key: [32]byte{3}, Body: [32]byte{4}}},
		{service: "inference", model: "m", epoch: 3, lock: l402.PaymentHash{7, 31: 8}, budgets: []l402.Budget{{ID: [32]byte{1}, Limit: 5}}},
		{service: "inference", model: "m", budgets: []l402.Budget{{ID: [32]byte{1}, Limit: 5, ValidUntil: 2_000_000_000}}},
		{service: "inference", model: "m", epoch: 3, rates: pricing.Rates{pricing.OutputTokens: 5, pricing.Searches: 2_000_000}},
	}
}

// TestContextOfBefore checks that contexts of holds which earlier versions wrote can be read.
func TestContextOfBefore(t *testing.T) {
	for i, text := range []string{
		"010000000000000001",
		"01000009696e666572656e6365016d03d00f0001f0930900c0cf24",
		"0102" + "01" + strings.Repeat("00", 31) + "05" + "02" + strings.Repeat("00", 31) + "8080c8e2fadbac921d" +
			"01" + "02" + strings.Repeat("00", 31) + "0000" + "ffffffffffffffff7f" + "00" +
			"01" + "03" + strings.Repeat("00", 31) + "04" + strings.Repeat("00", 31) + "01000000000000" + "80809aa6eaafe301",
	} {
		old, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		want := contexts()[i]
		if got, err := readContext(old); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestContextRoundTrip(t *testing.T) {
	for _, c := range contexts() {
		b := appendContext(nil, c)
		got, err := readContext(b)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%+v: got %+v, %v", c, got, err)
		}
		for n := range len(b) {
			// A context that is cut short is refused, unless only rates of zero are missing.
			if got, err := readContext(b[:n]); err == nil && got.rates == c.rates {
				t.Errorf("read from %d of %d bytes", n, len(b))
			}
		}
		if _, err := readContext(append(b, bytes.Repeat([]byte{1}, 10)...)); err == nil {
			t.Error("trailing bytes were accepted")
		}
		for _, version := range []byte{0, 4} {
			if _, err := readContext(append([]byte{version}, b[1:]...)); err == nil {
				t.Errorf("version %d was read", version)
			}
		}
	}
}

func FuzzReadContext(f *testing.F) {
	for _, c := range contexts() {
		f.Add(appendContext(nil, c))
	}
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add(append([]byte{lockedVersion}, make([]byte, 41)...)) // a lock of zeros is refused
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, pairForm, 120, 1})   // rates of an unknown unit
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readContext(b)
		if err != nil {
			return
		}
		again, err := readContext(appendContext(nil, c))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%+v became %+v, %v", c, again, err)
		}
	})
}
