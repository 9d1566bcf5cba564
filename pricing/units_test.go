package pricing_test

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sluice.example/sluice/pricing"
)

// TestUnitsNeverChange fixes the numbers and names of units, because ledgers, challenges and
// configurations hold them. A new unit adds a line. No line is ever changed or removed.
func TestUnitsNeverChange(t *testing.T) {
	lines := strings.Fields(`
1:input_tokens:input_msat_per_mtok:1000000
2:cached_input_tokens:cached_input_msat_per_mtok:1000000:input_tokens
3:output_tokens:output_msat_per_mtok:1000000
4:calls:call_msat:1
5:bytes:mib_msat:1048576
6:micros:second_msat:1000000
7:gpu_micros:gpu_second_msat:1000000
8:cache_write_tokens:cache_write_msat_per_mtok:1000000:input_tokens
9:cache_write_1h_tokens:cache_write_1h_msat_per_mtok:1000000:input_tokens
10:audio_input_tokens:audio_input_msat_per_mtok:1000000:input_tokens
11:audio_output_tokens:audio_output_msat_per_mtok:1000000:output_tokens
12:audio_micros:audio_second_msat:1000000
13:speech_micros:speech_second_msat:1000000
14:characters:character_msat_per_mchar:1000000
15:images:image_msat:1
16:pixels:megapixel_msat:1000000
17:steps:step_msat:1
18:searches:search_msat:1
19:documents:document_msat:1
20:uploaded_bytes:upload_mib_msat:1048576
21:backend_units:backend_unit_msat:1`)
	all := pricing.AllUnits()
	if len(all) != len(lines) {
		t.Fatalf("%d units, want %d", len(all), len(lines))
	}
	for i, u := range all {
		text, _ := json.Marshal(int(u))
		got := string(text) + ":" + u.String() + ":" + u.RateName() + ":"
		per, _ := json.Marshal(u.Per())
		if got += string(per); u.Of() != pricing.NoUnit {
			got += ":" + u.Of().String()
		}
		if got != lines[i] {
			t.Errorf("%s, want %s", got, lines[i])
		}
		// The arithmetic relies on these facts: the common denominator is exact, a whole has a lower
		// number than its parts, and a part has no parts.
		if (15_625<<20)%u.Per() != 0 || u.Of() >= u || u.Of().Of() != pricing.NoUnit || u.Describe() == "" || !u.Known() {
			t.Errorf("%s: per %d, part of %q", u, u.Per(), u.Of())
		}
	}
	for _, u := range []pricing.Unit{pricing.NoUnit, pricing.Unit(len(all) + 1), 255} {
		if u.Known() || u.String() != "" || u.Per() != 0 || u.Of() != pricing.NoUnit {
			t.Errorf("unit %d is known as %q", u, u)
		}
	}
}

// TestNamesOnTheWire fixes the names that clients and stored prices hold.
func TestNamesOnTheWire(t *testing.T) {
	for text, v := range map[string]any{
		`{}`: pricing.Rates{},
		`{"input_msat_per_mtok":1,"cached_input_msat_per_mtok":2,"output_msat_per_mtok":3,"call_msat":5,"mib_msat":6,"second_msat":7,"gpu_second_msat":4}`: pricing.Rates{
			pricing.InputTokens: 1, pricing.CachedInputTokens: 2, pricing.OutputTokens: 3, pricing.GPUMicros: 4, pricing.Calls: 5, pricing.Bytes: 6, pricing.WallMicros: 7},
		`{"input_tokens":1,"cached_input_tokens":2,"output_tokens":3,"calls":4,"bytes":5,"micros":6,"gpu_micros":7}`: pricing.Units{
			pricing.InputTokens: 1, pricing.CachedInputTokens: 2, pricing.OutputTokens: 3, pricing.Calls: 4, pricing.Bytes: 5, pricing.WallMicros: 6, pricing.GPUMicros: 7},
		`{"calls":1,"searches":2}`: &pricing.Units{pricing.Calls: 1, pricing.Searches: 2},
	} {
		if b, err := json.Marshal(v); err != nil || string(b) != text {
			t.Errorf("%s, %v; want %s", b, err, text)
		}
	}
	r := pricing.Rates{pricing.Calls: 9}
	if err := json.Unmarshal([]byte(`{"output_msat_per_mtok":3,"of_a_later_version":[1],"input_msat_per_mtok":null}`), &r); err != nil ||
		r != (pricing.Rates{pricing.Calls: 9, pricing.OutputTokens: 3}) {
		t.Errorf("read as %v, %v", r, err)
	}
	for _, bad := range []string{`{"calls":"1"}`, `{"calls":1.5}`, `{"calls":9223372036854775808}`, `[1]`, `7`} {
		var u pricing.Units
		if err := json.Unmarshal([]byte(bad), &u); err == nil {
			t.Errorf("%s was read as %v", bad, u)
		}
	}
	if _, err := json.Marshal(pricing.Units{pricing.NoUnit: 1}); err == nil {
		t.Error("a count of no unit was written")
	}
}

func TestJSONRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u, gotUnits pricing.Units
		var r, gotRates pricing.Rates
		for _, unit := range pricing.AllUnits() {
			u[unit], r[unit] = rapid.Int64().Draw(t, unit.String()), rapid.Int64().Draw(t, unit.RateName())
		}
		if err := json.Unmarshal([]byte(u.String()), &gotUnits); err != nil || gotUnits != u {
			t.Fatalf("%v became %v, %v", u, gotUnits, err)
		}
		if err := json.Unmarshal([]byte(r.String()), &gotRates); err != nil || gotRates != r {
			t.Fatalf("%v became %v, %v", r, gotRates, err)
		}
	})
}

// TestClamped checks that a clamped usage has a cost, unless the cost is more than all money, and that
// a valid usage is not changed.
func TestClamped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u pricing.Units
		u[pricing.NoUnit] = rapid.Int64().Draw(t, "of no unit")
		for _, unit := range pricing.AllUnits() {
			u[unit] = rapid.Int64().Draw(t, unit.String())
		}
		c := u.Clamped()
		if _, err := (pricing.Rates{}).Cost(c); err != nil {
			t.Fatalf("%v became %v: %v", u, c, err)
		}
		if c != c.Clamped() {
			t.Fatalf("%v became %v", c, c.Clamped())
		}
		for _, unit := range pricing.AllUnits() {
			if unit.Of() == pricing.NoUnit && c[unit] != max(0, u[unit]) || c[unit] > max(0, u[unit]) {
				t.Fatalf("%v became %v", u, c)
			}
		}
	})
	if u := (pricing.Units{pricing.InputTokens: 10, pricing.CachedInputTokens: 8, pricing.CacheWriteTokens: 5}).Clamped(); u[pricing.CachedInputTokens] != 8 || u[pricing.CacheWriteTokens] != 2 {
		t.Errorf("clamped to %v", u)
	}
}
