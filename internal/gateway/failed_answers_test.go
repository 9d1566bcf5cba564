package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// ending is an event whose choice has this finish_reason, with more members behind it.
func ending(reason, more string) string {
	return `data: {"id":"c1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":` + reason + more + "}]}\n\n"
}

// choiceError is an error within a choice, as OpenRouter sends it.
const choiceError = `,"error":{"code":502,"message":"provider died"}`

// saysItFailed has the forms in which servers report a failure within a 200, and the words that a
// client gets.
var saysItFailed = map[string]struct{ event, words string }{
	"a detail":                   {`data: {"detail":"boom"}` + "\n\n", "boom"},
	"details":                    {`data: {"detail":[{"loc":["body"],"msg":"boom","type":"x"}]}` + "\n\n", "boom"},
	"a message and a code":       {`data: {"message":"boom","code":500,"type":"InternalServerError"}` + "\n\n", "boom"},
	"a message and a status":     {`data: {"message":"boom","status":503}` + "\n\n", "boom"},
	"a message and a code of 0":  {`data: {"message":"lost a worker: exception","code":0}` + "\n\n", "lost a worker"},
	"a type":                     {`data: {"type":"error","message":"boom"}` + "\n\n", "boom"},
	"errors":                     {`data: {"errors":[{"message":"boom"}]}` + "\n\n", "boom"},
	"errors without choices":     {`data: {"choices":[],"errors":["boom"]}` + "\n\n", "boom"},
	"an error_message":           {`data: {"error_message":"boom"}` + "\n\n", "boom"},
	"an error in capitals":       {`data: {"Error":"boom"}` + "\n\n", "boom"},
	"another object of an error": {`data: {"object":"Error","message":"boom"}` + "\n\n", "boom"},
	"text":                       {"data: Internal Server Error\n\n", "Internal Server Error"},
	"text in quotes":             {`data: "model is overloaded"` + "\n\n", "model is overloaded"},
	"text without a field":       {"Internal Server Error\n\n", "Internal Server Error"},
	"a page without a field":     {"<html><body>502 Bad Gateway</body></html>\n\n", ""},
	"a name in capitals":         {"event: Error\ndata: {\"message\":\"boom\"}\n\n", "boom"},
	"another name":               {"event: exception\ndata: boom\n\n", "boom"},
	"a name and the marker":      {"event: exception\ndata: [DONE]\n\n", ""},
	"a choice":                   {ending(`"error"`, choiceError), "provider died"},
	"a choice without a reason":  {ending(`null`, choiceError), "provider died"},
	"a delta":                    {delta(`"delta":{"content":"x","error":"boom"}`, ""), "boom"},
	"the reason error":           {ending(`"error"`, ""), "finish_reason error"},
	"the reason abort":           {ending(`"abort"`, ""), "finish_reason abort"},
	"the reason aborted":         {ending(`" Aborted"`, ""), "finish_reason aborted"},
	"the reason as an object":    {ending(`{"type":"abort","message":"client left"}`, ""), "finish_reason abort"},
	"the reason cancelled":       {ending(`"cancelled"`, ""), "finish_reason cancelled"},
}

// TestAnswerThatSaysItFailedNeverLooksWhole: an answer that reports a failure has failed, whatever
// the form of the report. It never looks whole, only what was delivered before is charged, and the
// backend is blamed.
func TestAnswerThatSaysItFailedNeverLooksWhole(t *testing.T) {
	words := word("one ", "") + word("two ", "")
	for name, c := range saysItFailed {
		r := playing(t, format.EngineVLLM, says(sse, roleEvent+words+c.event+doneEvent))
		k := r.buy(minPurchase)
		a := r.chat(k, asStream(24))
		wantErrorFrame(t, name, string(a.body), "backend-unavailable", "backend_failed", c.words)
		if e := r.lastCharge(k); e.Outcome != metering.OutcomeBackendCut || e.Usage[pricing.OutputTokens] != 2 {
			t.Errorf("%s: %+v", name, e)
		}
		if failed := r.metric(`sluice_backend_failures_total{backend="gpu0"}`); failed != 1 {
			t.Errorf("%s: the backend was blamed %v times", name, failed)
		}
	}
}

// TestGatheredAnswerThatSaysItFailedCostsNothing: no document is made of such a stream, and nothing
// is charged.
func TestGatheredAnswerThatSaysItFailedCostsNothing(t *testing.T) {
	for name, c := range saysItFailed {
		r := playing(t, format.EngineVLLM, says(sse, roleEvent+word("one ", "")+c.event+doneEvent))
		k := r.buy(minPurchase)
		a := r.chat(k, request())
		if a.status != http.StatusBadGateway || !strings.Contains(string(a.body), c.words) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		r.wantSpent(k, 0)
		if failed := r.metric(`sluice_backend_failures_total{backend="gpu0"}`); failed != 1 {
			t.Errorf("%s: the backend was blamed %v times", name, failed)
		}
	}
}

// TestDocumentThatSaysItFailedCostsNothing: a document with a failed choice is not an answer, and
// costs nothing.
func TestDocumentThatSaysItFailedCostsNothing(t *testing.T) {
	document := func(members string) string {
		return `{"choices":[{"index":0,"message":{"role":"assistant","content":"half an"}` + members + `}],"usage":{"prompt_tokens":7,"completion_tokens":3}}`
	}
	for name, body := range map[string]string{
		"an error in a choice": document(`,"finish_reason":"error"` + choiceError),
		"error":                document(`,"finish_reason":"error"`),
		"abort":                document(`,"finish_reason":"abort"`),
		"an object":            document(`,"finish_reason":{"type":"abort"}`),
		"errors":               strings.TrimSuffix(document(`,"finish_reason":"stop"`), "}") + `,"errors":[{"message":"boom"}]}`,
		"a detail alone":       `{"detail":"boom"}`,
	} {
		for _, stream := range []string{"true", "false"} {
			r := playing(t, format.EngineGeneric, says("", body))
			k := r.buy(minPurchase)
			a := r.chat(k, request("stream", stream))
			p := a.wantProblem(t, http.StatusBadGateway, "backend-unavailable")
			if detail := fmt.Sprint(p["detail"]); !strings.Contains(detail, "the backend failed and said") {
				t.Errorf("%s, stream %s: %q", name, stream, detail)
			}
			r.wantSpent(k, 0)
			if failed := r.metric(`sluice_backend_failures_total{backend="gpu0"}`); failed != 1 {
				t.Errorf("%s, stream %s: the backend was blamed %v times", name, stream, failed)
			}
		}
	}
}

// TestReasonThatNamesNothingIsNoEnd: a finish_reason such as "none", " " or {} does not end an answer.
func TestReasonThatNamesNothingIsNoEnd(t *testing.T) {
	for _, reason := range []string{`"None"`, `"none"`, `"NULL"`, `" "`, `"undefined"`, `" null "`, `"not_finished"`, `{}`, `{"type":null}`, `"\u0020"`} {
		body := roleEvent + word("one ", "") + word("two ", "") + ending(reason, "")
		r := playing(t, format.EngineVLLM, says(sse, body))
		k := r.buy(minPurchase)
		a := r.chat(k, asStream(24))
		wantErrorFrame(t, reason, string(a.body), "backend-unavailable", "backend_cut", "broke off")
		r.wantSpent(k, r.lastCharge(k).Charged)
		before := r.lastCharge(k).ID
		if a := r.chat(k, request()); a.status != http.StatusBadGateway {
			t.Errorf("%s, gathered: %d %s", reason, a.status, a.body)
		}
		if r.lastCharge(k).ID != before {
			t.Errorf("%s, gathered: charged %+v", reason, r.lastCharge(k))
		}
	}
}

// TestNoiseAddsNothing: an event that is no chunk and speaks of no error is dropped, in documents
// too, and the answer around it is whole.
func TestNoiseAddsNothing(t *testing.T) {
	noise := []string{"data: ping\n\n", `data: "ping"` + "\n\n", `data: {"type":"ping"}` + "\n\n", `data: {"message":"SECRET","code":200}` + "\n\n",
		`data: {"message":"SECRET","status":"ok","error":null,"errors":[],"detail":null}` + "\n\n", `data: {"note":{"SECRET":1},"usage":null}` + "\n\n",
		`data: {"object":"ping","message":{"content":"SECRET error"},"done":false}` + "\n\n", "event: progress\ndata: {\"SECRET\":0.5}\n\n", "data:\ndata:\n\n"}
	for _, n := range noise {
		body := n + roleEvent + word("one ", "") + n + word("two ", "") + finishEvent + n + usageEvent(50, 2) + n + doneEvent
		for _, stream := range []string{"true", "false"} {
			r := playing(t, format.EngineVLLM, says(sse, body))
			k := r.buy(minPurchase)
			a := r.chat(k, request("stream", stream))
			if a.status != http.StatusOK || strings.Contains(string(a.body), "SECRET") || strings.Contains(string(a.body), "ping") {
				t.Errorf("%q, stream %s: %d %s", n, stream, a.status, a.body)
			}
			r.wantCharged(k, n, cost10(50, 2))
			if stream == "true" {
				continue
			}
			var document map[string]any
			if err := json.Unmarshal(a.body, &document); err != nil {
				t.Errorf("%q: %v", n, err)
			}
			for _, name := range []string{"type", "code", "message", "status", "error", "errors", "detail", "note", "done"} {
				if document[name] != nil {
					t.Errorf("%q: the document has %q: %s", n, name, a.body)
				}
			}
		}
	}
}

// TestReasonThatIsAnObjectIsItsWord: a finish_reason that is an object ends an answer like the word
// in it, and a document has that word.
func TestReasonThatIsAnObjectIsItsWord(t *testing.T) {
	r := playing(t, format.EngineVLLM, says(sse, roleEvent+word("one ", "")+ending(`{"type":"stop","matched":2}`, "")))
	k := r.buy(minPurchase)
	if a := r.chat(k, request()); a.status != http.StatusOK || !strings.Contains(string(a.body), `"finish_reason":"stop"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if e := r.lastCharge(k); e.Outcome != metering.OutcomeComplete || e.Usage[pricing.OutputTokens] != 1 {
		t.Errorf("%+v", e)
	}
}
