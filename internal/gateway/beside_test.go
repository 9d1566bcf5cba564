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

// besides are the places beside the choices where servers put text.
var besides = map[string]string{
	"content":      `"content":" mark"`,
	"text":         `"text":" mark"`,
	"a delta":      `"delta":{"content":" mark"}`,
	"a message":    `"message":{"content":" mark"}`,
	"reasoning":    `"reasoning":" mark"`,
	"output":       `"output":" mark"`,
	"outputs":      `"outputs":[{"text":" mark"}]`,
	"response":     `"response":" mark"`,
	"a new member": `"essay":" mark"`,
	"tokens":       `"tokens":[5],"note":" mark"`,
}

// beside is an event without a choice, and with members beside that.
func beside(choices, members string) string {
	return `data: {"id":"c1","object":"chat.completion.chunk","choices":` + choices + `,` + members + "}\n\n"
}

// Text counts where there is no choice, as it does beside one that says nothing.
func TestTextBesideNoChoiceCounts(t *testing.T) {
	for name, members := range besides {
		for _, choices := range []string{`[]`, `null`} {
			r := playing(t, format.EngineGeneric, saysAndWaits(sse, roleEvent, strings.Repeat(beside(choices, members), 200)))
			k := r.buy(minPurchase)
			r.hangUp(k, asStream(4000), " mark", 200)
			r.wantAbout(k, name+", choices "+choices, 20, 200)

			r = playing(t, format.EngineGeneric, says(sse, roleEvent, strings.Repeat(beside(choices, members), 60), finishEvent, doneEvent))
			k = r.buy(minPurchase)
			if a := r.chat(k, asStream(4000)); !strings.Contains(string(a.body), "[DONE]") {
				t.Errorf("%s, choices %s: not whole: %s", name, choices, tail(a.body))
			}
			r.wantAbout(k, name+", choices "+choices+", whole", 20, 60)
		}
	}
}

// So it does in completions.
func TestTextBesideNoCompletionCounts(t *testing.T) {
	for name, members := range besides {
		r := playing(t, format.EngineGeneric, says(sse, strings.Repeat(beside("[]", members), 60),
			`data: {"object":"text_completion","choices":[{"index":0,"text":"","finish_reason":"stop"}]}`+"\n\n", doneEvent), textual)
		k := r.buy(minPurchase)
		a := r.complete(k, `"prompt":"Name a river.","stream":true,"max_tokens":1000`)
		if a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		if e := r.lastCharge(k); e.Usage[pricing.OutputTokens] < 50 || e.Usage[pricing.OutputTokens] > 70 {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// Neither a usage chunk counts, whatever is known to stand in it, nor a constant beside
// the usage; and a usage that came with text speaks of it.
func TestUsageChunkCountsNothing(t *testing.T) {
	ten := roleEvent + strings.Repeat(word("four", ""), 10)
	for name, members := range map[string]string{
		"known members": `"id":"c1","system_fingerprint":"fp","service_tier":"default","provider":"us","created":7`,
		"a constant":    `"deployment":"the third rack on the left"`,
		"text":          `"content":"and so on, and so on, and so on"`,
	} {
		event := beside("[]", members+`,"usage":{"prompt_tokens":50,"completion_tokens":10,"total_tokens":60}`)
		r := playing(t, format.EngineGeneric, says(sse, ten+finishEvent+event+doneEvent))
		k := r.buy(minPurchase)
		a := r.chat(k, asStream(100))
		r.wantCharged(k, name, cost10(50, 10))
		if name == "text" && (!strings.Contains(string(a.body), "and so on") || strings.Contains(string(a.body), "prompt_tokens")) {
			t.Errorf("the text of a usage chunk, without its usage: %s", tail(a.body))
		}
	}
}

// A document that is made of a stream has the text that stood beside no choice.
func TestDocumentHasTheTextBesideNoChoice(t *testing.T) {
	for name, members := range besides {
		if name == "a new member" || name == "tokens" { // the last value stands
			continue
		}
		r := playing(t, format.EngineOpenAI, says(sse, roleEvent, strings.Repeat(beside("[]", members), 60), finishEvent, doneEvent))
		k := r.buy(minPurchase)
		a := r.chat(k, request("max_tokens", "1000"))
		if got := strings.Count(string(a.body), " mark"); a.status != http.StatusOK || got != 60 {
			t.Errorf("%s: %d, %d of 60: %s", name, a.status, got, a.body)
		}
		if !json.Valid(a.body) {
			t.Errorf("%s: not JSON: %s", name, a.body)
		}
		r.wantAbout(k, name, 20, 60)
	}
}

// A document's text counts beside a choice that says nothing; beside one that says
// something, where text of a model is known to stand, unless it is the same.
func TestTextBesideTheChoicesOfADocument(t *testing.T) {
	text := strings.Repeat("many words ", 50)
	for name, c := range map[string]struct {
		message, members string
		tokens           int
	}{
		"content":          {"", `"content":"` + text + `"`, 138},
		"response":         {"", `"response":"` + text + `"`, 138},
		"output_text":      {"", `"output_text":"` + text + `"`, 138},
		"output":           {"", `"output":[{"content":[{"text":"` + text + `"}]}]`, 138},
		"generated_text":   {"", `"generated_text":"` + text + `"`, 138},
		"reasoning":        {"", `"reasoning":"` + text + `"`, 138},
		"a new member":     {"", `"essay":"` + text + `"`, 138},
		"reasoning beside": {"yes", `"reasoning":"` + text + `"`, 139},
		"the same":         {text, `"output_text":"` + text + `"`, 138},
		"new, beside":      {text, `"question":"` + text + `"`, 138},
		"verbose":          {"", `"__verbose":{"prompt":"` + text + `","content":"` + text + `"}`, 138},
		"verbose, beside":  {text, `"__verbose":{"prompt":"` + text + `","content":"` + text + `"}`, 138},
	} {
		r := playing(t, format.EngineGeneric, says("application/json",
			fmt.Sprintf(`{"choices":[{"message":{"content":"%s"},"finish_reason":"stop"}],%s}`, c.message, c.members)))
		k := r.buy(minPurchase)
		if a := r.chat(k, request("max_tokens", "1000")); a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		if e := r.wantAbout(k, name, 20, c.tokens); e.Outcome != metering.OutcomeComplete {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// Tokens are listed under the name that llama.cpp has for them too, and what it shows of
// itself has text of the answer.
func TestTokensUnderTheNameOfLlamaCpp(t *testing.T) {
	for name, c := range map[string]struct {
		event string
		each  int
	}{
		"in the delta":       {delta(`"delta":{"tokens":[5,6]}`, ""), 2},
		"in the choice":      {delta(`"delta":{},"tokens":[5,6]`, ""), 2},
		"beside the choices": {delta(`"delta":{}`, `,"tokens":[5,6]`), 2},
		"without a choice":   {beside("[]", `"tokens":[5,6]`), 2},
		"as words":           {delta(`"delta":{"tokens":["mark"]}`, ""), 1},
		"beside the text":    {delta(`"delta":{"content":"mark","tokens":[5]}`, ""), 1},
		"none yet":           {delta(`"delta":{"content":"mark","tokens":[]}`, ""), 1},
		"verbose":            {delta(`"delta":{}`, `,"__verbose":{"index":0,"prompt":"a long prompt that the model was shown","content":" mark","tokens":[5],"stop":false}`), 1},
		"verbose, text":      {delta(`"delta":{}`, `,"__verbose":{"prompt":"a long prompt that the model was shown","content":" mark"}`), 1},
		"verbose beside":     {delta(`"delta":{"content":" mark"}`, `,"__verbose":{"prompt":"a long prompt","content":" mark","tokens":[5]}`), 1},
	} {
		r := playing(t, format.EngineGeneric, saysAndWaits(sse, roleEvent, strings.Repeat(c.event, 200), ": end\n\n"))
		k := r.buy(maxPurchase)
		r.hangUp(k, asStream(4000), ": end", 1)
		r.wantAbout(k, name, 20, 200*c.each)
	}
}
