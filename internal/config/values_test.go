package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s": 0, "500ms": 500 * time.Millisecond, "15s": 15 * time.Second, "1h30m": 90 * time.Minute,
		"365d": 365 * 24 * time.Hour, "1d12h": 36 * time.Hour, "0d": 0,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5", "d", "-1s", "+1s", "-1d", "1d-1h", "36501d", "99999d", "1d2d", "1 d", "876001h", "s"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q: accepted as %v", text, got)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{
		"0B": 0, "1B": 1, "512KiB": 512 << 10, "1 MiB": 1 << 20, "1GiB": 1 << 30, "1kB": 1000, "2MB": 2e6, "1024GiB": 1 << 40,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1", "MiB", "-1MiB", "1.5MiB", "1mib", "1KB", "1025GiB", "99999999999999999999B"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: accepted as %v", text, got)
		}
	}
	for s, want := range map[Size]string{0: "0B", 1000: "1000B", 64 << 10: "64KiB", 8 << 20: "8MiB", 1 << 30: "1GiB"} {
		if s.String() != want {
			t.Errorf("%d prints as %s, want %s", int64(s), s, want)
		}
	}
}

func TestAmounts(t *testing.T) {
	for text, want := range map[string]l402.Msat{
		"0 sat": 0, "150 sat": 150_000, "150sat": 150_000, "1500 msat": 1500, "0.5 sat": 500, "0.001 sat": 1, "1.0 msat": 1,
		"2100000000000000 sat": l402.MaxMsat,
	} {
		if got, err := parseAmount(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "sat", "150", "-1 sat", "+1 sat", "1e3 sat", "1/2 sat", "0x10 sat", ".5 sat", "5. sat", "1 btc",
		"0.0005 sat", "0.5 msat", "1 sats", "1 sat sat", "2100000000000001 sat", "1_000 sat"} {
		if got, err := parseAmount(text); err == nil {
			t.Errorf("%q: accepted as %v", text, got)
		}
	}
}

func TestRates(t *testing.T) {
	for _, c := range []struct {
		text, unit string
		want       Rate
	}{
		{"150 sat/Mtok", "Mtok", 150_000}, {"1500 msat / Mtok", "Mtok", 1500}, {"0.15 sat/ktok", "Mtok", 150_000}, {"0.001 msat/tok", "Mtok", 1000},
		{"1 sat", "call", 1000}, {"1 sat/call", "call", 1000}, {"3 msat/MiB", "MiB", 3}, {"0.5 sat/s", "s", 500},
	} {
		if got, err := parseRate(c.text, c.unit); err != nil || got != c.want {
			t.Errorf("%s per %s: %v, %v", c.text, c.unit, got, err)
		}
	}
	for _, c := range [][2]string{
		{"150 sat", "Mtok"}, {"150/Mtok", "Mtok"}, {"1 sat/call", "Mtok"}, {"1 sat/tok", "call"}, {"1 sat/", "call"},
		{"1 msat/Mtok/s", "Mtok"}, {"0.0001 sat/Mtok", "Mtok"}, {"1000000000001 sat/Mtok", "Mtok"},
	} {
		if got, err := parseRate(c[0], c[1]); err == nil {
			t.Errorf("%q per %s: accepted as %v", c[0], c[1], got)
		}
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"listen", "limits", "lightning"}
	for wrong, want := range map[string]string{
		"lisetn": `did you mean "listen"?`, "limit": `did you mean "limits"?`, "Lightning": `did you mean "lightning"?`,
		"zebra": "want one of: lightning, limits, listen",
	} {
		if got := suggest(wrong, known); got != want {
			t.Errorf("%s: %s, want %s", wrong, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yml")
	for _, file := range append(files, example) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse(data, "/nonexistent", noEnv)
		if err != nil {
			if cfg != nil || err.Error() == "" {
				t.Errorf("%v with %q", cfg, err)
			}
			return
		}
		if _, err := l402.NewKeyring(l402.LedgerID{1}, cfg.MasterKeys()); err != nil {
			t.Errorf("accepted keys that the keyring refuses: %v", err)
		}
		for _, s := range cfg.Services {
			if s.MinPurchase > s.MaxPurchase || !s.MaxPurchase.Valid() || s.MinPurchase < l402.MsatPerSat {
				t.Errorf("accepted purchases of %v to %v", s.MinPurchase, s.MaxPurchase)
			}
			for _, m := range s.Models {
				if err := m.Prices.Rates().Validate(); err != nil {
					t.Error(err)
				}
				u := pricing.Units{pricing.InputTokens: m.ContextTokens, pricing.OutputTokens: m.MaxCompletionTokens, pricing.Calls: 1}
				if _, err := m.Prices.Rates().Cost(u); err != nil && !errors.Is(err, pricing.ErrUsage) {
					t.Error(err)
				}
			}
		}
	})
}

func FuzzValues(f *testing.F) {
	for _, s := range []string{"1d12h", "8MiB", "0.5 sat", "150 sat/Mtok", "1 sat", "-1", "50/s burst 200", "none", "10.0.0.0/8", "1e999 sat", "99999999999999999999999999999999 sat/tok"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseDuration(s); err == nil && (d < 0 || d > 2*MaxDuration) {
			t.Errorf("duration %v", d)
		}
		if n, err := parseSize(s); err == nil && (n < 0 || n > 1<<40) {
			t.Errorf("size %d", n)
		}
		if f, err := parseFrequency(s); err == nil && s != "none" && (f.PerSecond <= 0 || f.Burst < 1) {
			t.Errorf("frequency %v", f)
		}
		if p, err := parsePrefix(s); err == nil && !p.IsValid() {
			t.Errorf("prefix %v", p)
		}
		if m, err := parseAmount(s); err == nil && !m.Valid() {
			t.Errorf("amount %d", m)
		}
		for _, unit := range []string{"Mtok", "call", "MiB", "s"} {
			if r, err := parseRate(s, unit); err == nil && (r < 0 || int64(r) > pricing.MaxRate) {
				t.Errorf("rate %d", r)
			}
		}
	})
}
