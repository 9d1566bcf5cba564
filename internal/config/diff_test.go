package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// changed returns the changes from the minimal configuration to its edited form.
func changed(t *testing.T, env map[string]string, edits ...string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile("testdata/minimal.good.yml")
	if err != nil {
		t.Fatal(err)
	}
	getenv := func(name string) string { return env[name] }
	before, err := Parse(text, t.TempDir(), getenv)
	if err != nil {
		t.Fatal(err)
	}
	after, err := Parse([]byte(strings.NewReplacer(edits...).Replace(string(text))), filepath.Dir(before.Store.Path), getenv)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Diff(before, after) {
		lines = append(lines, c.String())
	}
	return lines
}

func TestDiff(t *testing.T) {
	for _, c := range []struct {
		name  string
		edits []string
		want  []string
	}{
		{"nothing", nil, nil},
		{"a price", []string{"1 sat/Mtok", "3 sat/Mtok"}, []string{"~ services[inference].models[m].prices.input: 1000 msat/Mtok → 3000 msat/Mtok"}},
		{"a secret", []string{"1111\"", "2222\""}, []string{"~ keys[k1].secret: changed"}},
		{"a new backend", []string{"slots: 4}", "slots: 4}\n  - {name: c, url: \"http://127.0.0.1:9000\", slots: 2}"}, []string{"+ backends[c]: present"}},
		{"another name", []string{"name: b,", "name: c,", "backends: [b]", "backends: [c]"},
			[]string{"~ services[inference].models[m].backends: [b] → [c]", "+ backends[c]: present", "- backends[b]: present"}},
		{"a key and a list", []string{"slots: 4", "slots: 4, api_key: hunter22", "name: inference", "name: inference\n    hosts: [a.example]"},
			[]string{"+ services[inference].hosts: [a.example]", "+ backends[b].api_key: [redacted]"}},
		{"from the environment", []string{"slots: 4", "slots: \"${SLOTS}\", api_key: \"sk-${KEY}\""},
			[]string{"+ backends[b].api_key: [redacted]", "~ backends[b].slots: 4 → ${SLOTS}"}},
	} {
		got := changed(t, map[string]string{"SLOTS": "9", "KEY": "hunter22"}, c.edits...)
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestEnvironmentFillsValues(t *testing.T) {
	text, _ := os.ReadFile("testdata/minimal.good.yml")
	env := map[string]string{"SLOTS": "7", "KEY": "pa$$WORD", "NAME": "hunter2hunter2hunter2hunter2hunter2hunter2hunter2"}
	getenv := func(name string) string { return env[name] }
	with := func(edits ...string) (*Config, error) {
		return Parse([]byte(strings.NewReplacer(edits...).Replace(string(text))), t.TempDir(), getenv)
	}
	cfg, err := with("slots: 4", "slots: \"${SLOTS}\"", "8000\"", "8000\", api_key: 'sk-${KEY}-$${KEY}'")
	if err != nil || cfg.Backends[0].Slots != 7 || cfg.Backends[0].APIKey != "sk-pa$$WORD-${KEY}" {
		t.Fatalf("%+v, %v", cfg, err)
	}
	if !cfg.inline { // the master key is still in the file
		t.Error("the file holds a secret")
	}
	_, err = with("slots: 4", "slots: 4, api_key: \"${NONE}\"")
	if err == nil || err.Error() != "line 16: backends[0].api_key: the environment variable NONE is not set, or is empty; set it, or write $${NONE} for that very text" {
		t.Errorf("a missing variable: %v", err)
	}
	// An error does not show a value from the environment, whatever is wrong with the value.
	_, err = with("name: b,", "name: \"x ${NAME}\",")
	if err == nil || strings.Contains(err.Error(), "hunter") || !strings.Contains(err.Error(), "${NAME}") {
		t.Errorf("a bad value: %v", err)
	}
	_, err = with("slots: 4", "slots: \"${NAME}\"")
	if err == nil || strings.Contains(err.Error(), "hunter") {
		t.Errorf("a bad number: %v", err)
	}
}

func TestSecretsFromTheEnvironmentMakeNoSecretFile(t *testing.T) {
	text, _ := os.ReadFile("testdata/minimal.good.yml")
	secret := strings.Repeat("1", 64)
	edited := strings.NewReplacer(secret, "${MASTER}", "AgEDbG5kAgdleGFtcGxlAAAGIMhEFsLihPVi352mLzDfnjqZ4ov9eWWPYvvQPNRqBscI", "${MACAROON}").Replace(string(text))
	cfg, err := Parse([]byte(edited), t.TempDir(), func(name string) string {
		return map[string]string{"MASTER": secret, "MACAROON": testMacaroon}[name]
	})
	if err != nil || cfg.inline {
		t.Errorf("inline %v, %v", cfg != nil && cfg.inline, err)
	}
}
