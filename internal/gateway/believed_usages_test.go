package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// sealed is a seal of 3,000 characters, as APIs put seals into answers.
var sealed = strings.Repeat("CvcQAdHtim9k", 250)

// TestUsageStandsWhateverTheAnswerCarries: what is not text of the model does not refute a usage.
// Such are seals in any member, and runs of one character, of which a token has up to 128.
func TestUsageStandsWhateverTheAnswerCarries(t *testing.T) {
	dashes := strings.Repeat(strings.Repeat("-", 80)+`\n`, 50)
	table := strings.Repeat("|"+strings.Repeat(" :---: |", 12)+`\n`, 40)
	for name, c := range map[string]struct {
		message    string
		completion int
	}{
		"a signature of thoughts": {`{"role":"assistant","tool_calls":[{"index":0,"extra_content":{"google":{"thought_signature":"` + sealed + `"}},"function":{"arguments":"{}","name":"f"},"id":"c","type":"function"}]}`, 15},
		"encrypted reasoning":     {`{"role":"assistant","content":"four","reasoning_details":[{"type":"reasoning.encrypted","data":"` + sealed + `","id":"r"}]}`, 75},
		"redacted thoughts":       {`{"role":"assistant","content":"four","thinking_blocks":[{"type":"redacted_thinking","data":"` + sealed + `"}]}`, 75},
		"a seal of tomorrow":      {`{"role":"assistant","content":[{"type":"text","text":"four"},{"type":"sealed","blob":"` + sealed + `"}]}`, 75},
		"a seal of its own":       {`{"role":"assistant","content":"four","reasoning_opaque":"` + sealed + `"}`, 75},
		"lines of dashes":         {`{"role":"assistant","content":"` + dashes + `"}`, 125},
		"equal signs":             {`{"role":"assistant","content":"` + strings.Repeat("=", 3000) + `"}`, 47},
		"a line of boxes":         {`{"role":"assistant","content":"` + strings.Repeat("═", 1500) + `"}`, 24},
		"indentation":             {`{"role":"assistant","content":"` + strings.Repeat(`\n`+strings.Repeat(" ", 60)+"x", 60) + `"}`, 180},
		"a table of markdown":     {`{"role":"assistant","content":"` + table + `"}`, 200},
		"escaped signs":           {`{"role":"assistant","content":"` + strings.Repeat(`\u2014`, 1000) + `"}`, 16},
	} {
		usage := reports(50, c.completion)
		document := `{"choices":[{"index":0,"message":` + c.message + `,"finish_reason":"stop"}]` + usage + `}`
		events := delta(`"delta":`+c.message, "") + finishEvent
		for how, body := range map[string]string{"a document": document, "a stream": events + usageEvent(50, c.completion) + doneEvent,
			"its last chunk": delta(`"delta":`+c.message, "") + withMember(usage[1:]) + doneEvent} {
			r := playing(t, format.EngineGeneric, says("", body))
			k := r.buy(maxPurchase)
			if a := r.chat(k, request("stream", fmt.Sprint(how != "a document"), "max_tokens", "2000")); a.status != http.StatusOK {
				t.Errorf("%s, %s: %d %s", name, how, a.status, a.body)
			}
			r.wantCharged(k, name+", "+how, cost10(50, c.completion))
		}
	}
	// Tokens of 128 blanks, as vLLM sends them, come with a running usage and without.
	for _, running := range []bool{false, true} {
		var events strings.Builder
		for i := range 40 {
			more := ""
			if running {
				more = reports(50, i+1)
			}
			events.WriteString(word(strings.Repeat(" ", 128), more))
		}
		r := playing(t, format.EngineVLLM, says(sse, roleEvent+events.String()+finishEvent+usageEvent(50, 41)+doneEvent))
		k := r.buy(maxPurchase)
		r.chat(k, asStream(2000))
		r.wantCharged(k, "tokens of blanks", cost10(50, 41))
	}
}

// TestUsageIsReadWhereverItStands: a usage is read under all names and in all places that APIs use.
func TestUsageIsReadWhereverItStands(t *testing.T) {
	five := roleEvent + strings.Repeat(delta(`"delta":{"content":" a b c d e"}`, ""), 60)
	for usage, about := range map[string]bool{
		`{"total_tokens":350}`: true, // less the prompt, which no member tells
		`{"input_tokens":50,"output_tokens":300,"total_tokens":350}`:                                                                        false,
		`{"prompt_tokens":"50","completion_tokens":"300","total_tokens":"350"}`:                                                             false,
		`{"prompt_tokens":50,"completion_tokens":300,"total_tokens":350,"completion_tokens_details":{"reasoning_tokens":310}}`:              false,
		`{"prompt_tokens":50,"completion_tokens":300,"input_tokens":0,"output_tokens":0}`:                                                   false,
		`{"promptTokens":50,"completionTokens":300}`:                                                                                        false,
		`{"prompt_tokens":50,"completion_tokens":300,"total_tokens":350,"output_tokens_details":{"reasoning_tokens":20},"cost":"0.000001"}`: false,
	} {
		inner := strings.Replace(finishEvent, `"stop"`, `"stop","usage":`+usage, 1)
		document := `{"choices":[{"index":0,"message":{"content":"` + strings.Repeat(" a b c d e", 60) + `"},"finish_reason":"stop"}],"usage":` + usage + `}`
		for where, body := range map[string]string{
			"a chunk":      five + finishEvent + `data: {"choices":[],"usage":` + usage + "}\n\n" + doneEvent,
			"the choice":   five + inner + doneEvent,
			"the last one": five + withMember(`"usage":`+usage) + doneEvent,
			"x_groq":       five + withMember(`"x_groq":{"usage":`+usage+`}`) + doneEvent,
			"a document":   document,
			"its choice":   strings.Replace(strings.Replace(document, `],"usage":`+usage, `]`, 1), `"stop"`, `"stop","usage":`+usage, 1),
		} {
			r := playing(t, format.EngineGeneric, says("", body))
			k := r.buy(maxPurchase)
			r.chat(k, request("stream", fmt.Sprint(!strings.HasPrefix(body, "{")), "max_tokens", "2000"))
			if about {
				r.wantAbout(k, usage+" in "+where, 50, 300)
			} else {
				r.wantCharged(k, usage+" in "+where, cost10(50, 300))
			}
		}
	}
}

// TestCachedTokensAreReadUnderEachName: cached tokens are charged at their price under each name
// that APIs use.
func TestCachedTokensAreReadUnderEachName(t *testing.T) {
	for _, cached := range []string{`"prompt_tokens_details":{"cached_tokens":48}`, `"cached_tokens":48`, `"prompt_cache_hit_tokens":48`,
		`"input_tokens_details":{"cached_tokens":48}`, `"prompt_tokens_details":{"cached_tokens":"48"}`} {
		r := playing(t, format.EngineGeneric, document(`,"usage":{"prompt_tokens":50,"completion_tokens":3,"total_tokens":53,`+cached+`}`, "four"), func(s *setup) {
			s.rates = &pricing.Rates{pricing.InputTokens: 100_000_000, pricing.CachedInputTokens: 10_000_000, pricing.OutputTokens: 10_000_000}
		})
		k := r.buy(maxPurchase)
		r.chat(k, request())
		r.wantCharged(k, cached, 200+480+30)
	}
}

// TestWhatTheModelWasShownIsNotItsOutput: what the model was shown, and what tools have returned,
// is not output of the model. A client that hangs up pays for the model's words only.
func TestWhatTheModelWasShownIsNotItsOutput(t *testing.T) {
	page := strings.Repeat("some text of a page that was found, and more of it. ", 300)
	for name, first := range map[string]string{
		"Azure's documents": delta(`"delta":{"role":"assistant","context":{"citations":[{"content":"`+page+`","title":"t","url":"u"}],"intent":"[\"x\"]"}}`, ""),
		"Groq's tools":      delta(`"delta":{"role":"assistant","executed_tools":[{"index":0,"type":"search","arguments":"{}","output":"`+page+`"}]}`, ""),
		"found pages":       delta(`"delta":{"role":"assistant","search_results":[{"title":"t","snippet":"`+page+`"}]}`, ""),
		"beside the delta":  delta(`"delta":{"role":"assistant"},"citations":[{"text":"`+page+`"}]`, ""),
		"of tomorrow":       delta(`"delta":{"role":"assistant","retrieval":{"pages":[{"body":"`+page+`"}]}}`, ""),
	} {
		r := playing(t, format.EngineGeneric, saysAndWaits(sse, first+strings.Repeat(word("mark ", ""), 20)))
		k := r.buy(maxPurchase)
		r.hangUp(k, asStream(8000), "mark", 20)
		r.wantAbout(k, name, 15, 20)
	}
	// The opposite also holds: the model's words count in an unknown member, in pieces or whole.
	for name, event := range map[string]string{
		"a list":   delta(`"delta":{"inner":{"words":["mark"]}}`, ""),
		"a string": delta(`"delta":{"output":"mark"}`, ""),
	} {
		r := playing(t, format.EngineGeneric, saysAndWaits(sse, strings.Repeat(event, 150)))
		k := r.buy(maxPurchase)
		r.hangUp(k, asStream(8000), "mark", 150)
		r.wantAbout(k, name, 15, 150)
	}
	r := playing(t, format.EngineGeneric, says("", `{"choices":[{"index":0,"message":{"inner":{"words":["`+strings.Repeat("abcd", 1000)+` "]}},"finish_reason":"stop"}]}`))
	k := r.buy(maxPurchase)
	r.chat(k, request("max_tokens", "4000"))
	r.wantAbout(k, "a document of nothing else", 15, 1000)
}

// TestConstantsInEmptyChunksCountNothing: constants in chunks without text are signs of life. They
// do not refute a usage, and without a usage only the first such chunk counts.
func TestConstantsInEmptyChunksCountNothing(t *testing.T) {
	for name, beat := range map[string]string{
		"beside the choices": delta(`"delta":{"content":""}`, `,"note":"AI generated, do not remove this mark"`),
		"in the delta":       delta(`"delta":{"content":"","phase":"thinking"}`, ""),
		"in the choice":      delta(`"delta":{"content":""},"phase":"thinking"`, ""),
		"without content":    delta(`"delta":{"phase":"thinking"}`, ""),
	} {
		beats := strings.Repeat(beat, 50)
		r := playing(t, format.EngineGeneric, says(sse, beats+word("word", "")+finishEvent+usageEvent(50, 1)+doneEvent))
		k := r.buy(maxPurchase)
		r.chat(k, asStream(2000))
		r.wantCharged(k, name, cost10(50, 1))
		if name == "without content" {
			continue // they look like tokens that are all alike
		}
		r = playing(t, format.EngineGeneric, saysAndWaits(sse, beats+strings.Repeat(word("eight ", ""), 8)))
		k = r.buy(maxPurchase)
		r.hangUp(k, asStream(2000), "eight", 8)
		if e := r.lastCharge(k); e.Usage[pricing.OutputTokens] < 8 || e.Usage[pricing.OutputTokens] > 10 {
			t.Errorf("%s: %+v for eight tokens", name, e.Usage)
		}
	}
}

// TestPictureThatTheModelMade: without a usage, a picture that the model made counts like a picture
// in a prompt.
func TestPictureThatTheModelMade(t *testing.T) {
	bytes := "data:image/png;base64," + strings.Repeat("iVBORw0KGgo", 20000)
	for name, members := range map[string]string{
		"images":    `"delta":{"role":"assistant","content":"","images":[{"type":"image_url","image_url":{"url":"` + bytes + `"}}]}`,
		"a part":    `"delta":{"content":[{"type":"image_url","image_url":{"url":"` + bytes + `"}}]}`,
		"elsewhere": `"delta":{"content":"","drawing":{"url":"` + bytes + `"}}`,
	} {
		r := playing(t, format.EngineGeneric, saysAndWaits(sse, delta(members, "")))
		k := r.buy(maxPurchase)
		r.hangUp(k, asStream(4000), "iVBORw0KGgo", 20000)
		r.wantAbout(k, name+", of 1290 tokens", 15, 1290)

		r = playing(t, format.EngineGeneric, saysAndWaits(sse, delta(members, "")), func(s *setup) {
			old := s.service
			s.service = func(svc *gatewayService) { old(svc); svc.Models[0].Limits.MediaTokens = 3000 }
		})
		k = r.buy(maxPurchase)
		r.hangUp(k, asStream(4000), "iVBORw0KGgo", 20000)
		r.wantAbout(k, name+", of 3000 tokens", 15, 3000)

		r = playing(t, format.EngineGeneric, says(sse, delta(members, "")+finishEvent+usageEvent(50, 1290)+doneEvent))
		k = r.buy(maxPurchase)
		r.chat(k, asStream(4000))
		r.wantCharged(k, name+", with a usage", cost10(50, 1290))
	}
}
