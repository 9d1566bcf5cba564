package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// half is ten tokens of an answer without an end.
var half = roleEvent + strings.Repeat(word("half ", ""), 10)

// withMember returns the last event of an answer, with a member beside its choices.
func withMember(member string) string {
	return strings.Replace(finishEvent, `"}]}`, `"}],`+member+`}`, 1)
}

// TestHalfAnswerNeverLooksWhole: an end marker does not show that an answer is whole. Without a
// finish_reason for each completion the answer is not whole.
func TestHalfAnswerNeverLooksWhole(t *testing.T) {
	for name, c := range map[string]struct {
		body, code, words string
		n                 int
	}{
		"the marker alone":      {half, "backend_cut", "without saying that it is whole", 1},
		"a usage, the marker":   {half + usageEvent(50, 10), "backend_cut", "without saying that it is whole", 1},
		"one of two":            {half + finishEvent, "backend_cut", "without saying that it is whole", 2},
		"x_groq with a reason":  {half + withMember(`"x_groq":{"id":"r","error":"over_capacity"}`), "backend_failed", "over_capacity", 1},
		"x_groq, no choice":     {half + `data: {"choices":[],"x_groq":{"error":"over_capacity"}}` + "\n\n", "backend_failed", "over_capacity", 1},
		"another envelope":      {half + withMember(`"x_vendor":{"error":{"message":"over_capacity"}}`), "backend_failed", "over_capacity", 1},
		"DashScope":             {half + `data: {"code":"Throttling.RateQuota","message":"Requests rate limit exceeded"}` + "\n\n", "backend_failed", "rate limit", 1},
		"MiniMax":               {half + `data: {"choices":null,"base_resp":{"status_code":1027,"status_msg":"output new_sensitive"}}` + "\n\n", "backend_failed", "new_sensitive", 1},
		"MiniMax with a reason": {half + withMember(`"base_resp":{"status_code":1027,"status_msg":"output new_sensitive"}`), "backend_failed", "new_sensitive", 1},
		"a status":              {half + `data: {"status":"cancelled"}` + "\n\n", "backend_failed", "", 1},
		"no success":            {half + `data: {"success":false,"result":null}` + "\n\n", "backend_failed", "", 1},
	} {
		r := playing(t, format.EngineOpenAI, says(sse, c.body+doneEvent))
		k := r.buy(maxPurchase)
		a := r.chat(k, asStream(100, "n", fmt.Sprint(c.n)))
		wantErrorFrame(t, name, string(a.body), "backend-unavailable", c.code, c.words)
		if e := r.lastCharge(k); e.Outcome != metering.OutcomeBackendCut || e.Usage[pricing.OutputTokens] != 10 {
			t.Errorf("%s: %+v", name, e)
		}
		if a := r.chat(k, request("n", fmt.Sprint(c.n))); a.status != http.StatusBadGateway {
			t.Errorf("%s, gathered: %d %s", name, a.status, a.body)
		}
		r.idle(k)
		if n := len(r.usage(k)); n != 1 {
			t.Errorf("%s: a document that is none was charged", name)
		}
		if failed := r.metric(`sluice_backend_failures_total{backend="gpu0"}`); failed != 2 {
			t.Errorf("%s: the backend was blamed %v times", name, failed)
		}
	}
}

// TestErrorAloneInAStreamIsNoAnswer: a stream that has only an error is not an answer.
func TestErrorAloneInAStreamIsNoAnswer(t *testing.T) {
	for _, event := range []string{`{"code":"Throttling.RateQuota","message":"busy"}`, `{"choices":null,"base_resp":{"status_code":1002,"status_msg":"busy"}}`,
		`{"status":"cancelled"}`, `{"success":false}`} {
		r := playing(t, format.EngineGeneric, says(sse, "data: "+event+"\n\n"+doneEvent))
		k := r.buy(minPurchase)
		r.chat(k, asStream(100)).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
		r.wantSpent(k, 0)
	}
}

// TestDocumentOfNothingIsNoAnswer: a document whose choice has neither text nor an end is not an
// answer.
func TestDocumentOfNothingIsNoAnswer(t *testing.T) {
	for _, choices := range []string{`{}`, `{"index":0,"message":null,"finish_reason":null}`, `{"index":0,"message":{"role":"assistant","content":""}}`,
		`{"index":0,"message":{"content":"four"},"finish_reason":"stop"},{"index":1}`} {
		for _, stream := range []string{"true", "false"} {
			r := playing(t, format.EngineGeneric, says("", `{"choices":[`+choices+`],"usage":{"prompt_tokens":50,"completion_tokens":9}}`))
			k := r.buy(minPurchase)
			r.chat(k, request("stream", stream, "n", "2")).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
			r.wantSpent(k, 0)
		}
	}
}

// TestHabitsOfABackendAreLearned: a backend may send no finish_reason in any answer, or make one
// completion whatever n says. It is believed once more than four accounts have got such answers.
// Until then the fleet counts such an answer as one for which the backend may not be at fault.
func TestHabitsOfABackendAreLearned(t *testing.T) {
	for name, c := range map[string]struct {
		engine format.Engine
		body   string
		n      string
		cuts   int
	}{
		"no finish_reason":         {format.EngineGeneric, half + doneEvent, "1", 4},
		"one completion":           {format.EngineGeneric, half + finishEvent + doneEvent, "2", 4},
		"one completion, as known": {format.EngineOllama, half + finishEvent + doneEvent, "2", 0},
	} {
		r := playing(t, c.engine, says(sse, c.body))
		for i := range 6 {
			k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
			var a *answer
			r.until("the backend is asked again", func() bool { a = r.chat(k, asStream(100, "n", c.n)); return a.status == http.StatusOK })
			if whole := strings.Contains(string(a.body), "[DONE]"); whole != (i >= c.cuts) {
				t.Errorf("%s: whole %v for account %d", name, whole, i)
			}
		}
	}
	// One account alone teaches nothing. An answer with a finish_reason shows that other answers
	// lack it.
	turn := 0
	r := playing(t, format.EngineGeneric, func(w http.ResponseWriter, req *http.Request) {
		if turn++; turn == 2 {
			says(sse, half+finishEvent+doneEvent)(w, req)
			return
		}
		says(sse, half+doneEvent)(w, req)
	})
	for i := range 9 {
		k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
		var a *answer
		r.until("the backend is asked again", func() bool { a = r.chat(k, asStream(100)); return a.status == http.StatusOK })
		if whole := strings.Contains(string(a.body), "[DONE]"); whole != (i == 1) {
			t.Errorf("turn %d: whole %v", i, whole)
		}
	}
}

// TestWholeAnswerStaysWhole: an answer is whole once every completion has its finish_reason,
// whatever follows.
func TestWholeAnswerStaysWhole(t *testing.T) {
	t.Parallel()
	text := roleEvent + strings.Repeat(word("abcd ", ""), 60)
	above := `"usage":{"prompt_tokens":50,"completion_tokens":61,"total_tokens":111}`
	thought := `"usage":{"prompt_tokens":50,"completion_tokens":60,"total_tokens":410,"completion_tokens_details":{"reasoning_tokens":300}}`
	const silent, reset = "silent", "reset"
	for name, c := range map[string]struct {
		body, end  string
		completion int
		overruns   float64
	}{
		"usage above the cap":          {text + finishEvent + usageEvent(50, 61), "", 60, 1},
		"with the reason":              {text + withMember(above), "", 60, 1},
		"with the last word":           {text[:len(text)-len(word("abcd ", ""))] + word("abcd ", ","+above) + withMember(above), "", 60, 1},
		"hidden reasoning":             {text + withMember(thought), "", 60, 1},
		"hidden reasoning, running":    {text[:len(text)-len(word("abcd ", ""))] + word("abcd ", ","+thought) + withMember(thought), "", 60, 1},
		"silence":                      {text + finishEvent, silent, 60, 0},
		"silence after the usage":      {text + finishEvent + usageEvent(50, 60), silent, 60, 0},
		"a reset":                      {text + finishEvent + usageEvent(50, 60), reset, 60, 0},
		"a reset within a usage chunk": {text + finishEvent + `data: {"choi`, reset, 60, 0},
	} {
		for _, stream := range []bool{true, false} {
			r := playing(t, format.EngineOpenAI, func(w http.ResponseWriter, req *http.Request) {
				switch c.end {
				case silent:
					saysAndWaits(sse, c.body)(w, req)
				case reset:
					says(sse, c.body)(w, req)
					panic(http.ErrAbortHandler)
				default:
					says(sse, c.body+doneEvent)(w, req)
				}
			}, func(s *setup) { s.backend = func(b *gpuBackend) { b.IdleTimeout = 300 * time.Millisecond } })
			k := r.buy(maxPurchase)
			a := r.chat(k, request("stream", fmt.Sprint(stream), "max_tokens", "60"))
			if a.status != http.StatusOK || stream && !strings.HasSuffix(string(a.body), "\ndata: [DONE]\n\n") {
				t.Errorf("%s, stream %v: %d %s", name, stream, a.status, tail(a.body))
			}
			if e := r.lastCharge(k); e.Outcome != metering.OutcomeComplete || e.Usage[pricing.OutputTokens] != int64(c.completion) {
				t.Errorf("%s, stream %v: %+v", name, stream, e)
			}
			if got := r.metric(`sluice_backend_overruns_total{backend="gpu0",kind="completion"}`); (got > 0) != (c.overruns > 0) {
				t.Errorf("%s, stream %v: %v overruns", name, stream, got)
			}
			if failed := r.metric(`sluice_backend_failures_total{backend="gpu0"}`); failed != 0 {
				t.Errorf("%s, stream %v: the backend was blamed", name, stream)
			}
		}
	}
}

// TestMembersThatNameNoError: a good answer may have members that are about errors and say that
// there was none.
func TestMembersThatNameNoError(t *testing.T) {
	for _, more := range []string{`"error":{"message":"","type":"","param":"","code":null}`, `"error":{"code":0,"message":""}`,
		`"error_code":0,"error_msg":"success"`, `"error_message":"OK"`, `"errors":[null]`, `"error":{"code":200,"message":"Success"}`,
		`"base_resp":{"status_code":0,"status_msg":"success"}`, `"code":0,"message":"Success"`, `"error":"0"`, `"success":true`} {
		for _, body := range []string{served[:len(served)-1] + "," + more + "}", word("four", ","+more) + withMember(more) + usageEvent(7, 3) + doneEvent} {
			r := playing(t, format.EngineGeneric, says("", body))
			k := r.buy(minPurchase)
			if a := r.chat(k, asStream(100)); a.status != http.StatusOK || !strings.Contains(string(a.body), "[DONE]") {
				t.Errorf("%s: %d %s", more, a.status, a.body)
			}
			r.wantCharged(k, more, cost10(7, 3))
		}
	}
}
