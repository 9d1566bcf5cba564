package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

const textPath = "/v1/completions"

// textual sells the model through completions and through chat.
func textual(s *setup) {
	before := s.service
	s.service = func(svc *gatewayService) {
		if before != nil {
			before(svc)
		}
		svc.Models[0].Formats = []string{"chat", "completions"}
	}
}

// completion returns a request for completions with these members.
func completion(members string) string { return `{"model":"` + testModel + `",` + members + `}` }

func (r *rig) complete(k token, members string, more ...string) *answer {
	r.t.Helper()
	return r.do("POST", textPath, completion(members), k.with(more...))
}

// textOf returns the texts of the choices in a document or in a stream's events, and the number of
// events.
func textOf(t testing.TB, body []byte) (texts map[int]string, events int) {
	t.Helper()
	texts = map[int]string{}
	documents := dataLines(body)
	if len(documents) == 0 {
		documents = []string{string(body)}
	}
	for _, d := range documents {
		var chunk struct {
			Object  string `json:"object"`
			Choices []struct {
				Index int    `json:"index"`
				Text  string `json:"text"`
			} `json:"choices"`
		}
		if json.Unmarshal([]byte(d), &chunk) != nil {
			continue
		}
		for _, c := range chunk.Choices {
			if texts[c.Index] += c.Text; c.Text != "" {
				events++
			}
			if chunk.Object != "text_completion" {
				t.Errorf("the answer is called %q", chunk.Object)
			}
		}
	}
	return texts, events
}

func TestCompletionsAreChargedAsTheBackendCounts(t *testing.T) {
	ids := func(r *rig) string {
		list, err := json.Marshal(r.backend.Tokenizer().Encode("The gate is open"))
		if err != nil {
			t.Fatal(err)
		}
		return string(list)
	}
	for name, setting := range map[string]format.Setting{
		"generic": does(false, false), "tokenizer": does(true, false), "running": does(false, true), "vllm": {Engine: format.EngineVLLM},
	} {
		r := newRig(t, textual, func(s *setup) { s.profile = setting })
		k := r.buy(maxPurchase)
		for what, c := range map[string]struct {
			members         string
			choices, tokens int
		}{
			"a text":            {`"prompt":"The gate is"`, 1, 16},
			"a batch":           {`"prompt":["The gate is","Water runs","The river"],"n":2,"max_tokens":5`, 6, 30},
			"tokens":            {`"prompt":` + ids(r) + `,"max_tokens":7`, 1, 7},
			"batches of tokens": {`"prompt":[[72],` + ids(r) + `],"max_tokens":3,"n":2`, 4, 12},
		} {
			for _, stream := range []string{"", `,"stream":true`, `,"stream":true,"stream_options":{"include_usage":true}`} {
				a := r.complete(k, c.members+`,"ignore_eos":true`+stream)
				if a.status != http.StatusOK {
					t.Fatalf("%s, %s%s: %d\n%s", name, what, stream, a.status, a.body)
				}
				rec, e := r.truth(), r.lastCharge(k)
				texts, _ := textOf(t, a.body)
				if e.Charged != r.trueCost() || e.Outcome != metering.OutcomeComplete || rec.CompletionTokens != c.tokens || len(texts) != c.choices || rec.Path != textPath {
					t.Errorf("%s, %s%s: charged %d for %v (%s), %d choices, the backend says %+v", name, what, stream, e.Charged, e.Usage, e.Source, len(texts), rec)
				}
				if wants := strings.Contains(stream, "usage"); strings.Contains(string(a.body), `"usage":{`) != (wants || stream == "") {
					t.Errorf("%s, %s%s: the usage is there or not\n%s", name, what, stream, tail(a.body))
				}
			}
		}
	}
}

// TestCompletionsWithoutACap: the gateway always writes the cap, because an engine without a cap
// would not stop.
func TestCompletionsWithoutACap(t *testing.T) {
	r := newRig(t, textual)
	k := r.buy(minPurchase)
	r.complete(k, `"prompt":"The gate is","ignore_eos":true`)
	r.complete(k, `"prompt":"The gate is","ignore_eos":true,"max_tokens":-1`)
	for i, tokens := range []string{"16", "256"} {
		var sent []string
		for _, rec := range r.backend.Requests() {
			sent = append(sent, string(rec.Body))
		}
		if want := `"n":1,"max_tokens":` + tokens + `}`; !strings.HasSuffix(sent[i], want) {
			t.Errorf("the backend got %s, want %s", sent[i], want)
		}
	}
}

func TestHangingUpWithinCompletions(t *testing.T) {
	for _, c := range []struct {
		name, prompt         string
		faults               string
		continuous, tokenize bool
	}{
		{"with running usage", `["The gate is open","Water runs"]`, "", true, false},
		{"with a tokenizer", `"The gate is open"`, "no-usage", false, true},
		{"of tokens", `[[72,105],[72,105,33]]`, "no-usage", false, false},
	} {
		r := newRig(t, slow(100, c.faults), textual, func(s *setup) { s.profile = does(c.tokenize, c.continuous) })
		k := r.buy(minPurchase)
		ctx, hangUp := context.WithCancel(t.Context())
		resp := r.open(ctx, "POST", textPath, completion(`"prompt":`+c.prompt+`,"stream":true,"max_tokens":100,"ignore_eos":true`), k.with())
		got := readEvents(t, resp.Body, 8)
		hangUp()
		resp.Body.Close()
		r.until("the backend is cancelled", func() bool { return r.truth().Outcome == "cancelled" })
		e, rec := r.lastCharge(k), r.truth()
		_, events := textOf(t, got)
		least, most := cost(rec.PromptTokens, events), cost(rec.PromptTokens, rec.CompletionTokens)
		if e.Outcome != metering.OutcomeClientGone || e.Charged < least || e.Charged > most || events < 8 {
			t.Errorf("%s: %s, charged %d (%+v, %s), want %d to %d", c.name, e.Outcome, e.Charged, e.Usage, e.Source, least, most)
		}
	}
}

// piece returns an event with one word of choice i.
func piece(i int, text, reason, more string) string {
	return fmt.Sprintf(`data: {"id":"c1","object":"text_completion","created":7,"model":"m","choices":[{"index":%d,"text":"%s","logprobs":null,"finish_reason":%s}]%s}`+"\n\n", i, text, reason, more)
}

func TestCompletionsCutByTheBackend(t *testing.T) {
	words := piece(0, "one ", "null", "") + piece(1, "two ", "null", "")
	for name, c := range map[string]struct{ body, code, words string }{
		"no end":                    {words, "backend_cut", "broke off"},
		"one end of two":            {words + piece(0, "", `"stop"`, ""), "backend_cut", "broke off"},
		"an error, then the marker": {words + `data: {"error":{"message":"CUDA out of memory","type":"InternalServerError","code":500}}` + "\n\n" + doneEvent, "backend_failed", "CUDA out of memory"},
		"half a chunk":              {words + `data: {"choices":[{"index":0,"te` + "\n\n" + doneEvent, "backend_failed", "not valid JSON"},
	} {
		r := playing(t, format.EngineGeneric, says(sse, c.body), textual)
		k := r.buy(minPurchase)
		a := r.complete(k, `"prompt":[[1,2,3],[4,5]],"stream":true,"max_tokens":10`)
		wantErrorFrame(t, name, string(a.body), "backend-unavailable", c.code, c.words)
		e := r.lastCharge(k)
		if told, _ := comment(t, a.body); e.Outcome != metering.OutcomeBackendCut || told != e.Charged || e.Charged != cost10(5, 2) {
			t.Errorf("%s: told %d, entry %+v", name, told, e)
		}
	}
}

func TestCompletionsCutByTheBalanceAndAtTheCap(t *testing.T) {
	r := playing(t, format.EngineVLLM, says(sse, strings.Repeat(piece(0, "a ", "null", ""), 40)+piece(0, "", `"stop"`, "")+doneEvent), textual, func(s *setup) {
		rates := dialectRates
		rates[pricing.Bytes] = 50_000_000 // bytes have no bound beforehand
		s.rates = &rates
	})
	k := r.buy(minPurchase)
	a := r.complete(k, `"prompt":"hello","stream":true,"max_tokens":100`)
	wantErrorFrame(t, "balance", string(a.body), "insufficient-balance", "balance_exhausted", "top up")
	if e := r.lastCharge(k); e.Outcome != metering.OutcomeHoldExhausted {
		t.Errorf("entry %+v", e)
	}

	var events strings.Builder
	for i := range 20 { // each of two completions goes beyond its cap
		events.WriteString(piece(i%2, "a ", "null", fmt.Sprintf(`,"usage":{"prompt_tokens":3,"completion_tokens":%d}`, i/2+1)))
	}
	r = playing(t, format.EngineVLLM, says(sse, events.String()+doneEvent), textual)
	k = r.buy(minPurchase)
	a = r.complete(k, `"prompt":[[1,2,3],[4,5,6]],"stream":true,"max_tokens":5`)
	wantErrorFrame(t, "cap", string(a.body), "backend-unavailable", "cap_exceeded", "beyond the cap")
	r.wantCharged(k, "cap", cost10(6, 10))
}

// TestABatchOfLlamaCpp: llama.cpp reports for each completion what it took, with the completion's
// last event.
func TestABatchOfLlamaCpp(t *testing.T) {
	var events strings.Builder
	for i, prompt := range []int{5, 9} {
		events.WriteString(piece(i, "one ", "null", "") + piece(i, "two", "null", "") +
			piece(i, "", `"stop"`, fmt.Sprintf(`,"usage":{"prompt_tokens":%d,"completion_tokens":3,"total_tokens":%d}`, prompt, prompt+3)))
	}
	r := playing(t, format.EngineLlamaCpp, says(sse, events.String()+doneEvent), textual)
	k := r.buy(minPurchase)
	for _, stream := range []string{"false", "true"} {
		a := r.complete(k, `"prompt":["The gate","Water runs down"],"max_tokens":5,"stream":`+stream)
		if a.status != http.StatusOK {
			t.Fatalf("%d\n%s", a.status, a.body)
		}
		r.wantCharged(k, "stream "+stream, cost10(14, 6))
		if texts, _ := textOf(t, a.body); texts[0] != "one two" || texts[1] != "one two" {
			t.Errorf("the client got %v", texts)
		}
		if stream == "false" && !strings.Contains(string(a.body), `"usage":{"prompt_tokens":14,"completion_tokens":6,"total_tokens":20}`) {
			t.Errorf("the document says %s", a.body)
		}
	}
}

// TestABatchOfAnEngineThatIsNotKnown: what llama.cpp reports of a batch is that of single
// completions also where nobody told the gateway that the backend is one.
func TestABatchOfAnEngineThatIsNotKnown(t *testing.T) {
	half := strings.Repeat("the river and its banks ", 100) // 600 tokens
	members := `"prompt":["` + half + `","` + half + `"],"max_tokens":8`
	of := func(i int, text string) string {
		return fmt.Sprintf(`{"index":%d,"text":"%s","finish_reason":"stop"}`, i, text)
	}
	document := `{"object":"text_completion","choices":[` + of(0, "four tokens of text") + "," + of(1, "four tokens of text") + `],"usage":{"prompt_tokens":600,"completion_tokens":4,"total_tokens":604}}`
	var stream []string
	for i := range 2 {
		for range 4 {
			stream = append(stream, piece(i, "word", "null", ""))
		}
		stream = append(stream, piece(i, "", `"stop"`, ""), usageEvent(600, 4))
	}
	for name, c := range map[string]struct {
		play   http.HandlerFunc
		more   string
		output int
	}{
		"a document":     {says("application/json", document), "", 8},
		"a stream":       {says(sse, strings.Join(stream, "")+doneEvent), `,"stream":true`, 8},
		"half a stream":  {says(sse, strings.Join(stream[:6], "")), `,"stream":true`, 4},
		"a stream, left": {says(sse, strings.Join(stream[:8], "")), `,"stream":true`, 6},
	} {
		for _, engine := range []format.Engine{format.EngineLlamaCpp, format.EngineGeneric} {
			r := playing(t, engine, c.play, textual)
			k := r.buy(maxPurchase)
			r.complete(k, members+c.more)
			r.wantCharged(k, name+" of "+string(engine), cost10(1200, c.output))
		}
	}
}

// TestTruncatedPrompts: a text that the client has the engine cut is no less than what is left of it,
// and no more where the engine is known to cut it.
func TestTruncatedPrompts(t *testing.T) {
	long := strings.Repeat("the river and its banks ", 100)
	for engine, charged := range map[format.Engine]map[int]int{
		format.EngineVLLM:   {128: 128, 64: 128, 1: 128},
		format.EngineSGLang: {128: 128, 64: 1200, 1: 1200},
	} {
		for reported, right := range charged {
			r := playing(t, engine, says(sse, piece(0, "word", `"stop"`, "")+piece(1, "word", `"stop"`, "")+usageEvent(reported, 2)+doneEvent), textual)
			k := r.buy(maxPurchase)
			r.complete(k, `"prompt":["`+long+`","`+long+`"],"max_tokens":8,"stream":true,"truncate_prompt_tokens":64`)
			r.wantCharged(k, fmt.Sprintf("%d of %s", reported, engine), cost10(right, 2))
		}
	}
}

// TestSilentPromptsAreCutWhereTheEngineCuts: of a batch whose stream breaks off, the prompts of which
// nothing was said are as short as the client had them cut only where the engine does so.
func TestSilentPromptsAreCutWhereTheEngineCuts(t *testing.T) {
	list := "[" + strings.TrimSuffix(strings.Repeat("7,", 300), ",") + "]"
	for engine, right := range map[format.Engine]int{format.EngineVLLM: 6, format.EngineTRTLLM: 6, format.EngineSGLang: 602, format.EngineLlamaCpp: 602} {
		begun := piece(0, "word", "null", `,"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}`)
		r := playing(t, engine, says(sse, begun), textual)
		k := r.buy(maxPurchase)
		r.complete(k, `"prompt":[[7,8],`+list+`,`+list+`],"max_tokens":8,"stream":true,"truncate_prompt_tokens":2`)
		r.wantCharged(k, string(engine), cost10(right, 1))
	}
}

// TestScatteredCompletion: a document that the backend sent in place of a stream reaches the client
// as a stream.
func TestScatteredCompletion(t *testing.T) {
	const document = `{"id":"c","object":"text_completion","choices":[{"index":0,"text":"four words of text","finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}`
	r := playing(t, format.EngineGeneric, says("application/json", document), textual)
	k := r.buy(minPurchase)
	a := r.complete(k, `"prompt":[1,2,3],"stream":true`)
	if texts, _ := textOf(t, a.body); texts[0] != "four words of text" || !strings.HasSuffix(string(a.body), "\n"+doneEvent) {
		t.Errorf("the client got %s", a.body)
	}
	r.wantCharged(k, "scattered", cost10(3, 4))
}

func TestCompletionsAreCountedBeforeTheHold(t *testing.T) {
	r := newRig(t, textual, func(s *setup) { s.profile = does(true, false) })
	text := strings.Repeat("The gate keeps the river. ", 1800)
	k := r.mint(testService, newTokenID(), 12_000, tomorrow()) // less than two whole contexts, at which the bytes are bounded
	if a := r.complete(k, `"prompt":["`+text[:20_000]+`","`+text[20_000:42_000]+`"],"max_tokens":2`); a.status != http.StatusOK {
		t.Fatalf("%d\n%s", a.status, a.body)
	}
	r.wantSpent(k, r.trueCost())
	if asked := countAt(r, "/tokenize"); asked != 2 {
		t.Errorf("the tokenizer was asked %d times", asked)
	}
}

func countAt(r *rig, path string) (n int) {
	for _, rec := range r.backend.Requests() {
		if rec.Path == path {
			n++
		}
	}
	return n
}

func TestRefusedCompletions(t *testing.T) {
	r := newRig(t, textual)
	k := r.buy(minPurchase)
	for members, param := range map[string]string{
		`"prompt":"a","echo":true`:                  "echo",
		`"prompt":"a","best_of":2`:                  "best_of",
		`"prompt":"a","prompt_embeds":"AA"`:         "prompt_embeds",
		`"prompt":"a","frobnicate":1`:               "frobnicate",
		`"prompt":[[1],["a"]]`:                      "prompt[1][0]",
		`"messages":[]`:                             "prompt",
		`"prompt":["a","b"],"n":100`:                "n",
		`"prompt":"a","kv_transfer_params":{"a":1}`: "kv_transfer_params",
	} {
		r.complete(k, members).wantParam(t, param)
	}
	for path, body := range map[string]string{textPath: request(), chatPath: completion(`"prompt":"a"`)} {
		a := r.do("POST", path, body, k.with())
		p := a.wantProblem(t, http.StatusBadRequest, "invalid-request")
		a.wantErrorMember(t)
		other := chatPath
		if path == chatPath {
			other = textPath
		}
		if detail, _ := p["detail"].(string); !strings.Contains(detail, other) {
			t.Errorf("%s says %v", path, p)
		}
	}
	r.wantSpent(k, 0)
}

func TestCapabilitiesTellAPIsApart(t *testing.T) {
	r := newRig(t, textual)
	k := r.buy(minPurchase)
	only := k.attenuate(t, "inference_capabilities=completions")
	if a := r.complete(only, `"prompt":"The gate"`); a.status != http.StatusOK {
		t.Errorf("%d\n%s", a.status, a.body)
	}
	r.chat(only, request()).wantProblem(t, http.StatusForbidden, "caveat-violation")
	r.complete(k.attenuate(t, "inference_capabilities=chat"), `"prompt":"a"`).wantProblem(t, http.StatusForbidden, "caveat-violation")
}

func TestModelsSayWhatTheyAreSoldThrough(t *testing.T) {
	for _, c := range []struct {
		formats []string
		want    []string
		path    string
		refused string
		body    string
	}{
		{nil, []string{"chat"}, textPath, "/v1/chat/completions", completion(`"prompt":"a"`)},
		{[]string{"completions"}, []string{"completions"}, chatPath, "/v1/completions", request()},
	} {
		r := newRig(t, func(s *setup) { s.service = func(svc *gatewayService) { svc.Models[0].Formats = c.formats } })
		k := r.mint(testService, newTokenID(), minPurchase, tomorrow())
		var m struct {
			L402 struct{ Formats []string }
		}
		r.do("GET", "/v1/models/"+testModel, "", nil).decode(t, &m)
		if !slices.Equal(m.L402.Formats, c.want) {
			t.Errorf("/v1/models says %v, want %v", m.L402.Formats, c.want)
		}
		p := r.do("POST", c.path, c.body, k.with()).wantProblem(t, http.StatusNotFound, "invalid-request")
		if detail, _ := p["detail"].(string); !strings.Contains(detail, c.refused) {
			t.Errorf("%s says %v", c.path, p)
		}
	}
}
