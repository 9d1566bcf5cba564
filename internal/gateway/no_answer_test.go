package gateway_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// TestAnswerThatIsNoneCostsNothing: a 200 whose body is not an answer is the backend's fault.
// Nothing is charged, and no part of the body is passed on.
func TestAnswerThatIsNoneCostsNothing(t *testing.T) {
	const json = "application/json"
	for name, c := range map[string]struct{ kind, body string }{
		"a page":                   {"text/html", "<!doctype html><html><body>SECRET page of a proxy</body></html>"},
		"a page labelled JSON":     {json, "<html>SECRET</html>"},
		"a page labelled events":   {sse, "<html>SECRET</html>\n"},
		"nothing":                  {json, ""},
		"nothing, events":          {sse, ""},
		"white space":              {json, " \r\n\r\n"},
		"lines of JSON":            {"application/x-ndjson", `{"message":{"content":"SECRET"},"done":false}` + "\n" + `{"done":true}` + "\n"},
		"lines labelled events":    {sse, `{"message":{"content":"SECRET"},"done":false}` + "\n" + `{"done":true}` + "\n"},
		"another object":           {json, `{"model":"m","message":{"content":"SECRET"},"done":true}`},
		"no choice":                {json, `{"choices":[],"note":"SECRET"}`},
		"a list":                   {json, `["SECRET"]`},
		"text":                     {"text/plain", "SECRET words"},
		"half an object":           {json, `{"choices":[{"message":{"content":"SECRET`},
		"text in a stream":         {sse, "data: SECRET is loading\n\n"},
		"text and the marker":      {sse, "data: SECRET is loading\n\n" + doneEvent},
		"the marker alone":         {sse, doneEvent},
		"events of another format": {sse, "event: message_start\ndata: {\"type\":\"message_start\",\"x\":\"SECRET\"}\n\n"},
		"a usage alone":            {sse, usageEvent(50, 500) + doneEvent},
	} {
		for _, stream := range []string{"true", "false"} {
			r := playing(t, format.EngineGeneric, says(c.kind, c.body))
			k := r.buy(minPurchase)
			a := r.chat(k, request("stream", stream))
			if a.status != http.StatusBadGateway {
				t.Errorf("%s, stream %s: status %d\n%s", name, stream, a.status, a.body)
				continue
			}
			a.wantProblem(t, http.StatusBadGateway, "backend-unavailable")
			if strings.Contains(string(a.body), "SECRET") {
				t.Errorf("%s, stream %s: the client got %s", name, stream, a.body)
			}
			r.wantSpent(k, 0)
			if failed := r.metric(`sluice_backend_failures_total{backend="gpu0"}`); failed != 1 {
				t.Errorf("%s, stream %s: the backend was blamed %v times", name, stream, failed)
			}
		}
	}
}

// TestErrorWithStatus200CostsNothing: an error with the status 200 counts as an error, and the
// client gets its words.
func TestErrorWithStatus200CostsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		body, words string
		status      int
	}{
		"an object":              {`{"error":{"message":"no memory","code":500}}`, "no memory", http.StatusBadGateway},
		"the first event":        {`data: {"error":{"message":"no memory"}}` + "\n\n" + doneEvent, "no memory", http.StatusBadGateway},
		"text":                   {"data: the model is overloaded\n\n", "the model is overloaded", http.StatusBadGateway},
		"a detail":               {`data: {"detail":"no memory"}` + "\n\n" + doneEvent, "no memory", http.StatusBadGateway},
		"the request's fault":    {`data: {"error":{"message":"prompt is too long","code":400}}` + "\n\n" + doneEvent, "prompt is too long", http.StatusBadRequest},
		"the same, as an object": {`{"object":"error","message":"prompt is too long","code":400}`, "prompt is too long", http.StatusBadRequest},
	} {
		r := playing(t, format.EngineGeneric, says("", c.body))
		k := r.buy(minPurchase)
		a := r.chat(k, request("stream", "true"))
		if a.status != c.status || !strings.Contains(string(a.body), c.words) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		r.wantSpent(k, 0)
		if failed := r.metric(`sluice_backend_failures_total{backend="gpu0"}`); (failed == 1) != (c.status == http.StatusBadGateway) {
			t.Errorf("%s: the backend was blamed %v times", name, failed)
		}
	}
}

// TestTextThatIsNoAnswerThenSilence: a body begins with text that is not JSON, and then nothing
// comes. The buyer pays nothing, whoever ends the answer.
func TestTextThatIsNoAnswerThenSilence(t *testing.T) {
	r := playing(t, format.EngineGeneric, saysAndWaits(sse, "data: model is loading\n\n"), func(s *setup) {
		s.backend = func(b *gpuBackend) { b.FirstEventTimeout = 200 * time.Millisecond }
	})
	k := r.buy(minPurchase)
	r.chat(k, asStream(100)).wantProblem(t, http.StatusGatewayTimeout, "backend-unavailable")
	r.wantSpent(k, 0)
	if r.metric(`sluice_backend_failures_total{backend="gpu0"}`) != 1 {
		t.Error("the backend was not blamed")
	}
}

func TestStreamIsKnownByItsContent(t *testing.T) {
	body := roleEvent + strings.Repeat(word("a ", ""), 20) + finishEvent + usageEvent(50, 20) + doneEvent
	for _, kind := range []string{"text/plain", "application/json", "application/octet-stream", "", "TEXT/Event-Stream; charset=x"} {
		for _, first := range []string{"", ": ping\n\n", "\ufeff", "\n\n", "event: message\n"} {
			r := playing(t, format.EngineGeneric, says(kind, first+body))
			k := r.buy(minPurchase)
			a := r.chat(k, asStream(100))
			if a.status != http.StatusOK || !strings.HasPrefix(strings.ToLower(a.header.Get("Content-Type")), sse) || contentEvents(a.body) != 20 {
				t.Errorf("%q, %q first: %d %v\n%s", kind, first, a.status, a.header, tail(a.body))
			}
			r.wantSpent(k, cost10(50, 20))
		}
	}
	// The events may come byte by byte.
	r := playing(t, format.EngineGeneric, says("text/plain", append(strings.Split(body[:40], ""), body[40:])...))
	k := r.buy(minPurchase)
	if a := r.chat(k, asStream(100)); contentEvents(a.body) != 20 {
		t.Errorf("byte by byte: %d %s", a.status, tail(a.body))
	}
}

func TestDocumentIsKnownByItsContent(t *testing.T) {
	for _, kind := range []string{"text/plain", sse, ""} {
		r := playing(t, format.EngineGeneric, says(kind, ` {"choices":[{"index":0,"message":{"role":"assistant","content":"four"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3}}`))
		k := r.buy(minPurchase)
		if a := r.chat(k, request()); a.status != http.StatusOK || a.header.Get("L402-Cost-Msat") != amountText(cost10(7, 3)) {
			t.Errorf("%q: %d %s", kind, a.status, a.body)
		}
		r.wantSpent(k, cost10(7, 3))
	}
}

func TestHeartbeatsAreNotCounted(t *testing.T) {
	r := playing(t, format.EngineGeneric, says(sse, strings.Repeat("data: ping\n\n", 50)+word("word", "")+strings.Repeat("data: \"ping\"\n\n", 50)+finishEvent+doneEvent))
	k := r.buy(minPurchase)
	a := r.chat(k, asStream(1000))
	if n := len(dataLines(a.body)); n != 3 {
		t.Errorf("%d events were passed on\n%s", n, a.body)
	}
	if e := r.lastCharge(k); e.Usage[pricing.OutputTokens] != 1 || e.Outcome != metering.OutcomeComplete {
		t.Errorf("%+v, want one token", e)
	}
}

func TestNumbersThatAreNoneCountOneToken(t *testing.T) {
	for _, number := range []string{"NaN", "-Infinity", "Infinity", "-NaN"} {
		event := delta(`"delta":{"content":" NaN"},"logprobs":{"content":[{"token":"`+strings.Repeat("x", 200)+`","logprob":`+number+`,"top_logprobs":[]}]}`, "")
		r := playing(t, format.EngineGeneric, says(sse, event+finishEvent+doneEvent))
		k := r.buy(minPurchase)
		a := r.chat(k, asStream(1000))
		if e := r.lastCharge(k); e.Usage[pricing.OutputTokens] != 1 {
			t.Errorf("%s: %+v, want one token", number, e)
		}
		if !strings.Contains(string(a.body), `"content":" NaN"`) || !strings.Contains(string(a.body), `"logprob":null`) {
			t.Errorf("%s: the client got %s", number, a.body)
		}
	}
}

// TestBackendNeverConnectedIsFreeForWhoLeaves: the TLS handshake of this backend never ends, so no
// backend is reached.
func TestBackendNeverConnectedIsFreeForWhoLeaves(t *testing.T) {
	l := listen(t)
	accepted := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	t.Cleanup(func() { l.Close() })
	for _, stream := range []string{"true", "false"} {
		r := newRig(t, func(s *setup) {
			s.backendURLs = []string{"https://" + l.Addr().String()}
			s.backend = func(b *gpuBackend) { b.ConnectTimeout = 20 * time.Second }
		})
		k := r.buy(minPurchase)
		r.leave(k, request("stream", stream, "max_tokens", "250"), 300*time.Millisecond)
		r.wantSpent(k, 0)
		(<-accepted).Close()
	}
}

// TestUnaryStallIsFreeForWhoLeaves: a backend that took the request and stalls is not the client's
// fault, however often the client's SDK repeats the request.
func TestUnaryStallIsFreeForWhoLeaves(t *testing.T) {
	t.Parallel()
	for _, engine := range []format.Engine{format.EngineGeneric, format.EngineVLLM, format.EngineTGI} {
		r := playing(t, engine, func(w http.ResponseWriter, req *http.Request) { saysAndWaits(sse)(w, req) }, func(s *setup) {
			s.backend = func(b *gpuBackend) { b.FirstByteTimeout = 700 * time.Millisecond }
		})
		k := r.buy(minPurchase)
		for range 3 {
			r.leave(k, request("max_tokens", "1024"), 200*time.Millisecond)
		}
		r.wantSpent(k, 0)
	}
}
