package main

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// Of the API in a cloud below: its key, and where it has chats.
const (
	cloudKey    = "k-0123456789abcdef"
	completions = "/llm/openai/deployments/gpt%2Ffour/chat/completions"
)

// A cloud API has other paths, needs a version in each query, and needs its key in another header.
// Only the API sees the key.
func TestCloudAPIElsewhere(t *testing.T) {
	const key = cloudKey
	u := newUpstream(t, map[string]http.HandlerFunc{
		"POST " + completions:    chats("gpt-4o-2024-08-06"),
		"GET /llm/openai/models": saying(http.StatusOK, `{"object":"list","data":[{"id":"gpt/four"}]}`),
	})
	g := openSeller(t, t.TempDir(), ownerConfig+`
backends:
  - name: one
    url: `+u.URL+`/llm/
    slots: 4
    engine: openai
    api_key: ${CLOUD_KEY}
    key_header: api-key
    paths: {chat: "/openai/deployments/{model}/chat/completions", models: /openai/models}
    query: {api-version: 2024-10-21}
    health: {every: 100ms}
    models: {demo: gpt/four}
`, func(name string) string { return map[string]string{"CLOUD_KEY": key}[name] })
	k := g.credit(100_000)
	if a := g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k, "X-Api-Key", "sk-of-the-client"); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	got := u.last(t, completions)
	if got.path != completions+"?api-version=2024-10-21" {
		t.Errorf("it came to %s", got.path)
	}
	if got.header.Get("Api-Key") != key || got.header.Get("Authorization") != "" || got.header.Get("X-Api-Key") != "" {
		t.Errorf("with the header %v", got.header)
	}
	if got.body["model"] != "gpt/four" || got.body["max_completion_tokens"] != 16.0 || got.body["max_tokens"] != nil {
		t.Errorf("with the body %s", got.raw)
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(u.at("/llm/openai/models")) == 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if health := u.last(t, "/llm/openai/models"); !strings.HasSuffix(health.path, "?api-version=2024-10-21") || health.header.Get("Api-Key") != key {
		t.Errorf("its health is asked for at %s with %v", health.path, health.header)
	}
	repeatsItsKey(t, g, u, k)
	if log := g.log.String(); strings.Contains(log, key) || strings.Contains(log, "2024-10-21") {
		t.Errorf("the log shows the key or the query:\n%s", log)
	}
	if n := g.spent(k); n != 7+2*3 {
		t.Errorf("%d msat were charged", n)
	}
}

// repeatsItsKey makes the API repeat its key in errors. No client may see the key.
func repeatsItsKey(t *testing.T, g *seller, u *upstream, credential string) {
	t.Helper()
	before := len(u.at(completions))
	for i, c := range []struct {
		status int
		body   string
	}{
		{http.StatusOK, `{"error":{"message":"worker of ` + cloudKey + ` failed"}}`},
		{http.StatusBadRequest, `{"error":{"message":"caller ` + cloudKey + ` asks for too much","code":400}}`},
		{http.StatusInternalServerError, `{"error":{"message":"worker of ` + cloudKey + ` failed","code":500}}`},
		{http.StatusNotFound, `{"error":{"message":"the model gpt/four does not exist for ` + cloudKey + `","code":404}}`},
	} {
		u.answer("POST "+completions, saying(c.status, c.body))
		a := g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", credential)
		if a.status < 400 || strings.Contains(a.body, cloudKey) || strings.Contains(a.body, "gpt/four") || len(u.at(completions)) < before+i+1 {
			t.Errorf("%d: %d %s", c.status, a.status, a.body)
		}
	}
}

// The address and the engine of a backend change while the gateway runs. Later requests go to the
// new address, in the form of the new engine.
func TestReloadOfAnAddress(t *testing.T) {
	u := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: chats("m"), "POST /v2/chat": chats("m")})
	file := func(more string) string {
		return ownerConfig + "\nbackends: [{name: one, url: \"" + u.URL + "\", slots: 4, engine: vllm, health: {path: \"\"}" + more + "}]\n"
	}
	g := openSeller(t, t.TempDir(), file(""), os.Getenv)
	k := g.credit(100_000)
	g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k)
	g.reload(file(`, paths: {chat: /v2/chat}, api_key: other, key_header: X-Key`))
	if a := g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := u.last(t, chatPath); got.body["max_tokens"] != 16.0 {
		t.Errorf("before: %s", got.raw)
	}
	if len(u.at(chatPath)) != 1 || u.last(t, "/v2/chat").header.Get("X-Key") != "other" {
		t.Errorf("%d requests at the path before", len(u.at(chatPath)))
	}
	g.reload(strings.Replace(file(`, paths: {chat: /v2/chat}`), "engine: vllm", "engine: openai, cap_field: max_tokens", 1))
	g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k)
	if got := u.last(t, "/v2/chat"); got.body["max_tokens"] != 16.0 || got.body["store"] != false || got.header.Get("X-Key") != "" {
		t.Errorf("another engine, with what the owner says above it: %s", got.raw)
	}
	g.reload(strings.Replace(file(`, paths: {chat: /v2/chat}`), "engine: vllm", "engine: openai", 1))
	g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k)
	if got := u.last(t, "/v2/chat"); got.body["max_completion_tokens"] != 16.0 || got.body["max_tokens"] != nil {
		t.Errorf("another engine: %s", got.raw)
	}
}
