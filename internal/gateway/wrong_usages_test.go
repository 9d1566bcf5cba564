package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// TestAUsageBelowTheEventsIsNotBelieved: the charge is never below what was counted from the
// events, or below the tokens that the backend listed one by one.
func TestAUsageBelowTheEventsIsNotBelieved(t *testing.T) {
	const entry = `{"token":"abcd","logprob":-0.1}`
	listed := `,"logprobs":{"content":[` + strings.TrimSuffix(strings.Repeat(entry+",", 180), ",") + `]}`
	for name, play := range map[string]http.HandlerFunc{
		"without the reasoning": says(sse, strings.Repeat(delta(`"delta":{"reasoning_content":"abcd"}`, ""), 80),
			strings.Repeat(word("abcd", ""), 100), finishEvent, usageEvent(50, 100), doneEvent),
		"below what is listed": says(sse, strings.Repeat(delta(`"delta":{"content":"abcd"},"logprobs":{"content":[`+entry+`]}`, ""), 180),
			finishEvent, usageEvent(50, 100), doneEvent),
		"a document": says("application/json", `{"choices":[{"index":0,"message":{"content":"`+strings.Repeat("abcd", 180)+`"}`+listed+`,"finish_reason":"stop"}]`+reports(50, 100)+`}`),
	} {
		r := playing(t, format.EngineGeneric, play)
		k := r.buy(maxPurchase)
		r.chat(k, request("stream", fmt.Sprint(name != "a document"), "max_tokens", "1000"))
		r.wantCharged(k, name, cost10(50, 180))
	}
}

// TestAUsageThatTheTextRefutes: a usage that the text refutes is not believed; a usage that the
// text allows is.
func TestAUsageThatTheTextRefutes(t *testing.T) {
	text := strings.Repeat("word ", 800)
	ten := word(strings.Repeat("abcd ", 10), "")
	for name, c := range map[string]struct {
		play       http.HandlerFunc
		completion int
	}{
		"one event":               {says(sse, word(text, ""), finishEvent, usageEvent(20, 1), doneEvent), 1000},
		"ten events":              {says(sse, strings.Repeat(word(text[:400], ""), 10), finishEvent, usageEvent(20, 10), doneEvent), 1000},
		"with the text":           {says(sse, word(text, reports(20, 1)), finishEvent, doneEvent), 1000},
		"a document":              {document(reports(20, 1), text), 1000},
		"then a smaller one":      {says(sse, strings.Repeat(ten, 30), finishEvent, usageEvent(20, 300), usageEvent(20, 30), doneEvent), 300},
		"then nothing":            {says(sse, strings.Repeat(ten, 30), finishEvent, usageEvent(20, 300), usageEvent(0, 0), doneEvent), 300},
		"within x_groq":           {says(sse, strings.Repeat(ten, 30), strings.Replace(finishEvent, "]}", `],"x_groq":{"id":"r"`+reports(20, 300)+`}}`, 1), doneEvent), 300},
		"a run of signs":          {document(reports(20, 2), strings.Repeat("-", 256)), 2},
		"a run of signs, in text": {document(reports(20, 80), strings.Repeat("-", 512)+strings.Repeat("word ", 76)), 80},
		"documents it was shown":  {says("application/json", `{"choices":[{"index":0,"message":{"content":"`+strings.Repeat("abcd", 20)+`","context":{"citations":[{"content":"`+text+`"}]}},"finish_reason":"stop"}]`+reports(20, 20)+`}`), 20},
		"a name in each event":    {says(sse, strings.Repeat(delta(`"delta":{"content":"abcd","message":"`+strings.Repeat("0123456789abcdef", 9)+`"}`, ""), 20), finishEvent, usageEvent(20, 20), doneEvent), 20},
		"no model says so much":   {says(sse, word("abcd", ""), finishEvent, usageEvent(20, 4_000_000), doneEvent), 1},
	} {
		r := playing(t, format.EngineGeneric, c.play)
		k := r.buy(maxPurchase)
		r.chat(k, request("stream", fmt.Sprint(!strings.Contains(name, "document") && !strings.Contains(name, "signs")), "max_tokens", "2000"))
		if e := r.wantAbout(k, name, 20, c.completion); c.completion < 1000 && e.Usage[pricing.OutputTokens] != int64(c.completion) {
			t.Errorf("%s: %+v, want exactly %d", name, e.Usage, c.completion)
		}
	}
}

// TestAUsageOfOneCompletionOfSeveral: an engine that is not known may report the usage of one
// completion of several.
func TestAUsageOfOneCompletionOfSeveral(t *testing.T) {
	for _, n := range []int{2, 3, 4} {
		texts := strings.Split(strings.Repeat(strings.Repeat("abcd", 100)+",", n), ",")[:n]
		r := playing(t, format.EngineGeneric, document(reports(50, 100), texts...))
		k := r.buy(minPurchase)
		r.chat(k, request("n", fmt.Sprint(n), "max_tokens", "100"))
		r.wantAbout(k, fmt.Sprintf("a document of %d", n), 50, n*100)

		r = playing(t, format.EngineGeneric, document(reports(50, n*100), texts...))
		k = r.buy(minPurchase)
		r.chat(k, request("n", fmt.Sprint(n), "max_tokens", "100"))
		r.wantCharged(k, fmt.Sprintf("the usage of all %d", n), cost10(50, n*100))
	}
	const n = 8
	var stream strings.Builder
	for i := range n {
		at := func(rest string) string {
			return fmt.Sprintf(`data: {"choices":[{"index":%d,%s}]}`+"\n\n", i, rest)
		}
		stream.WriteString(strings.Repeat(at(`"delta":{"content":"`+strings.Repeat("abcd ", 10)+`"},"finish_reason":null`), 10))
		stream.WriteString(at(`"delta":{},"finish_reason":"length"`) + usageEvent(50, 100))
	}
	r := playing(t, format.EngineGeneric, says(sse, stream.String(), doneEvent))
	k := r.buy(minPurchase)
	r.chat(k, asStream(100, "n", "8"))
	r.wantCharged(k, "eight usages of a stream", cost10(50, n*100))

	both := strings.Repeat(word("abcd", ""), 100)
	both += strings.ReplaceAll(both, `"index":0`, `"index":1`) + finishEvent + strings.Replace(finishEvent, `"index":0`, `"index":1`, 1)
	for usages, want := range map[string]int{usageEvent(50, 200): 200, usageEvent(50, 100) + usageEvent(50, 100): 200} {
		r = playing(t, format.EngineLlamaCpp, says(sse, both, usages, doneEvent))
		k = r.buy(minPurchase)
		r.chat(k, asStream(300, "n", "2"))
		r.wantCharged(k, "llama.cpp, two completions", cost10(50, want))
	}
}

// TestATotalThatHasMore: tokens that only the total has are reasoning, unless something else
// explains them.
func TestATotalThatHasMore(t *testing.T) {
	for usage, completion := range map[string]int{
		`{"prompt_tokens":20,"completion_tokens":5,"total_tokens":10025,"prompt_tokens_details":{"cached_tokens":10000}}`:      5,
		`{"prompt_tokens":20,"completion_tokens":5,"total_tokens":125,"prompt_tokens_details":{"cached_tokens":100}}`:          5,
		`{"prompt_tokens":20,"completion_tokens":5,"total_tokens":10025}`:                                                      5,
		`{"prompt_tokens":20,"completion_tokens":5,"total_tokens":125}`:                                                        105,
		`{"prompt_tokens":20,"completion_tokens":5,"total_tokens":125,"completion_tokens_details":{"reasoning_tokens":100}}`:   105,
		`{"prompt_tokens":20,"completion_tokens":105,"total_tokens":325,"completion_tokens_details":{"reasoning_tokens":100}}`: 205,
		`{"prompt_tokens":20,"completion_tokens":105,"total_tokens":145,"completion_tokens_details":{"reasoning_tokens":100}}`: 105,
		`{"prompt_tokens":20,"total_tokens":25}`:                                                                               5,
	} {
		r := playing(t, format.EngineGeneric, document(`,"usage":`+usage, strings.Repeat("abcd", 5)))
		k := r.buy(maxPurchase)
		r.chat(k, request("max_tokens", "1000"))
		r.wantCharged(k, usage, cost10(20, completion))
	}
}

// TestATokenizerThatTheEventsRefute: a tokenizer is believed as far as the events and the text allow.
func TestATokenizerThatTheEventsRefute(t *testing.T) {
	no, yes := false, true
	for name, c := range map[string]struct {
		events       string
		count, right int
	}{
		"too few":         {strings.Repeat(word("abcd", ""), 200), 5, 200},
		"one per byte":    {strings.Repeat(word("abcdabcd", ""), 200), 1600, 200},
		"ids alone":       {strings.Repeat(delta(`"delta":{},"token_ids":[31337]`, ""), 150) + word("abcd", ""), 1, 151},
		"logprobs alone":  {strings.Repeat(delta(`"delta":{},"logprobs":{"content":[{"token":"x","logprob":-0.1}]}`, ""), 150) + word("abcd", ""), 1, 151},
		"several, really": {strings.Repeat(word("four tokens it is", ""), 100), 400, 400},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == chatPath {
				saysAndWaits(sse, c.events)(w, req)
				return
			}
			if b, _ := io.ReadAll(req.Body); strings.Contains(string(b), "messages") {
				_, _ = io.WriteString(w, `{"count":20}`)
				return
			}
			_, _ = fmt.Fprintf(w, `{"count":%d}`, c.count)
		}))
		t.Cleanup(s.Close)
		r := playing(t, format.EngineVLLM, nil, func(x *setup) {
			x.backendURLs, x.profile.Tokenize, x.profile.ContinuousUsage = []string{s.URL}, &yes, &no
		})
		k := r.buy(maxPurchase)
		r.hangUp(k, asStream(4000), `"choices"`, strings.Count(c.events, `"choices"`))
		r.wantAbout(k, name, 20, c.right)
	}
}
