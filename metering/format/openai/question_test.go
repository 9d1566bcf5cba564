package openai_test

import (
	"errors"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
)

// Each engine is asked on its own path, with its own body, and its answer is read
// as it writes it.
func TestEachEngineIsAskedInItsOwnWay(t *testing.T) {
	r := parse(t, ask(`"tools":[{"type":"function","function":{"name":"f"}}],"temperature":1,"chat_template_kwargs":{"a":true},"add_generation_prompt":null`))
	const messages, tools = `"messages":[{"role":"user","content":"Say hello."}]`, `,"tools":[{"type":"function","function":{"name":"f"}}]`
	for e, want := range map[format.Engine]struct{ path, body, answer string }{
		format.EngineVLLM:     {"/tokenize", `{"model":"up/m",` + messages + tools + `,"chat_template_kwargs":{"a":true}}`, `{"count":12,"max_model_len":4096,"tokens":[1]}`},
		format.EngineSGLang:   {"/tokenize", `{"model":"up/m","prompt":"user\nSay hello.\n"}`, `{"tokens":[1,2],"count":12,"max_model_len":1}`},
		format.EngineLlamaCpp: {"/v1/chat/completions/input_tokens", `{"model":"up/m",` + messages + tools + `,"chat_template_kwargs":{"a":true}}`, `{"object":"response.input_tokens","input_tokens":12}`},
		format.EngineTGI:      {"/chat_tokenize", `{"model":"up/m",` + messages + tools + `,"chat_template_kwargs":{"a":true}}`, `{"tokenize_response":[{"id":1},{},{},{},{},{},{},{},{},{},{},{}],"templated_text":"x"}`},
		format.EngineTRTLLM:   {"/_internal/tokenize", `{"model":"up/m",` + messages + `,"chat_template_kwargs":{"a":true}}`, `{"count":12,"tokens":[1]}`},
	} {
		questions := r.CountPrompt(format.ProfileOf(e), "up/m", limits)
		if len(questions) == 0 || questions[0].Path != want.path || string(questions[0].Body) != want.body {
			t.Errorf("%s is asked %s %s\nwant %s %s", e, questions[0].Path, questions[0].Body, want.path, want.body)
			continue
		}
		n, next, err := questions[0].Answer([]byte(want.answer))
		if n != 12 || next != nil || err != nil {
			t.Errorf("%s: %d, %v", e, n, err)
		}
		for _, lie := range []string{`{"tokens":[]}`, `{"count":0}`, `{"input_tokens":0}`, `{"tokenize_response":[]}`, `[]`, `{}`, ``, `{"count":-1}`, `{"count":1e30}`, `{"error":{}}`} {
			if n, _, err := questions[0].Answer([]byte(lie)); n != 0 || !errors.Is(err, format.ErrTokenCount) {
				t.Errorf("%s: %s is believed to be %d tokens", e, lie, n)
			}
		}
	}
	for _, e := range []format.Engine{format.EngineOllama, format.EngineOpenAI, format.EngineGeneric} {
		if q := r.CountPrompt(format.ProfileOf(e), "m", limits); q != nil {
			t.Errorf("%s is asked %s", e, q[0].Path)
		}
	}
}

// A llama.cpp that is too old to count conversations renders one, and counts the
// text.
func TestOlderLlamaCppCountsInTwoSteps(t *testing.T) {
	questions := parse(t, ask("")).CountPrompt(format.ProfileOf(format.EngineLlamaCpp), "m", limits)
	if len(questions) != 2 || questions[1].Path != "/apply-template" {
		t.Fatalf("%+v", questions)
	}
	n, next, err := questions[1].Answer([]byte(`{"prompt":"<|user|>Say hello."}`))
	if err != nil || n != 0 || next == nil || next.Path != "/tokenize" ||
		string(next.Body) != `{"content":"\u003c|user|\u003eSay hello.","add_special":true,"parse_special":true,"model":"m"}` {
		t.Fatalf("%d, %+v, %v", n, next, err)
	}
	if n, _, err := next.Answer([]byte(`{"tokens":[1,2,3,4]}`)); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, next, err := questions[1].Answer([]byte(`{"prompt":""}`)); next != nil || !errors.Is(err, format.ErrTokenCount) {
		t.Errorf("an empty rendering: %+v, %v", next, err)
	}
}

// What a tokenizer was not shown stays in the bound.
func TestBoundKeepsWhatATokenizerIsNotShown(t *testing.T) {
	long := strings.Repeat("word ", 400)
	body := []byte(`{"model":"m","messages":[{"role":"user","content":"` + long + `"},{"role":"tool","tool_call_id":"1","content":"{\"a\":1}"}],"max_tokens":5,` +
		`"response_format":{"type":"json_object"},"tools":[{"type":"function","function":{"name":"f"}}]}`)
	r := parse(t, body)
	bound, err := r.Bound(limits)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []format.Engine{format.EngineVLLM, format.EngineSGLang, format.EngineTRTLLM} {
		q := r.CountPrompt(format.ProfileOf(e), "m", limits)[0]
		got := bound.WithCount(q, 401)
		if got.Input >= bound.Input || got.Input < 401+bound.Unseen || got.Counted < 401 || got.Counted > got.Input {
			t.Errorf("%s: %+v", e, got)
		}
		if e != format.EngineVLLM && got.Input < 401+bound.Unseen+int64(len(`[{"type":"function","function":{"name":"f"}}]`)) {
			t.Errorf("%s did not see the tools: %+v", e, got)
		}
		if got := bound.WithCount(q, bound.Input+1); got != bound {
			t.Errorf("%s: a count above the bound is believed: %+v", e, got)
		}
		if _, _, err := q.Answer([]byte(`{"count":1,"tokens":[1]}`)); !errors.Is(err, format.ErrTokenCount) {
			t.Errorf("%s: one token for %d bytes: %v", e, len(body), err)
		}
	}
}

func TestCountingText(t *testing.T) {
	for e, want := range map[format.Engine]string{
		format.EngineVLLM:     `/tokenize {"model":"up/m","prompt":"a\"b\n","add_special_tokens":false}`,
		format.EngineSGLang:   `/tokenize {"model":"up/m","prompt":"a\"b\n","add_special_tokens":false}`,
		format.EngineTRTLLM:   `/_internal/tokenize {"model":"up/m","prompt":"a\"b\n"}`,
		format.EngineLlamaCpp: `/tokenize {"content":"a\"b\n","add_special":false}`,
		format.EngineTGI:      `/tokenize {"inputs":"a\"b\n","add_special_tokens":false}`,
		format.EngineOllama:   ``,
		format.EngineOpenAI:   ``,
		format.EngineGeneric:  ``,
	} {
		q, ok := format.CountText(format.ProfileOf(e), "up/m", "a\"b\n")
		if got := q.Path + " " + string(q.Body); ok != (want != "") || (ok && got != want) {
			t.Errorf("%s: %v %s, want %s", e, ok, got, want)
		}
	}
}

// What a tokenizer is not shown, such as a schema, is none of the text that its count is
// held to. Nor is what a template may leave out.
func TestACountIsHeldToWhatIsCounted(t *testing.T) {
	long := strings.Repeat("a schema of many words ", 400)
	schema := `,"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"description":"` + long + `"}}}`
	thought := `{"role":"assistant","content":"` + long + `","reasoning_content":"` + long + `"},`
	body := func(before, text, more string) string {
		return `{"model":"m","max_tokens":9,"messages":[` + before + `{"role":"user","content":"` + text + `"}]` + more + `}`
	}
	for name, c := range map[string]struct {
		f      format.Format
		body   string
		tooFew int64 // 0: any count is believed
	}{
		"a schema":              {openai.Chat, body("", "Hi", schema), 0},
		"tools":                 {openai.Chat, body("", "Hi", `,"tools":[{"type":"function","function":{"name":"f","description":"`+long+`"}}]`), 0},
		"an answer":             {openai.Chat, body(thought, "Hi", ""), 0},
		"a long text":           {openai.Chat, body("", long, ""), 20},
		"a grammar":             {openai.Completions, `{"model":"m","prompt":"Hi"` + schema + `}`, 0},
		"a suffix":              {openai.Completions, `{"model":"m","prompt":"Hi","suffix":"` + long + `"}`, 0},
		"a long prompt":         {openai.Completions, `{"model":"m","prompt":"` + long + `"}`, 20},
		"a long one of prompts": {openai.Completions, `{"model":"m","prompt":["` + long + `"]}`, 20},
	} {
		r, err := c.f.Parse("", []byte(c.body), noPolicy)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, e := range []format.Engine{format.EngineVLLM, format.EngineSGLang, format.EngineTRTLLM, format.EngineLlamaCpp} {
			q := r.CountPrompt(format.ProfileOf(e), "m", format.Limits{})[0]
			q.Next, q.Read = nil, func([]byte) (int64, error) { return 2, nil }
			if _, _, err := q.Answer(nil); (err != nil) != (c.tooFew > 0) {
				t.Errorf("%s, %s: 2 tokens: %v", name, e, err)
			}
			q.Read = func([]byte) (int64, error) { return 40, nil }
			if _, _, err := q.Answer(nil); err != nil {
				t.Errorf("%s, %s: 40 tokens: %v", name, e, err)
			}
		}
	}
}
