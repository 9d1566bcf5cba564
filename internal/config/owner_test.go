package config

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// edited is the minimal configuration with changes.
func edited(t *testing.T, env map[string]string, edits ...string) (*Config, error) {
	t.Helper()
	text, err := os.ReadFile("testdata/minimal.good.yml")
	if err != nil {
		t.Fatal(err)
	}
	return Parse([]byte(strings.NewReplacer(edits...).Replace(string(text))), t.TempDir(), func(name string) string { return env[name] })
}

// The name of an engine sets the paths of the engine's health check and metrics. Values in the file
// take precedence.
func TestEnginePresets(t *testing.T) {
	for more, want := range map[string][2]string{
		"":                                        {"/health", ""},
		", engine: vllm":                          {"/health", "http://127.0.0.1:8000/metrics"},
		", engine: ollama":                        {"/api/version", ""},
		", engine: trtllm":                        {"/health", "http://127.0.0.1:8000/prometheus/metrics"},
		", engine: openai":                        {"/v1/models", ""},
		", engine: {name: sglang}":                {"/health", "http://127.0.0.1:8000/metrics"},
		", engine: {metrics: /m}":                 {"/health", "http://127.0.0.1:8000/m"},
		", engine: ollama, health: {path: /up}":   {"/up", ""},
		`, engine: ollama, health: {path: ""}`:    {"", ""},
		", engine: ollama, health: {every: 1s}":   {"/api/version", ""},
		`, engine: {name: vllm, metrics: ""}`:     {"/health", ""},
		", engine: {name: vllm, metrics: /other}": {"/health", "http://127.0.0.1:8000/other"},
		`, engine: {name: vllm, metrics: "http://127.0.0.2:1/m"}`: {"/health", "http://127.0.0.2:1/m"},
	} {
		cfg, err := edited(t, nil, "slots: 4", "slots: 4"+more)
		if err != nil {
			t.Errorf("%s: %v", more, err)
			continue
		}
		b, metrics := cfg.Backends[0], ""
		if b.EngineURL != nil {
			metrics = b.EngineURL.String()
		}
		path, _ := b.HealthPaths()
		if path != want[0] || metrics != want[1] || b.Engine.Preset != (metrics != "" && !strings.Contains(more, "metrics:")) {
			t.Errorf("%s: health %q, metrics %q, preset %v", more, path, metrics, b.Engine.Preset)
		}
	}
	cfg, err := edited(t, nil, ":8000\"", ":8000/llm/\"", "slots: 4", "slots: 4, engine: vllm")
	if err != nil || cfg.Backends[0].EngineURL.Path != "/llm/metrics" {
		t.Errorf("behind a prefix: %v, %v", cfg.Backends[0].EngineURL, err)
	}
}

func TestPathsOfAServer(t *testing.T) {
	cfg, err := edited(t, nil, ":8000\"", ":8000/v1\"", "slots: 4", `slots: 4, query: {b: "x y", a: 2024-10-21}, paths: {rerank: /v2/rerank, models: /list, /tokenize: /t, chat: "/of/{model}/chat"}`)
	if err != nil {
		t.Fatal(err)
	}
	b := &cfg.Backends[0]
	paths := b.ServerPaths()
	for path, want := range map[string]string{"/v1/rerank": "/v2/rerank", "/rerank": "/v2/rerank", "/v1/models": "/list", "/tokenize": "/t", "/v1/chat/completions": "/of/{model}/chat"} {
		if paths[path] != want {
			t.Errorf("%s is at %q", path, paths[path])
		}
	}
	if path, fallback := b.HealthPaths(); path != "/health" || !slices.Equal(fallback, []string{"/list"}) {
		t.Errorf("health is asked for at %s, then %v", path, fallback)
	}
	if q := b.ServerQuery().Reveal(); q != "a=2024-10-21&b=x+y" {
		t.Errorf("query %s", q)
	}
}

// An owner sets JSON of any kind. A variable is read as if its value were written in the file.
func TestFieldsAreJSON(t *testing.T) {
	env := map[string]string{"CTX": "8192", "WORD": "hunter22"}
	cfg, err := edited(t, env, "prices: {", `set_fields:
          num_ctx: ${CTX}
          a: {z: [1, 2.5, true, null, "7"], "y": {}, x: "${WORD}"}
          seed: 7
        set_headers: {X-Key: "k-${WORD}"}
        prices: {`)
	if err != nil {
		t.Fatal(err)
	}
	m := &cfg.Services[0].Models[0]
	for name, want := range map[string]string{"num_ctx": "8192", "a": `{"z":[1,2.5,true,null,"7"],"y":{},"x":"hunter22"}`, "seed": "7"} {
		if got := string(m.SetFields[name]); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if _, err := edited(t, nil, "prices: {", "set_fields: {a: &x [*x]}\n        prices: {"); err == nil || !strings.Contains(err.Error(), "nested too deeply") {
		t.Errorf("a value within itself: %v", err)
	}
	if _, err := edited(t, nil, "prices: {", "set_fields: {big: .inf}\n        prices: {"); err == nil || !strings.Contains(err.Error(), "set_fields.big: want a value that JSON has") {
		t.Errorf("infinity: %v", err)
	}
	p := m.Policy(&cfg.Services[0])
	if len(p.Set) != 3 || p.Set[0].Name != "a" || string(p.Set[1].Raw) != `"num_ctx":8192` {
		t.Errorf("policy %q", p.Set)
	}
	before, err := edited(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range Diff(before, cfg) {
		if c.Key != "store" { // each configuration is in a folder of its own
			lines = append(lines, c.String())
		}
	}
	slices.Sort(lines)
	const at = "services[inference].models[m]."
	if want := []string{"+ " + at + "set_fields.a: [redacted]", "+ " + at + "set_fields.num_ctx: ${CTX}", "+ " + at + "set_fields.seed: 7",
		"+ " + at + "set_headers.X-Key: [redacted]"}; !slices.Equal(lines, want) {
		t.Errorf("changes %q, want %q", lines, want)
	}
}
