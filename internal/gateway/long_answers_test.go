package gateway_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/metering/format"
)

// keeping sets how many bytes of an answer, and of all bodies, the gateway keeps.
func keeping(hold int, bodies int64) func(*setup) {
	return func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.UnaryHoldBack, c.MaxBodies = hold, bodies }
	}
}

// listedStream returns a stream of this many tokens with their log probabilities, more than 1,000
// bytes per token.
func listedStream(tokens int) string {
	top := strings.TrimSuffix(strings.Repeat(`{"token":"abcd","logprob":-0.12345,"bytes":[97,98,99,100]},`, 20), ",")
	event := delta(`"delta":{"content":"abcd"},"logprobs":{"content":[{"token":"abcd","logprob":-0.1,"bytes":[97],"top_logprobs":[`+top+`]}]}`, "")
	return roleEvent + strings.Repeat(event, tokens) + finishEvent + usageEvent(50, tokens) + doneEvent
}

// TestLongGatheredAnswerIsServed: an answer that was read as a stream and is far longer than
// UnaryHoldBack reaches its client, who pays for it.
func TestLongGatheredAnswerIsServed(t *testing.T) {
	r := playing(t, format.EngineVLLM, says(sse, listedStream(300)), keeping(64<<10, 64<<20))
	k := r.buy(maxPurchase)
	for range 5 {
		a := r.chat(k, request("max_tokens", "1000", "logprobs", "true", "top_logprobs", "20"))
		var got struct {
			Choices []struct {
				Message struct{ Content string }
			}
		}
		if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusOK || got.Choices[0].Message.Content != strings.Repeat("abcd", 300) {
			t.Fatalf("%d %v %.200s", a.status, err, a.body)
		}
		r.wantCharged(k, "gathered", cost10(50, 300))
	}
	r.wantSpent(k, 5*cost10(50, 300))
	if s := r.fleet.Status()[0]; s.Failed != 0 || s.Ejected {
		t.Errorf("%+v", s)
	}
	if used := r.metric(`sluice_body_bytes{caller="holder"}`); used != 0 {
		t.Errorf("%v bytes are taken after the requests ended", used)
	}
}

// TestAnswerTooLongDoesNotBlameTheBackend: if there is no room for an answer, the backend is not
// blamed, and the request is not sent again.
func TestAnswerTooLongDoesNotBlameTheBackend(t *testing.T) {
	text := strings.Repeat("abcd", 30_000)
	document := `{"choices":[{"index":0,"message":{"role":"assistant","content":"` + text + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":50,"completion_tokens":8000}}`
	for name, c := range map[string]struct {
		engine format.Engine
		play   http.HandlerFunc
		body   string
		says   string
	}{
		"gathered":                    {format.EngineVLLM, says(sse, listedStream(100)), request("max_tokens", "1000"), "ask for a stream"},
		"a document, asked as stream": {format.EngineGeneric, says("application/json", document), asStream(8000), "in place of a stream"},
	} {
		r := playing(t, c.engine, c.play, keeping(16<<10, 256<<10))
		k := r.buy(maxPurchase)
		for range 5 {
			a := r.chat(k, c.body)
			if a.status != http.StatusBadGateway || !strings.Contains(string(a.body), c.says) || a.header.Get("X-Should-Retry") != "false" {
				t.Errorf("%s: %d %v %.300s", name, a.status, a.header, a.body)
			}
		}
		r.wantSpent(k, 0)
		if s := r.fleet.Status()[0]; s.Failed != 0 || s.Ejected || s.InFlight != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	r := playing(t, format.EngineGeneric, says("application/json", document), keeping(16<<10, 256<<10))
	k := r.buy(maxPurchase)
	for range 5 { // a client pays for what was passed on
		resp, err := r.client.Do(r.newRequest("POST", chatPath, request("max_tokens", "8000"), k.with()))
		if err != nil {
			t.Fatal(err)
		}
		drainBody(resp)
	}
	if e := r.lastCharge(k); e.Charged == 0 {
		t.Errorf("%+v", e)
	}
	if s := r.fleet.Status()[0]; s.Failed != 0 || s.Ejected {
		t.Errorf("a document: %+v", s)
	}
}

// TestLongDocumentForAStreamComesAsEvents: a client that asked for a stream gets a long document as
// events.
func TestLongDocumentForAStreamComesAsEvents(t *testing.T) {
	text := strings.Repeat("abcd", 100_000)
	r := playing(t, format.EngineGeneric, says("application/json",
		`{"choices":[{"index":0,"message":{"role":"assistant","content":"`+text+`"},"finish_reason":"stop"}],"usage":{"prompt_tokens":50,"completion_tokens":8000}}`),
		keeping(64<<10, 64<<20))
	k := r.buy(maxPurchase)
	a := r.chat(k, asStream(8000))
	if a.header.Get("Content-Type") != sse || !strings.HasSuffix(string(a.body), doneEvent) || !strings.Contains(string(a.body), text) {
		t.Errorf("%d %s %.80q", a.status, a.header.Get("Content-Type"), a.body)
	}
	r.wantCharged(k, "a long document", cost10(50, 8000))
}
