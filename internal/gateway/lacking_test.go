package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// A document that lacks a choice is no whole answer, as a stream is none.
func TestDocumentThatLacksAChoice(t *testing.T) {
	const one = `{"choices":[{"index":0,"message":{"content":"four"},"text":"four","finish_reason":"stop"}],"usage":{"prompt_tokens":50,"completion_tokens":2}}`
	for name, body := range map[string]string{
		"n":             `"n":2,"prompt":"a"`,
		"prompts":       `"prompt":["a","b"]`,
		"prompts and n": `"n":2,"prompt":["a","b"]`,
	} {
		t.Log(name)
		r := playing(t, format.EngineGeneric, says("application/json", one), textual)
		k := r.buy(minPurchase)
		r.complete(k, body).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
		r.complete(k, body+`,"stream":true`).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
		r.wantSpent(k, 0)
	}
	for _, stream := range []string{"true", "false"} {
		r := playing(t, format.EngineGeneric, says("application/json", one))
		k := r.buy(minPurchase)
		r.chat(k, request("n", "2", "stream", stream)).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
		r.wantSpent(k, 0)
		if a := r.chat(k, request("n", "1", "stream", stream)); a.status != http.StatusOK {
			t.Errorf("one: %d %s", a.status, a.body)
		}
	}
	r := playing(t, format.EngineGeneric, says("application/json", one))
	k := r.buy(maxPurchase)
	for range 10 { // one account does not take a backend from the others
		if a := r.chat(k, request("n", "2")); !strings.Contains(string(a.body), "fewer completions") {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if a := r.chat(k, request()); a.status != http.StatusOK {
		t.Errorf("after ten of them: %d %s", a.status, a.body)
	}
	r = playing(t, format.EngineOllama, says("application/json", one))
	k = r.buy(minPurchase)
	if a := r.chat(k, request("n", "2")); a.status != http.StatusOK {
		t.Errorf("an engine that makes one: %d %s", a.status, a.body)
	}
	r.wantCharged(k, "one", cost10(50, 2))
}

// A backend that makes one completion is believed once accounts enough have met it.
func TestDocumentsShowThatABackendMakesOne(t *testing.T) {
	const one = `{"choices":[{"index":0,"message":{"content":"four"},"finish_reason":"stop"}],"usage":{"prompt_tokens":50,"completion_tokens":2}}`
	r := playing(t, format.EngineGeneric, says("application/json", one))
	for i := range 6 {
		k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
		want := http.StatusBadGateway
		if i >= 4 {
			want = http.StatusOK
		}
		var a *answer
		r.until("the backend is asked again", func() bool {
			a = r.chat(k, request("n", "2"))
			return a.status != http.StatusServiceUnavailable
		})
		if a.status != want {
			t.Errorf("account %d: %d %s", i, a.status, a.body)
		}
	}
}

// A usage that comes with the marker of the end, behind it, is read.
func TestUsageBehindTheMarker(t *testing.T) {
	ten := roleEvent + strings.Repeat(word("four", ""), 10) + finishEvent + doneEvent
	for _, engine := range []format.Engine{format.EngineGeneric, format.EngineOpenAI} {
		for _, stream := range []string{"true", "false"} {
			for behind, completion := range map[string]int{usageEvent(50, 12): 12, usageEvent(50, 12) + word("lost", ""): 12, word("lost", "") + usageEvent(50, 11): 11} {
				r := playing(t, engine, says(sse, ten+behind))
				k := r.buy(minPurchase)
				a := r.chat(k, request("stream", stream))
				if a.status != http.StatusOK || strings.Contains(string(a.body), "lost") {
					t.Errorf("%s, stream %s: %d %s", engine, stream, a.status, a.body)
				}
				if stream == "false" && !strings.Contains(string(a.body), `"usage":{`) {
					t.Errorf("%s: a document without the usage: %s", engine, a.body)
				}
				r.wantCharged(k, string(engine)+", stream "+stream, cost10(50, completion))
				if e := r.lastCharge(k); e.Source != metering.SourceReported {
					t.Errorf("%s, stream %s: by %s", engine, stream, e.Source)
				}
			}
		}
	}
}
