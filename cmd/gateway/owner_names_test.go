package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// A model has several names. The answer has the name that the client asked for, in documents, in
// streams and in errors. It never has the backend's own name.
func TestAliases(t *testing.T) {
	for _, engine := range []string{"vllm", "generic"} { // a document is made of a stream, or passes as it is
		t.Run(engine, func(t *testing.T) { testAliases(t, engine) })
	}
}

func testAliases(t *testing.T, engine string) {
	const inner = "acme/Secret-8B"
	u := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: chats(inner + "-20260101")})
	file := func(aliases string) string {
		return ownerConfig + "        aliases: [" + aliases + "]\nbackends: [{name: one, url: \"" + u.URL + "\", slots: 4, engine: " + engine +
			", health: {path: \"\"}, models: {demo: " + inner + "}}]\n"
	}
	g := openSeller(t, t.TempDir(), file("small, org/small-model-with-a-long-name"), os.Getenv)
	k := g.credit(100_000)
	ask := func(model, more string) said { return g.ask("POST", chatPath, chatOf(model, more), "Authorization", k) }
	for _, name := range []string{"demo", "small", "org/small-model-with-a-long-name"} {
		for _, more := range []string{"", `,"stream":true`, `,"stream":true,"stream_options":{"include_usage":true}`, `,"logprobs":true`} {
			a := ask(name, more)
			if a.status != http.StatusOK || !strings.Contains(a.body, `"model":"`+name+`"`) || strings.Contains(a.body, "Secret") ||
				!strings.Contains(a.body, " said") {
				t.Errorf("%s %s: %d %s", name, more, a.status, a.body)
			}
		}
		if got := u.last(t, chatPath); got.body["model"] != inner {
			t.Errorf("%s is asked for as %v", name, got.body["model"])
		}
		a := g.ask("GET", "/v1/models/"+name, "")
		if !strings.Contains(a.body, `"id":"`+name+`"`) || strings.Contains(a.body, "alias_of") != (name != "demo") {
			t.Errorf("%s is listed as %s", name, a.body)
		}
		if a := g.ask("GET", "/l402/quote?model="+name, ""); a.number(t, "bound_msat") != 128 {
			t.Errorf("%s costs %s", name, a.body)
		}
	}
	if list := g.ask("GET", "/v1/models", "").body; strings.Count(list, `"object":"model"`) != 3 || strings.Count(list, `"alias_of":"demo"`) != 2 {
		t.Errorf("listed are %s", list)
	}
	if n := g.spent(k); n != 12*(7+2*3) {
		t.Errorf("%d msat were charged", n)
	}
	u.answer("POST "+chatPath, saying(http.StatusBadRequest, `{"error":{"message":"`+inner+` takes no such thing","code":400}}`))
	if a := ask("small", ""); a.status != http.StatusBadRequest || !strings.Contains(a.body, "small takes no such thing") {
		t.Errorf("refused: %d %s", a.status, a.body)
	}
	document := `{"choices":[{"index":0,"message":{"role":"assistant","content":"It is said"},"finish_reason":"stop"}],"model":"` + inner + `"}`
	u.answer("POST "+chatPath, saying(http.StatusOK, document))
	if a := ask("small", `,"stream":true`); !strings.Contains(a.body, `"model":"small"`) || !strings.Contains(a.body, "data: [DONE]") || strings.Contains(a.body, "Secret") {
		t.Errorf("a document in place of a stream: %d %s", a.status, a.body)
	}
	u.answer("POST "+chatPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "id: 7\ndata: {\"model\":\""+inner+"\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"It\"}}]}\n\ndata: {\"error\":{\"message\":\""+inner+" crashed\"}}\n\n")
	})
	if a := ask("small", `,"stream":true`); !strings.Contains(a.body, `"model":"small"`) || !strings.Contains(a.body, "small crashed") || strings.Contains(a.body, "Secret") {
		t.Errorf("a stream that fails: %d %s", a.status, a.body)
	}
	u.answer("POST "+chatPath, chats(inner))
	g.reload(file("other"))
	if a := ask("small", ""); a.status != http.StatusNotFound {
		t.Errorf("a name that is gone: %d %s", a.status, a.body)
	}
	if a := ask("other", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"model":"other"`) {
		t.Errorf("a new name: %d %s", a.status, a.body)
	}
}

// A token that is limited to one name of a model may use the model under that name only. A token
// that is limited to the model may use all its names.
func TestTokensAndAliases(t *testing.T) {
	u := newUpstream(t, map[string]http.HandlerFunc{"POST " + chatPath: chats("m")})
	g := openSeller(t, t.TempDir(), ownerConfig+"        aliases: [small]\nbackends: [{name: one, url: \""+u.URL+"\", slots: 4, engine: vllm, health: {path: \"\"}}]\n", os.Getenv)
	for _, c := range []struct {
		limit, name string
		status      int
	}{{"demo", "small", http.StatusOK}, {"small", "small", http.StatusOK}, {"small", "demo", http.StatusForbidden}, {"else", "small", http.StatusForbidden}} {
		k := narrowed(t, g.credit(100_000), "inference_models="+c.limit)
		if a := g.ask("POST", chatPath, chatOf(c.name, ""), "Authorization", k); a.status != c.status {
			t.Errorf("%s of a token for %s: %d %s", c.name, c.limit, a.status, a.body)
		}
	}
}

// Documents that pass in pieces have the public name too, wherever the name is in the document.
func TestNamesInLongDocuments(t *testing.T) {
	const inner = "acme/Secret-8B"
	var vectors string
	for i := range 40 {
		vectors += fmt.Sprintf(`{"object":"embedding","index":%d,"embedding":[`, i) + strings.Repeat("0.125,", 4000) + `1]},`
	}
	vectors = `"data":[` + strings.TrimSuffix(vectors, ",") + `]`
	usage := `"usage":{"prompt_tokens":40,"total_tokens":40}`
	u := newUpstream(t, map[string]http.HandlerFunc{})
	g := openSeller(t, t.TempDir(), ownerConfig+`        apis: [embeddings, chat]
        aliases: [a-much-longer-name-than-the-one-there, s]
limits: {unary_hold: 64KiB}
backends: [{name: one, url: "`+u.URL+`", slots: 4, engine: generic, health: {path: ""}, models: {demo: `+inner+`}}]
`, os.Getenv)
	k := g.credit(1_000_000)
	input := `"input":[` + strings.TrimSuffix(strings.Repeat(`"it",`, 40), ",") + `]`
	for _, name := range []string{"a-much-longer-name-than-the-one-there", "s"} {
		for _, document := range []string{`{"model":"` + inner + `",` + vectors + `,` + usage + `}`, `{"object":"list",` + vectors + `,"model": "` + inner + `",` + usage + `}`} {
			u.answer("POST /v1/embeddings", saying(http.StatusOK, document))
			a := g.ask("POST", "/v1/embeddings", `{"model":"`+name+`",`+input+`}`, "Authorization", k)
			if want := strings.Replace(document, inner, name, 1); a.status != http.StatusOK || a.body != want {
				t.Errorf("%s: %d, %d bytes that end in %s, want %d", name, a.status, len(a.body), a.body[max(0, len(a.body)-120):], len(want))
			}
		}
		// The gateway keeps a chat to meter it, and still shows it with the public name.
		document := `{"choices":[{"index":0,"message":{"role":"assistant","content":"` + strings.Repeat("it is said ", 20_000) +
			`"},"finish_reason":"stop"}],"model":"` + inner + `","usage":{"prompt_tokens":7,"completion_tokens":9}}`
		u.answer("POST "+chatPath, saying(http.StatusOK, document))
		a := g.ask("POST", chatPath, chatOf(name, ""), "Authorization", k)
		if want := strings.Replace(document, inner, name, 1); a.status != http.StatusOK || a.body != want {
			t.Errorf("a chat with %s: %d, %d bytes that end in %s, want %d", name, a.status, len(a.body), a.body[max(0, len(a.body)-120):], len(want))
		}
	}
}
