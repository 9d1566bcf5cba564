package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// TestUsagePerSequenceIsSummed: llama.cpp ends each completion of a stream with a usage of its own,
// and the usage of its documents is that of one completion.
func TestUsagePerSequenceIsSummed(t *testing.T) {
	const n, each = 8, 100
	var stream, choices strings.Builder
	for i := range n {
		at := func(rest string) string {
			return fmt.Sprintf(`data: {"choices":[{"index":%d,%s}]}`+"\n\n", i, rest)
		}
		for range each {
			stream.WriteString(at(`"delta":{"content":"abcd"},"finish_reason":null`))
		}
		stream.WriteString(at(`"delta":{},"finish_reason":"length"`) + usageEvent(50, each))
		fmt.Fprintf(&choices, `{"index":%d,"message":{"role":"assistant","content":"%s"},"finish_reason":"length"},`, i, strings.Repeat("abcd", each))
	}
	document := `{"choices":[` + strings.TrimSuffix(choices.String(), ",") + `],"usage":{"prompt_tokens":50,"completion_tokens":100,"total_tokens":150}}`
	for _, engine := range []format.Engine{format.EngineLlamaCpp, format.EngineGeneric} {
		r := playing(t, engine, says(sse, stream.String()+doneEvent))
		k := r.buy(minPurchase)
		r.chat(k, asStream(each, "n", "8"))
		r.wantCharged(k, string(engine)+", streamed", cost10(50, n*each))

		r = playing(t, engine, says("application/json", document))
		k = r.buy(minPurchase)
		r.chat(k, request("n", "8", "max_tokens", "100"))
		r.wantCharged(k, string(engine)+", a document", cost10(50, n*each))
	}
	r := playing(t, format.EngineLlamaCpp, says(sse, stream.String()+doneEvent)) // the gateway reads a stream even for a document
	k := r.buy(minPurchase)
	a := r.chat(k, request("n", "8", "max_tokens", "100"))
	r.wantCharged(k, "gathered", cost10(50, n*each))
	if usage := a.json(t)["usage"].(map[string]any); usage["completion_tokens"] != 800.0 || usage["total_tokens"] != 850.0 {
		t.Errorf("the client was told %v", usage)
	}
}

// TestZeroFromATokenizerIsNotBelieved: a tokenizer that counts 0 tokens for a text is not believed.
func TestZeroFromATokenizerIsNotBelieved(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == chatPath {
			saysAndWaits(sse, strings.Repeat(word("abcd", ""), 500))(w, req)
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		io.WriteString(w, `{"tokens":[],"count":0}`)
	}))
	t.Cleanup(s.Close)
	yes := true
	r := playing(t, format.EngineGeneric, nil, func(c *setup) {
		c.backendURLs, c.profile.Tokenize = []string{s.URL}, &yes
	})
	k := r.buy(minPurchase)
	r.hangUp(k, asStream(1000), "abcd", 500)
	if e := r.wantAbout(k, "no tokens", 10, 500); e.Usage[pricing.InputTokens] == 0 {
		t.Error("the prompt was free")
	}
}

// TestTextCountsWhereverItStands: everything that the model writes counts, in any member.
func TestTextCountsWhereverItStands(t *testing.T) {
	for name, event := range map[string]string{
		"logprobs alone":       delta(`"delta":{},"logprobs":{"content":[{"token":"mark","logprob":-0.1,"bytes":[109],"top_logprobs":[]}]}`, ""),
		"token ids alone":      delta(`"delta":{},"token_ids":[31337],"x":"mark"`, ""),
		"ids in the delta":     delta(`"delta":{"token_ids":[31337]},"stop_reason":"mark"`, ""),
		"sound":                delta(`"delta":{"audio":{"id":"mark","data":"`+strings.Repeat("AAAA", 400)+`"}}`, ""),
		"a transcript":         delta(`"delta":{"audio":{"id":"a","transcript":"mark"}}`, ""),
		"a part that thinks":   delta(`"delta":{"content":[{"type":"thinking","thinking":"mark"}]}`, ""),
		"parts within":         delta(`"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"mark"}]}]}`, ""),
		"reasoning details":    delta(`"delta":{"reasoning_details":[{"type":"reasoning.text","text":"mark"}]}`, ""),
		"a member of tomorrow": delta(`"delta":{"inner_voice":{"words":["mark"]}}`, ""),
		"beside the delta":     delta(`"delta":{},"tomorrow":"mark"`, ""),
		"beside the choices":   delta(`"delta":{}`, `,"tomorrow":{"words":"mark"}`),
		"a call":               delta(`"delta":{"tool_calls":[{"index":0,"function":{"arguments":"mark"}}]}`, ""),
		"a call of tomorrow":   delta(`"delta":{"tool_calls":[{"index":0,"spell":{"words":"mark"}}]}`, ""),
	} {
		r := playing(t, format.EngineGeneric, saysAndWaits(sse, roleEvent, strings.Repeat(event, 150)))
		k := r.buy(minPurchase)
		r.hangUp(k, asStream(1000), "mark", 150)
		r.wantAbout(k, name, 20, 150)
	}
}

// TestEarlyUsageIsNotFinal: a usage that comes before the text is only about what came before the
// usage.
func TestEarlyUsageIsNotFinal(t *testing.T) {
	for name, engine := range map[string]format.Engine{"generic": format.EngineGeneric, "vllm": format.EngineVLLM} {
		r := playing(t, engine, saysAndWaits(sse, roleEvent, usageEvent(50, 1), strings.Repeat(word("abcde", ""), 300)))
		k := r.buy(minPurchase)
		r.hangUp(k, asStream(1000), "abcde", 300)
		r.wantAbout(k, name, 50, 300)

		r = playing(t, engine, saysAndWaits(sse, strings.Repeat(word("abcde", ""), 200), usageEvent(50, 200), strings.Repeat(word("abcde", ""), 100)))
		k = r.buy(minPurchase)
		r.hangUp(k, asStream(1000), "abcde", 300)
		r.wantCharged(k, name+", in the middle", cost10(50, 300))

		r = playing(t, engine, says(sse, usageEvent(50, 1)+strings.Repeat(word("abcde", ""), 300)))
		k = r.buy(minPurchase)
		wantErrorFrame(t, name, string(r.chat(k, asStream(1000)).body), "backend-unavailable", "backend_cut", "broke off")
		r.wantAbout(k, name+", cut", 50, 300)
	}
}

// TestReasoningThatOnlyTheTotalHas: reasoning that the completion count leaves out is taken from
// the total.
func TestReasoningThatOnlyTheTotalHas(t *testing.T) {
	usage := `"usage":{"prompt_tokens":50,"completion_tokens":100,"total_tokens":170}`
	r := playing(t, format.EngineGeneric, says(sse, strings.Repeat(word("ab", ""), 100)+finishEvent+`data: {"choices":[],`+usage+"}\n\n"+doneEvent))
	k := r.buy(minPurchase)
	r.chat(k, asStream(500))
	r.wantCharged(k, "streamed", cost10(50, 120))
	r = playing(t, format.EngineGeneric, says("application/json", `{"choices":[{"index":0,"message":{"content":"ab"},"finish_reason":"stop"}],`+usage+`}`))
	k = r.buy(minPurchase)
	r.chat(k, request("max_tokens", "500"))
	r.wantCharged(k, "a document", cost10(50, 120))
}

// teaching is a backend. Its documents have the size that the test sets. Its streams have events of
// two tokens each, and end with a usage if they are whole.
type teaching struct {
	bytes, tokens int // of the next document
	whole         bool
}

func (b *teaching) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var asked struct{ Stream bool }
	_ = json.NewDecoder(req.Body).Decode(&asked)
	words := strings.Repeat(word("two tokens, so.", ""), 100)
	switch {
	case asked.Stream && b.whole:
		says(sse, words, finishEvent, usageEvent(12, 200), doneEvent)(w, req)
	case asked.Stream:
		saysAndWaits(sse, words)(w, req)
	default:
		document(reports(12, b.tokens), strings.Repeat("a", b.bytes))(w, req)
	}
}

// TestOtherBuyersDoNotTeachThePrice: one buyer's answers, whether with many bytes per token or with
// few, do not change what the next buyer pays for a stream that this next buyer leaves.
func TestOtherBuyersDoNotTeachThePrice(t *testing.T) {
	for name, odd := range map[string]teaching{"15 bytes per token": {1500, 100, false}, "one byte per token": {100, 100, false}} {
		b := &teaching{whole: true}
		r := playing(t, format.EngineGeneric, b.ServeHTTP)
		for range 20 { // buyers who want words: 7.5 bytes per token
			r.chat(r.buy(minPurchase), asStream(400))
		}
		other := r.buy(maxPurchase)
		b.bytes, b.tokens, b.whole = odd.bytes, odd.tokens, false
		for range 60 {
			r.chat(other, request("max_tokens", "200"))
		}
		k := r.buy(minPurchase)
		r.hangUp(k, asStream(1000), "two tokens", 100)
		r.wantAbout(k, name, 12, 200)
	}
}

// TestUncalibratedStreamIsCountedByItsEvents: before anything was learned, an event counts about as
// a token, and no estimate cuts a stream.
func TestUncalibratedStreamIsCountedByItsEvents(t *testing.T) {
	const lorem = " extraordinarily"
	r := playing(t, format.EngineGeneric, says(sse, strings.Repeat(word(lorem, ""), 300)+finishEvent+doneEvent))
	k := r.buy(minPurchase)
	r.chat(k, asStream(1000))
	r.wantAbout(k, "300 events", 20, 300)

	r = playing(t, format.EngineGeneric, says(sse, strings.Repeat(word(strings.Repeat("long", 20), ""), 10)+finishEvent+doneEvent))
	k = r.buy(minPurchase)
	if a := r.chat(k, asStream(12)); !strings.HasSuffix(string(a.body), doneEvent) { // 200 tokens by their bytes
		t.Errorf("a guess cut the answer:\n%s", tail(a.body))
	}
	if e := r.lastCharge(k); e.Usage[pricing.OutputTokens] != 12 {
		t.Errorf("%+v, want the cap", e)
	}
}

// TestEventsFarBeyondTheCapAreCut: what is certainly beyond the cap is cut, even without a usage
// that shows it.
func TestEventsFarBeyondTheCapAreCut(t *testing.T) {
	r := playing(t, format.EngineGeneric, says(sse, strings.Repeat(word(" word", ""), 2000)+finishEvent+doneEvent))
	k := r.buy(minPurchase)
	a := r.chat(k, asStream(20))
	wantErrorFrame(t, "no cap", string(a.body), "backend-unavailable", "cap_exceeded", "beyond the cap")
	if n := contentEvents(a.body); n > 60 {
		t.Errorf("%d tokens were given away for a cap of 20", n)
	}
	if r.metric(`sluice_backend_overrun_tokens_total{backend="gpu0",direction="output"}`) == 0 {
		t.Error("the loss does not show")
	}
}

// TestTimingsAreExact: llama.cpp reports the number of tokens with each event.
func TestTimingsAreExact(t *testing.T) {
	var asked map[string]any
	var events strings.Builder
	for i := range 40 { // three tokens in each event
		events.WriteString(word("three tokens ", fmt.Sprintf(`,"timings":{"cache_n":30,"prompt_n":20,"predicted_n":%d}`, 3*(i+1))))
	}
	r := playing(t, format.EngineLlamaCpp, func(w http.ResponseWriter, req *http.Request) {
		_ = json.NewDecoder(req.Body).Decode(&asked)
		saysAndWaits(sse, events.String())(w, req)
	})
	k := r.buy(minPurchase)
	r.hangUp(k, asStream(1000), "three tokens", 40)
	r.wantCharged(k, "timings", cost10(50, 120))
	if asked["timings_per_token"] != true {
		t.Errorf("the backend was asked %v", asked)
	}
}

// TestImageIsCountedWhenTheClientLeaves: an image has no text whose bytes could be counted. The
// tokens that earlier answers reported show what an image takes.
func TestImageIsCountedWhenTheClientLeaves(t *testing.T) {
	image := `[{"role":"user","content":[{"type":"text","text":"What is this?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]`
	r := playing(t, format.EngineGeneric, func(w http.ResponseWriter, req *http.Request) {
		var asked struct{ Stream bool }
		_ = json.NewDecoder(req.Body).Decode(&asked)
		if asked.Stream {
			saysAndWaits(sse, strings.Repeat(word("abcd", ""), 20))(w, req)
			return
		}
		says("", `{"choices":[{"index":0,"message":{"content":"a cat"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3020,"completion_tokens":2}}`)(w, req)
	})
	for range 20 {
		r.chat(r.buy(1_000_000), request("messages", image))
	}
	k := r.buy(1_000_000)
	r.hangUp(k, asStream(100, "messages", image), "abcd", 20)
	r.wantAbout(k, "an image", 3020, 20)
}
