package config

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/macaroon.v2"
)

// lndMacaroon is a macaroon with these rights, in the form that lnd bakes.
func lndMacaroon(t *testing.T, rights ...string) []byte {
	t.Helper()
	field := func(number byte, value []byte) []byte {
		return append([]byte{number<<3 | 2, byte(len(value))}, value...)
	}
	id := append([]byte{3}, field(1, []byte("0123456789abcdef"))...)
	id = append(id, field(2, []byte("0"))...)
	for _, r := range rights {
		entity, actions, _ := strings.Cut(r, ":")
		op := field(1, []byte(entity))
		for a := range strings.SplitSeq(actions, ",") {
			op = append(op, field(2, []byte(a))...)
		}
		id = append(id, field(3, op)...)
	}
	m, err := macaroon.New([]byte("root"), id, "lnd", macaroon.LatestVersion)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// warned loads the example with changes and returns its warnings.
func warned(t *testing.T, change func(dir string, text string) string) []string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"key.hex": strings.Repeat("22", 32), "api.txt": "sk-1"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lnd.macaroon"), lndMacaroon(t, "invoices:read,write"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := `
keys: [{id: k1, secret_file: key.hex}]
lightning: {grpc: "127.0.0.1:10009", macaroon: lnd.macaroon}
services:
  - name: inference
    models: [{name: m, backends: [a], context_tokens: 4096, max_completion_tokens: 256, prices: {input: 1 sat/ktok}, pricing: {policy: static}}]
backends: [{name: a, url: "http://127.0.0.1:1", slots: 1, api_key_file: api.txt}]
`
	text = change(dir, text)
	path := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "# open") {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := Load(path, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Warnings
}

func TestOpenSecretsAreWarnedOf(t *testing.T) {
	if w := warned(t, func(_, text string) string { return text }); len(w) != 0 {
		t.Errorf("warned without reason: %v", w)
	}
	for file, key := range map[string]string{"key.hex": "keys[0].secret_file", "api.txt": "backends[0].api_key_file", "lnd.macaroon": "lightning.macaroon"} {
		for mode, open := range map[os.FileMode]bool{0o644: true, 0o604: true, 0o620: true, 0o666: true, 0o640: false, 0o400: false, 0o440: false} {
			w := warned(t, func(dir, text string) string {
				if err := os.Chmod(filepath.Join(dir, file), mode); err != nil {
					t.Fatal(err)
				}
				return text
			})
			if open != slices.ContainsFunc(w, func(s string) bool { return strings.HasPrefix(s, key+": ") && strings.Contains(s, "chmod") }) || len(w) > 1 {
				t.Errorf("%s with mode %04o: %v", file, mode, w)
			}
		}
	}
	inline := func(_, text string) string {
		return strings.Replace(text, "secret_file: key.hex", `secret: "`+strings.Repeat("23", 32)+`"`, 1) + "# open\n"
	}
	if w := warned(t, inline); len(w) != 1 || !strings.Contains(w[0], "the configuration holds secrets") || strings.Contains(w[0], "2323") {
		t.Errorf("an open file with a secret in it: %v", w)
	}
	if w := warned(t, func(_, text string) string { return text + "# open\n" }); len(w) != 0 {
		t.Errorf("an open file without a secret in it: %v", w)
	}
}

func TestMacaroonThatMayDoMoreIsWarnedOf(t *testing.T) {
	for rights, warn := range map[string]bool{
		"invoices:read,write": false,
		"invoices:read,write address:read,write onchain:read info:read offchain:read": false, // lnd's invoice.macaroon
		"invoices:read,write offchain:write":                                          true,
		"onchain:write":                                                               true,
		"macaroon:generate":                                                           true,
		"uri:/lnrpc.Lightning/SendPaymentSync":                                        true,
	} {
		raw := lndMacaroon(t, strings.Fields(rights)...)
		for _, inline := range []bool{false, true} {
			w := warned(t, func(dir, text string) string {
				if inline {
					return strings.Replace(text, "macaroon: lnd.macaroon", "macaroon_base64: "+base64.StdEncoding.EncodeToString(raw), 1)
				}
				if err := os.WriteFile(filepath.Join(dir, "lnd.macaroon"), raw, 0o600); err != nil {
					t.Fatal(err)
				}
				return text
			})
			if got := len(w) == 1 && strings.Contains(w[0], "more than selling needs"); got != warn || len(w) > 1 {
				t.Errorf("%s: %v", rights, w)
			}
		}
	}
}

func FuzzLndRights(f *testing.F) {
	f.Add([]byte{3, 10, 1, 48})
	f.Add([]byte{3, 26, 200, 1})
	f.Fuzz(func(_ *testing.T, id []byte) { lndRights(id) })
}
