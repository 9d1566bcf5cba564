package inference

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestUnaryAndStreamAgree(t *testing.T) {
	s, url := serve(t, fast())
	const how = `"seed":5,"temperature":0.8,"top_p":0.95,"max_tokens":40`
	a := unary(t, url, request(how))
	c := streamed(t, url, how+`,"stream_options":{"include_usage":true}`)
	if *a.Choices[0].Message.Content != c.text[0] || c.text[0] == "" {
		t.Errorf("unary %q, stream %q", *a.Choices[0].Message.Content, c.text[0])
	}
	if c.deltas != c.usage.Completion || *a.Usage != *c.usage || a.Usage.Total != a.Usage.Prompt+a.Usage.Completion {
		t.Errorf("%d deltas, usage %+v and %+v", c.deltas, a.Usage, c.usage)
	}
	if c.finish[0] != a.Choices[0].FinishReason || !c.done || c.chunks[0].Choices[0].Delta.Role != "assistant" {
		t.Errorf("stream %+v", c)
	}
	last := c.chunks[len(c.chunks)-1]
	if len(last.Choices) != 0 || last.Usage == nil {
		t.Errorf("the last chunk is not usage alone: %+v", last)
	}
	for _, rec := range s.Requests() {
		if rec.PromptTokens != a.Usage.Prompt || rec.CompletionTokens != a.Usage.Completion || rec.Outcome != "complete" {
			t.Errorf("recorded %+v", rec)
		}
	}
	if st := s.Stats(); st.GeneratedTokens != int64(2*a.Usage.Completion) || st.Running != 0 || s.count.cachedTokens.Load() != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestPromptTokensAreTheTemplates(t *testing.T) {
	cfg := fast()
	cfg.ImageTokens = 500
	s, url := serve(t, cfg)
	text := func(s string) int { return tokenCount(t, url, fmt.Sprintf(`{"model":"demo","prompt":%q}`, s)) }
	const user, system, tools = "Who keeps the gate?", "Be brief.", `[{"type":"function"}]`
	messages := `"messages":[{"role":"system","content":"` + system + `"},{"role":"user","content":[{"type":"text","text":"` + user + `"}]}]`
	want := TemplateBase + 2*TemplatePerMessage + text(user) + text(system)
	if got := tokenCount(t, url, `{`+messages+`}`); got != want {
		t.Errorf("/tokenize counts %d, want %d", got, want)
	}
	if got := unary(t, url, `{"model":"demo","max_tokens":1,`+messages+`}`).Usage.Prompt; got != want {
		t.Errorf("usage counts %d, want %d", got, want)
	}
	if got := unary(t, url, `{"model":"demo","max_tokens":1,`+messages+`,"tools":`+tools+`}`).Usage.Prompt; got != want+TemplatePerMessage+text(tools) {
		t.Errorf("with tools usage counts %d", got)
	}
	image := `{"model":"demo","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,"}}]}]}`
	if got := unary(t, url, image).Usage.Prompt; got != TemplateBase+TemplatePerMessage+500 {
		t.Errorf("an image counts %d", got)
	}
	marker := "<|end|><|user|>"
	if n := len(s.Tokenizer().Encode(marker)); n < 6 {
		t.Errorf("%q is %d tokens: a client can write role markers", marker, n)
	}
}

func TestTokenizeCountsWhatWasGenerated(t *testing.T) {
	_, url := serve(t, fast())
	a := unary(t, url, request(`"max_tokens":400,"ignore_eos":true,"seed":3`))
	got := tokenCount(t, url, fmt.Sprintf(`{"prompt":%q}`, *a.Choices[0].Message.Content))
	if want := a.Usage.Completion; want != 400 || got < want*9/10 || got > want*11/10 {
		t.Errorf("/tokenize counts %d of %d generated tokens", got, want)
	}
	resp := post(t, url+"/detokenize", `{"model":"demo","tokens":[72,105]}`)
	if got := string(readAll(t, resp)); !strings.Contains(got, `{"prompt":"Hi"}`) {
		t.Errorf("detokenize: %s", got)
	}
}

func TestChoices(t *testing.T) {
	_, url := serve(t, fast())
	a := unary(t, url, request(`"n":3,"seed":1,"max_tokens":20,"ignore_eos":true`))
	if len(a.Choices) != 3 || a.Usage.Completion != 60 || *a.Choices[0].Message.Content == *a.Choices[1].Message.Content {
		t.Errorf("n=3: %+v", a)
	}
	best := unary(t, url, request(`"n":1,"best_of":4,"seed":1,"max_tokens":20,"ignore_eos":true`))
	if len(best.Choices) != 1 || best.Usage.Completion != 80 {
		t.Errorf("best_of=4: %+v", best)
	}
	c := streamed(t, url, `"n":3,"seed":1,"max_tokens":20,"ignore_eos":true,"stream_options":{"include_usage":true}`)
	for i, choice := range a.Choices {
		if c.text[i] != *choice.Message.Content || c.finish[i] != "length" {
			t.Errorf("choice %d: stream %q, unary %q", i, c.text[i], *choice.Message.Content)
		}
	}
	if c.deltas != 60 || c.usage.Completion != 60 {
		t.Errorf("%d deltas, usage %+v", c.deltas, c.usage)
	}
}

func TestStopSequences(t *testing.T) {
	_, url := serve(t, fast())
	const how = `"temperature":0,"max_tokens":60`
	whole := *unary(t, url, request(how)).Choices[0].Message.Content
	stop := whole[len(whole)/2 : len(whole)/2+7]
	want := whole[:strings.Index(whole, stop)]
	for _, stops := range []string{fmt.Sprintf("%q", stop), fmt.Sprintf(`["never",%q,"\u0000"]`, stop)} {
		a := unary(t, url, request(how+`,"stop":`+stops))
		if got := *a.Choices[0].Message.Content; got != want || a.Choices[0].FinishReason != "stop" {
			t.Errorf("stop %s: %q, want %q", stops, got, want)
		}
		c := streamed(t, url, how+`,"stream_options":{"include_usage":true},"stop":`+stops)
		if c.text[0] != want || c.usage.Completion != a.Usage.Completion || c.usage.Completion < c.deltas {
			t.Errorf("stop %s: streamed %q, usage %+v", stops, c.text[0], c.usage)
		}
	}
	// A text that looks like the beginning of a stop sequence until the end is delivered.
	if got := *unary(t, url, request(how+`,"stop":"`+whole[len(whole)-4:]+`~"`)).Choices[0].Message.Content; got != whole {
		t.Errorf("held back: %q, want %q", got, whole)
	}
}

func TestUsageChunks(t *testing.T) {
	_, url := serve(t, fast())
	if c := streamed(t, url, `"max_tokens":5`); c.usage != nil || !c.done {
		t.Errorf("usage unasked: %+v", c.usage)
	}
	if c := streamed(t, url, `"max_tokens":5,"stream_options":{"continuous_usage_stats":true}`); c.usage != nil {
		t.Error("running usage without final usage: vLLM gives none")
	}
	c := streamed(t, url, `"max_tokens":5,"ignore_eos":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`)
	for i, chunk := range c.chunks {
		want := min(i, 5) // the role chunk has 0 tokens; the finish and usage chunks have all
		if chunk.Usage == nil || chunk.Usage.Completion != want || chunk.Usage.Prompt == 0 {
			t.Errorf("chunk %d: usage %+v, want %d tokens", i, chunk.Usage, want)
		}
	}
}

func TestRequestsAreChecked(t *testing.T) {
	cfg := fast()
	cfg.MaxModelLen = 200
	s, url := serve(t, cfg)
	for body, want := range map[string]int{
		``:                                   400,
		`[]`:                                 400,
		`{"model":"demo"}`:                   400,
		`{"model":"demo","messages":[null]}`: 400,
		`{"model":"demo","messages":"hi"}`:   400,
		`{"model":"demo","messages":[{"role":"king","content":"x"}]}`:                                400,
		`{"model":"demo","messages":[{"role":"user","content":[{"type":"image_url"}]}]}`:             400,
		`{"model":"other","messages":[{"role":"user","content":"x"}]}`:                               404,
		`{"MODEL":"demo","messages":[{"role":"user","content":"x"}]}`:                                404,
		`{"model":"demo","messages":[{"role":"user","content":"` + strings.Repeat("~", 300) + `"}]}`: 400,
		request(`"temperature":-1`):                    400,
		request(`"temperature":"hot"`):                 400,
		request(`"top_p":0`):                           400,
		request(`"n":0`):                               400,
		request(`"n":65`):                              400,
		request(`"n":3,"best_of":2`):                   400,
		request(`"stream":true,"best_of":2`):           400,
		request(`"max_tokens":0`):                      400,
		request(`"max_completion_tokens":-1`):          400,
		request(`"max_tokens":199`):                    400,
		request(`"max_tokens":5,"min_tokens":6`):       400,
		request(`"stop":""`):                           400,
		request(`"stop":["a","b","c","d","e"]`):        400,
		request(`"stop":[1]`):                          400,
		request(`"stream_options":{}`):                 400,
		request(`"stream":"yes"`):                      400,
		request(`"stream":true,"stream_options":[]`):   400,
		request(`"max_tokens":null,"stop":null,"n":1`): 200,
		request(`"MAX_TOKENS":0,"unknown":{"a":1}`):    200,
	} {
		resp := post(t, url+"/v1/chat/completions", body)
		raw := readAll(t, resp)
		var e struct {
			Error struct {
				Message, Type string
				Code          int
			}
		}
		if resp.StatusCode != want {
			t.Errorf("%.90s: status %d, want %d: %s", body, resp.StatusCode, want, raw)
		}
		if want != 200 && (json.Unmarshal(raw, &e) != nil || e.Error.Message == "" || e.Error.Type == "" || e.Error.Code != want) {
			t.Errorf("%.90s: %s", body, raw)
		}
	}
	if a := unary(t, url, request(`"max_tokens":50,"max_completion_tokens":3,"ignore_eos":true`)); a.Usage.Completion != 3 {
		t.Errorf("max_completion_tokens 3 gave %+v", a.Usage)
	}
	if a := unary(t, url, request(`"ignore_eos":true`)); a.Usage.Total != 200 {
		t.Errorf("without a maximum the context fills: %+v", a.Usage)
	}
	if s.Stats().Running != 0 {
		t.Error("slots leaked")
	}
}

func TestOtherEndpoints(t *testing.T) {
	cfg := fast()
	cfg.APIKey = "backend-key"
	_, url := serve(t, cfg)
	get := func(path string, header ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequest("GET", url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(header) > 0 {
			req.Header.Set("Authorization", header[0])
		}
		resp, err := httpClient(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode, string(readAll(t, resp))
	}
	if status, _ := get("/health"); status != 200 {
		t.Error("health", status)
	}
	for _, key := range []string{"", "Bearer wrong", "L402 a:b"} {
		if status, body := get("/v1/models", key); status != 401 || !strings.Contains(body, "error") || strings.Contains(body, cfg.APIKey) {
			t.Error("models with key", key, status, body)
		}
	}
	if status, body := get("/v1/models", "Bearer backend-key"); status != 200 || !strings.Contains(body, `"id":"demo"`) {
		t.Error("models", status, body)
	}
	resp := post(t, url+"/v1/chat/completions", request(`"max_tokens":7,"ignore_eos":true`), "Authorization", "Bearer backend-key")
	readAll(t, resp)
	_, body := get("/metrics")
	for _, line := range []string{
		`vllm:num_requests_running{model_name="demo"} 0`, `vllm:num_requests_waiting{model_name="demo"} 0`,
		`vllm:kv_cache_usage_perc{model_name="demo"} 0`, `vllm:generation_tokens_total{model_name="demo"} 7`,
		"# TYPE vllm:prompt_tokens_total counter",
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("metrics lack %q:\n%s", line, body)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{
		{TokensPerSecond: -1}, {Slowdown: 1}, {Slots: -1}, {FirstTokenDelay: -1}, {PrefillPerSecond: -1},
		{MaxModelLen: 3}, {ImageTokens: -1}, {Faults: "nonsense"}, {Script: []string{"", "cut:x"}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
