package metering

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestHoldID(t *testing.T) {
	a := NewHoldID()
	s := a.String()
	if len(s) != 36 || s[14] != '7' || !strings.ContainsRune("89ab", rune(s[19])) {
		t.Errorf("%s is no UUID of version 7", s)
	}
	for _, text := range []string{s, strings.ToUpper(s)} {
		if got, err := ParseHoldID(text); err != nil || got != a {
			t.Errorf("parse %s: %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", s[:35], s + "0", strings.ReplaceAll(s, "-", "0"), "{" + s[1:], strings.Repeat("-", 36),
		s[:8] + "0" + s[9:], s[:35] + "g"} {
		if _, err := ParseHoldID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	b, err := json.Marshal(map[string]HoldID{"id": a})
	var back map[string]HoldID
	if err != nil || json.Unmarshal(b, &back) != nil || back["id"] != a {
		t.Errorf("JSON: %s, %v", b, err)
	}
}

func TestHoldIDsAscend(t *testing.T) {
	seen := map[HoldID]bool{}
	last := NewHoldID()
	for range 1000 {
		id := NewHoldID()
		if seen[id] || string(id[:6]) < string(last[:6]) {
			t.Fatalf("%s after %s", id, last)
		}
		seen[id], last = true, id
	}
}

func FuzzParseHoldID(f *testing.F) {
	f.Add("0195f0c2-8a3e-7d10-9c4b-0242ac120002")
	f.Add("0195F0C2-8A3E-7D10-9C4B-0242AC120002")
	f.Add("0195f0c2-8a3e-7d10-9c4b0-242ac120002")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseHoldID(s)
		if err == nil && id.String() != strings.ToLower(s) {
			t.Fatalf("%q became %s", s, id)
		}
	})
}
