package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// long is a message of 5,600 bytes, which are about 1,400 tokens.
var long = strings.Repeat("the river and its banks, ", 224)

// userSays is a conversation of one message.
func userSays(text string) string { return `[{"role":"user","content":"` + text + `"}]` }

// A usage of fewer tokens than the text of a prompt can be is not believed, and the
// bytes count. What can be true stands.
func TestFarTooShortPromptsAreNotBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		messages, more string
		prompt         int // in the usage
		right          int64
	}{
		"one token":         {userSays(long), "", 1, 1405},
		"none":              {userSays(long), "", 0, 1405},
		"in parts":          {`[{"role":"user","content":[{"type":"text","text":"` + long + `"}]}]`, "", 1, 1406},
		"too few":           {userSays(long), "", 200, 1405},
		"few":               {userSays(long), "", 400, 400},
		"a short text":      {userSays("Hello there, how are you?"), "", 1, 1},
		"signs":             {userSays(strings.Repeat("=", 5600)), "", 50, 50},
		"cut by the engine": {userSays(long), "truncate_prompt_tokens", 64, 64},
		"thought before":    {`[{"role":"user","content":"Why?"},{"role":"assistant","content":"` + long + `"},{"role":"user","content":"So?"}]`, "", 30, 30},
	} {
		usage := reports(c.prompt, 4)
		for _, stream := range []bool{false, true} {
			play := document(usage, "four tokens of text")
			if stream {
				play = says(sse, word("four ", "")+word("tokens ", "")+word("of ", "")+word("text", "")+finishEvent+`data: {"choices":[]`+usage+"}\n\n"+doneEvent)
			}
			r := playing(t, format.EngineGeneric, play)
			k := r.buy(maxPurchase)
			body := request("messages", c.messages, "stream", strconv.FormatBool(stream))
			if c.more != "" {
				body = request("messages", c.messages, "stream", strconv.FormatBool(stream), c.more, "64")
			}
			r.chat(k, body)
			if u := r.lastCharge(k).Usage; u[pricing.InputTokens] != c.right || u[pricing.OutputTokens] != 4 {
				t.Errorf("%s, stream %t: %v, right are %d", name, stream, u, c.right)
			}
		}
	}
}

// The backend's tokenizer counts a prompt of which the usage cannot be true.
func TestTokenizerCountsWhatAUsageCannotBe(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == chatPath {
			document(reports(1, 4), "four tokens of text")(w, req)
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(w, `{"count":1200}`)
	}))
	t.Cleanup(s.Close)
	yes := true
	r := playing(t, format.EngineGeneric, nil, func(c *setup) {
		c.backendURLs, c.profile.Tokenize = []string{s.URL}, &yes
	})
	k := r.buy(maxPurchase)
	r.chat(k, request("messages", userSays(long)))
	if e := r.lastCharge(k); e.Usage[pricing.InputTokens] != 1200 || e.Source != metering.SourceTokenizer {
		t.Errorf("%v by %s", e.Usage, e.Source)
	}
}

// More cached tokens than prompt tokens cannot be, and none are cheaper for it.
func TestMoreCachedTokensThanPrompt(t *testing.T) {
	r := playing(t, format.EngineGeneric, document(`,"usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24,"prompt_tokens_details":{"cached_tokens":500}}`, "four tokens of text"))
	k := r.buy(maxPurchase)
	r.chat(k, request())
	if u := r.lastCharge(k).Usage; u[pricing.InputTokens] != 20 || u[pricing.CachedInputTokens] != 0 {
		t.Errorf("%v", u)
	}
}

// Token ids that were sent are as many as they are, and texts to read are held to the
// same limits as prompts.
func TestTextsAndIdsReadAreNotTooFew(t *testing.T) {
	ids := "[" + strings.TrimSuffix(strings.Repeat("7,", 301), ",") + "]"
	vector := func(usage string) http.HandlerFunc {
		return says("application/json", `{"data":[{"index":0,"embedding":[1]}],"usage":{`+usage+`}}`)
	}
	ranks := func(usage string) http.HandlerFunc {
		return says("application/json", `{"results":[{"index":0,"relevance_score":1}],"usage":{`+usage+`}}`)
	}
	for name, c := range map[string]struct {
		play       http.HandlerFunc
		path, body string
		right      l402.Msat
	}{
		"ids":               {vector(`"prompt_tokens":1`), embeddingsPath, `{"model":"demo","input":` + ids + `}`, 301},
		"ids that were cut": {vector(`"prompt_tokens":100`), embeddingsPath, `{"model":"demo","input":` + ids + `,"truncate_prompt_tokens":100}`, 100},
		"a text":            {vector(`"prompt_tokens":1`), embeddingsPath, `{"model":"demo","input":"` + long + `"}`, 1402},
		"a text, few":       {vector(`"prompt_tokens":400`), embeddingsPath, `{"model":"demo","input":"` + long + `"}`, 400},
		"cached":            {vector(`"prompt_tokens":400,"prompt_tokens_details":{"cached_tokens":900}`), embeddingsPath, `{"model":"demo","input":"` + long + `"}`, 400},
		"a pair":            {ranks(`"prompt_tokens":9`), rerankPath, `{"model":"demo","query":"river","documents":["` + long + `"]}`, 1402 + 3 + 10 + 3},
		"a pair, cut":       {ranks(`"prompt_tokens":64`), rerankPath, `{"model":"demo","query":"river","documents":["` + long + `"],"max_tokens_per_doc":60}`, 64 + 10 + 3},
	} {
		r := readingFrom(t, c.play)
		k := r.buy(maxPurchase)
		if a := r.do("POST", c.path, c.body, k.with()); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		r.wantCharged(k, name, c.right)
		if u := r.lastCharge(k).Usage; u[pricing.CachedInputTokens] != 0 {
			t.Errorf("%s: %v", name, u)
		}
	}
}

// A completion of token ids costs as many as were sent.
func TestPromptsOfIdsAreNotTooFew(t *testing.T) {
	r := playing(t, format.EngineGeneric, says("application/json", `{"choices":[{"index":0,"text":"four","finish_reason":"stop"}]`+reports(1, 1)+`}`), func(s *setup) {
		sold := s.service
		s.service = func(svc *gatewayService) {
			if sold != nil {
				sold(svc)
			}
			svc.Models[0].Formats = []string{"chat", "completions"}
		}
	})
	k := r.buy(maxPurchase)
	ids := "[" + strings.TrimSuffix(strings.Repeat("7,", 301), ",") + "]"
	if a := r.do("POST", "/v1/completions", `{"model":"demo","prompt":`+ids+`,"max_tokens":4}`, k.with()); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	r.wantCharged(k, "ids", cost10(301, 1))
}
