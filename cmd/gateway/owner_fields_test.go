package main

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// The backend gets the fields and headers that the owner of a model sets, in place of the client's.
// It does not get the fields that the owner removes.
func TestFieldsOfTheOwner(t *testing.T) {
	u := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: chats("m")})
	file := func(more string) string {
		return ownerConfig + more + "\nbackends: [{name: one, url: \"" + u.URL + "\", slots: 4, engine: trtllm, health: {path: \"\"}}]\n"
	}
	const own = `        set_fields:
          temperature: 0.2
          top_a: 0.5 # the engine drops it from what clients send
          chat_template_kwargs: {enable_thinking: false}
          provider: {order: [a, b], region: "${REGION}"}
          house_rules: "be brief and kind"
        remove_fields: [reasoning_effort, previous_response_id, my_client]
        set_headers: {X-Tenant: sluice, X-Region: "${REGION}"}
`
	getenv := func(name string) string { return map[string]string{"REGION": "north"}[name] }
	g := openSeller(t, t.TempDir(), file(own), getenv)
	k := g.credit(100_000)
	sent := `,"temperature":1,"reasoning_effort":"high","previous_response_id":"x","my_client":{"a":1},"provider":"mine","top_p":0.5`
	a := g.ask("POST", chatPath, chatOf("demo", sent), "Authorization", k)
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	got := u.last(t, chatPath)
	for _, want := range []string{`"temperature":0.2`, `"top_a":0.5`, `"chat_template_kwargs":{"enable_thinking":false}`, `"provider":{"order":["a","b"],"region":"north"}`,
		`"house_rules":"be brief and kind"`, `"top_p":0.5`} {
		if strings.Count(got.raw, want) != 1 {
			t.Errorf("%s is not in %s", want, got.raw)
		}
	}
	for _, name := range []string{"reasoning_effort", "previous_response_id", "my_client"} {
		if got.body[name] != nil {
			t.Errorf("%s reaches the backend: %s", name, got.raw)
		}
	}
	if got.header.Get("X-Tenant") != "sluice" || got.header.Get("X-Region") != "north" {
		t.Errorf("the header is %v", got.header)
	}
	// The gateway holds credit for what lengthens the prompt, and for nothing else.
	with := g.bound(chatOf("demo", ""), "Authorization", k)
	if h := u.last(t, "/_internal/tokenize").header; h.Get("X-Tenant") != "sluice" {
		t.Errorf("its tokenizer is asked with %v", h)
	}
	g.reload(file(""))
	without := g.bound(chatOf("demo", ""), "Authorization", k)
	if with < without+int64(len("be brief and kind")) || with > without+200 {
		t.Errorf("held %d with the owner's fields and %d without", with, without)
	}
	if a := g.ask("POST", chatPath, chatOf("demo", `,"my_client":{"a":1}`), "Authorization", k); a.status != http.StatusBadRequest {
		t.Errorf("a field that is unknown again: %d %s", a.status, a.body)
	}
	if strings.Contains(g.log.String(), "north") {
		t.Error("the log shows a value of the environment")
	}
}

// The gateway's own request, with which a backend proves that it serves again, has the fields that
// the owner sets. Without them the backend would always refuse the request.
func TestProofHasWhatTheOwnerSets(t *testing.T) {
	u := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: saying(http.StatusInternalServerError, `{"error":{"message":"CUDA error: out of memory"}}`)})
	g := openSeller(t, t.TempDir(), ownerConfig+`        set_fields: {house: rules}
        set_headers: {X-Tenant: sluice}
backends: [{name: one, url: "`+u.URL+`", slots: 4, engine: vllm, health: {path: ""}}]
`, os.Getenv)
	proof := func() (asked, bool) {
		for _, a := range u.at(chatPath) {
			if strings.Contains(a.raw, `"Hi"`) {
				return a, true
			}
		}
		return asked{}, false
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if a, ok := proof(); ok {
			if a.header.Get("X-Tenant") != "sluice" || a.body["house"] != "rules" {
				t.Errorf("%v %s", a.header, a.raw)
			}
			return
		}
		g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", g.credit(10_000))
	}
	t.Error("the gateway sent no request of its own")
}

// A server that repeats in its error what it was sent gives no header of the owner away: neither to
// the client nor to the log.
func TestOwnersHeadersStayHere(t *testing.T) {
	const secret = "Tenant-Secret-42"
	for name, answer := range map[string]http.HandlerFunc{
		"a refusal":          saying(http.StatusUnprocessableEntity, `{"error":{"message":"tenant `+secret+` may not ask this","type":"`+secret+`"}}`),
		"a failure":          saying(http.StatusInternalServerError, `{"error":{"message":"no quota for `+secret+`"}}`),
		"an unknown model":   saying(http.StatusNotFound, `{"error":{"message":"the model m does not exist for `+secret+`","code":"model_not_found"}}`),
		"a failure in a 200": saying(http.StatusOK, `{"error":{"message":"no quota for `+secret+`"}}`),
		"not said as JSON":   saying(http.StatusBadRequest, `tenant `+secret+` may not ask this`),
	} {
		u := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: answer})
		g := openSeller(t, t.TempDir(), ownerConfig+`        set_headers: {X-Tenant: `+secret+`}
backends: [{name: one, url: "`+u.URL+`", slots: 4, engine: vllm, health: {path: ""}}]
`, os.Getenv)
		a := g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", g.credit(10_000))
		if u.last(t, chatPath).header.Get("X-Tenant") != secret {
			t.Errorf("%s: the server got no header", name)
		}
		if strings.Contains(a.body, secret) || strings.Contains(strings.ToLower(g.log.String()), strings.ToLower(secret)) {
			t.Errorf("%s: %s\n%s", name, a.body, g.log.String())
		}
	}
}

// An API that does not know a field never gets the field, neither from clients nor from the owner.
func TestFieldsOfOneAPI(t *testing.T) {
	u := newUpstream(t, map[string]http.HandlerFunc{
		"POST " + chatPath: chats("m"),
		"POST /v1/embeddings": saying(http.StatusOK, `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}],`+
			`"model":"m","usage":{"prompt_tokens":2,"total_tokens":2}}`),
	})
	g := openSeller(t, t.TempDir(), ownerConfig+`        apis: [chat, embeddings]
        set_fields: {dimensions: 8, temperature: 0}
backends: [{name: one, url: "`+u.URL+`", slots: 4, engine: vllm, health: {path: ""}}]
`, os.Getenv)
	k := g.credit(100_000)
	g.ask("POST", chatPath, chatOf("demo", ""), "Authorization", k)
	if got := u.last(t, chatPath); got.body["temperature"] != 0.0 || got.body["dimensions"] != nil {
		t.Errorf("a chat: %s", got.raw)
	}
	a := g.ask("POST", "/v1/embeddings", `{"model":"demo","input":"it","dimensions":4096}`, "Authorization", k)
	if got := u.last(t, "/v1/embeddings"); got.body["dimensions"] != 8.0 || got.body["temperature"] != nil {
		t.Errorf("an embedding: %s", got.raw)
	}
	if a.status != http.StatusOK || !strings.Contains(a.body, `"model":"demo"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}
