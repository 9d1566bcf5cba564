package metering

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sluice.example/sluice/pricing"
)

// TestStoredForms checks stored bytes against their values. Ledgers have such bytes now. A gateway of the version
// before reads all bytes that begin with 01, so the units of today must be written in that form.
func TestStoredForms(t *testing.T) {
	for text, u := range map[string]pricing.Units{
		"01":                              {},
		"01000020":                        {pricing.OutputTokens: 32},
		"011400000000" + "00" + "ac02":    {pricing.InputTokens: 20, pricing.GPUMicros: 300},
		"0101020304050607":                {pricing.InputTokens: 1, pricing.CachedInputTokens: 2, pricing.OutputTokens: 3, pricing.Calls: 4, pricing.Bytes: 5, pricing.WallMicros: 6, pricing.GPUMicros: 7},
		"02" + "1203":                     {pricing.Searches: 3},
		"02" + "0120" + "0401" + "08ac02": {pricing.InputTokens: 32, pricing.Calls: 1, pricing.CacheWriteTokens: 300},
		"02" + "15ffffffffffffffff7f":     {pricing.BackendUnits: math.MaxInt64},
	} {
		stored(t, text, u, appendUsage, readUsage)
	}
	for text, r := range map[string]pricing.Rates{
		"01":                     {},
		"010000000001":           {pricing.Calls: 1},
		"0101020304050607":       {pricing.InputTokens: 1, pricing.CachedInputTokens: 2, pricing.OutputTokens: 3, pricing.GPUMicros: 4, pricing.Calls: 5, pricing.Bytes: 6, pricing.WallMicros: 7},
		"02" + "0704" + "0c8827": {pricing.GPUMicros: 4, pricing.AudioMicros: 5000},
	} {
		stored(t, text, r, appendRates, readRates)
	}
}

// stored checks that a value is written as its bytes, and that the bytes are read as the value.
func stored[T comparable](t *testing.T, text string, v T, write func([]byte, T) []byte, read func([]byte) (T, error)) {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(text, err)
	}
	if got := write(nil, v); !bytes.Equal(got, b) {
		t.Errorf("%v is written as %x, want %s", v, got, text)
	}
	if got, err := read(b); err != nil || got != v {
		t.Errorf("%s: got %v, %v; want %v", text, got, err, v)
	}
}

// TestLaterVersionsWritePairs checks that this version reads the pairs of a version that writes pairs for every value.
func TestLaterVersionsWritePairs(t *testing.T) {
	u := pricing.Units{pricing.InputTokens: 20, pricing.OutputTokens: 32}
	if got, err := readUsage([]byte{pairForm, 1, 20, 3, 32}); err != nil || got != u {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := readUsage([]byte{pairForm}); err != nil || got != (pricing.Units{}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestUnreadableNumbers checks that all other bytes are refused, with errNewer for what only a later version can have
// written.
func TestUnreadableNumbers(t *testing.T) {
	over := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}
	for name, b := range map[string][]byte{
		"nothing":             nil,
		"no version":          {0},
		"half a number":       {1, 0x80},
		"beyond int64":        append([]byte{1}, over...),
		"an eighth number":    {1, 1, 1, 1, 1, 1, 1, 1, 1},
		"a unit alone":        {2, 1},
		"half a unit":         {2, 0x81},
		"half a quantity":     {2, 1, 0x80},
		"a quantity of zero":  {2, 1, 0},
		"the same unit twice": {2, 1, 5, 1, 5},
		"descending units":    {2, 3, 5, 1, 5},
		"no unit":             {2, 0, 5},
		"a long unit":         {2, 0x81, 0x00, 5},
		"a long quantity":     {2, 1, 0x85, 0x00},
		"a huge quantity":     append([]byte{2, 1}, over...),
		"a huge unit":         append(append([]byte{2}, over...), 1),
		"a zero at the end":   {2, 1, 5, 0},
	} {
		u, err := readUsage(b)
		if !errors.Is(err, errCodec) || errors.Is(err, errNewer) {
			t.Errorf("%s: % x was read as %v, %v", name, b, u, err)
		}
		if r, err := readRates(b); !errors.Is(err, errCodec) || errors.Is(err, errNewer) {
			t.Errorf("%s: % x was read as %v, %v", name, b, r, err)
		}
	}
	for _, b := range [][]byte{{3}, {255, 1}, {2, 22, 5}, {2, 1, 5, 0xff, 0x7f, 5}, {2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1}} {
		if u, err := readUsage(b); !errors.Is(err, errNewer) || !errors.Is(err, errCodec) {
			t.Errorf("% x was read as %v, %v", b, u, err)
		}
	}
}

// TestNumbersRoundTrip checks that any value is read as it was written. It also checks that a value which the
// positional form can hold is written in that form, because gateways of the version before read no other.
func TestNumbersRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u pricing.Units
		for _, unit := range pricing.AllUnits() {
			if rapid.Bool().Draw(t, "has "+unit.String()) {
				u[unit] = rapid.Int64Range(0, math.MaxInt64).Draw(t, unit.String())
			}
		}
		form := byte(positionalForm)
		for unit, n := range u {
			if n != 0 && !slices.Contains(usagePositions, pricing.Unit(unit)) {
				form = pairForm
			}
		}
		b, r := appendUsage(nil, u), appendRates(nil, pricing.Rates(u))
		if got, err := readUsage(b); err != nil || got != u || b[0] != form {
			t.Fatalf("%v became % x, then %v, %v", u, b, got, err)
		}
		if got, err := readRates(r); err != nil || got != pricing.Rates(u) || r[0] != form {
			t.Fatalf("rates %v became % x, then %v, %v", u, r, got, err)
		}
	})
}

// TestPositions checks that both lists of the positional form have the same units, and that these are the first units,
// on which appendNumbers relies.
func TestPositions(t *testing.T) {
	for _, order := range [][]pricing.Unit{usagePositions, ratePositions} {
		sorted := slices.Sorted(slices.Values(order))
		if !slices.Equal(sorted, pricing.AllUnits()[:7]) {
			t.Errorf("positions of %v", sorted)
		}
	}
}

func FuzzReadUsage(f *testing.F) {
	f.Add(appendUsage(nil, pricing.Units{pricing.InputTokens: 20, pricing.OutputTokens: 32}))
	f.Add(appendUsage(nil, pricing.Units{pricing.InputTokens: 20, pricing.CacheWriteTokens: 7, pricing.BackendUnits: math.MaxInt64}))
	f.Add([]byte{1, 0x80, 0x01})
	f.Add([]byte{pairForm, 1, 5, 1, 5})
	f.Add([]byte{pairForm, 120, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := readUsage(b)
		if r, also := readRates(b); (err == nil) != (also == nil) || len(b) > 0 && b[0] == pairForm && r != pricing.Rates(u) {
			t.Fatalf("read as usage %v, %v, and as rates %v, %v", u, err, r, also)
		}
		if err != nil {
			if !errors.Is(err, errCodec) {
				t.Fatal(err)
			}
			return
		}
		again := appendUsage(nil, u)
		if got, err := readUsage(again); err != nil || got != u || slices.Min(u[:]) < 0 || u[pricing.NoUnit] != 0 {
			t.Fatalf("%v became %v, %v", u, got, err)
		}
		if pairs := appendPairs(nil, u[:]); b[0] == pairForm && !bytes.Equal(pairs, b) {
			t.Fatalf("% x and % x are both %v", b, pairs, u)
		}
	})
}
