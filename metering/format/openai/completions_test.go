package openai_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
)

// noPolicy allows nothing more than what is known.
func noPolicy(string) *format.Policy { return new(format.Policy) }

// completion parses a request for completions with these fields.
func completion(t testing.TB, fields string) format.Request {
	t.Helper()
	r, err := openai.Completions.Parse("/v1/completions", []byte(`{"model":"m",`+fields+`}`), noPolicy)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBoundOfCompletions(t *testing.T) {
	l := format.Limits{ContextTokens: 100, MaxCompletion: 50, MinCompletion: 4, TemplateBase: 3, TemplatePerMessage: 2}
	const added = 4 + 3 + 2 // special tokens, and a template
	for name, c := range map[string]struct {
		fields                      string
		input, cap, output, counted int64
	}{
		"a text":            {`"prompt":"hello"`, 5 + added, 16, 16, 0},
		"an empty text":     {`"prompt":""`, added, 16, 16, 0},
		"text of escapes":   {`"prompt":"\u0041\n"`, 2 + added, 16, 16, 0},
		"texts":             {`"prompt":["hello","you"],"n":3,"max_tokens":10`, 8 + 2*added, 10, 60, 0},
		"tokens":            {`"prompt":[5, 6,70000]`, 3, 16, 16, 3},
		"lists of tokens":   {`"prompt":[[5],[6,7]],"max_tokens":2`, 3, 2, 4, 3},
		"each in a context": {`"prompt":["` + strings.Repeat("a", 300) + `","` + strings.Repeat("b", 300) + `"]`, 200, 16, 32, 0},
		"a suffix":          {`"prompt":["a","b"],"suffix":"end"`, 2 + 2*added + 2*(3+8), 16, 32, 0},
		"tokens and suffix": {`"prompt":[1,2],"suffix":"end"`, 2 + 3 + 8, 16, 16, 0},
		"a null cap":        {`"prompt":"a","max_tokens":null`, 1 + added, 16, 16, 0},
		"no cap at all":     {`"prompt":"a","max_tokens":-1`, 1 + added, 50, 50, 0},
		"above the model's": {`"prompt":"a","max_tokens":1000`, 1 + added, 50, 50, 0},
		"another name":      {`"prompt":"a","max_tokens":9,"n_predict":7,"n_cmpl":2`, 1 + added, 7, 14, 0},
		"what says nothing": {`"prompt":"a","suffix":null,"echo":false,"messages":null,"best_of":1,"logprobs":5,"tools":[]`, 1 + added, 16, 16, 0},
	} {
		b, err := completion(t, c.fields).Bound(l)
		if err != nil || b.Input != c.input || b.Cap != c.cap || b.Output != c.output || b.Counted != c.counted {
			t.Errorf("%s: %+v %v, want input %d, cap %d, output %d, counted %d", name, b, err, c.input, c.cap, c.output, c.counted)
		}
	}
}

func TestFitOfCompletions(t *testing.T) {
	l := format.Limits{ContextTokens: 100, MaxCompletion: 90, MinCompletion: 4}
	ids := strings.TrimSuffix(strings.Repeat("7,", 93), ",")
	for name, c := range map[string]struct {
		fields string
		cap    int64
	}{
		"room":                  {`"prompt":"hello"`, 16},
		"tokens":                {`"prompt":[` + ids + `]`, 7},
		"the longest of them":   {`"prompt":[[1],[` + ids + `],[2]]`, 7},
		"a cap of the client's": {`"prompt":[` + ids + `],"max_tokens":16`, 16},
		"a text that is long":   {`"prompt":"` + strings.Repeat("a", 380) + `","max_tokens":-1`, 4}, // 47 tokens, were they of 8 bytes
		"a text by its usual":   {`"prompt":"` + strings.Repeat("a", 120) + `","max_tokens":-1`, 70},
	} {
		r := completion(t, c.fields)
		b, err := r.Bound(l)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Fit(b, l).Cap; got != c.cap {
			t.Errorf("%s: cap %d, want %d", name, got, c.cap)
		}
	}
}

func TestCompletionsThatAreRefused(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat(`"a",`, 129), ",")
	for name, c := range map[string]struct{ fields, param, says string }{
		"no prompt":         {`"n":1`, "prompt", "missing"},
		"a null":            {`"prompt":null`, "prompt", "must be a text"},
		"an object":         {`"prompt":{"a":"b"}`, "prompt", "must be a text"},
		"an empty list":     {`"prompt":[]`, "prompt", "empty list"},
		"an empty prompt":   {`"prompt":[[1],[ ]]`, "prompt[1]", "at least one token"},
		"text and tokens":   {`"prompt":["a",[1]]`, "prompt[1]", "another kind"},
		"a list of both":    {`"prompt":["a",1]`, "prompt[1]", "another kind"},
		"tokens and a text": {`"prompt":[1,"a"]`, "prompt[1]", "no token"},
		"a negative token":  {`"prompt":[[1],[2,-1]]`, "prompt[1][1]", "no token"},
		"half a token":      {`"prompt":[1.5]`, "prompt[0]", "no token"},
		"too large a token": {`"prompt":[2147483648]`, "prompt[0]", "no token"},
		"too many prompts":  {`"prompt":[` + many + `]`, "prompt", "more than 128 prompts"},
		"too many answers":  {`"prompt":["a","b"],"n":65`, "n", "more than 128"},
		"far too many":      {`"prompt":["a","b"],"n":9223372036854775807`, "n", "more than 128"},
		"messages":          {`"messages":[{"role":"user","content":"a"}]`, "messages", "/v1/chat/completions"},
		"both":              {`"prompt":"a","messages":[{"role":"user","content":"a"}]`, "messages", "/v1/chat/completions"},
		"input":             {`"input":"a"`, "input", "another path"},
		"echo":              {`"prompt":"a","echo":true`, "echo", "nothing tells the two apart"},
		"best_of":           {`"prompt":"a","n":2,"best_of":3`, "best_of", "nobody counts"},
		"beams":             {`"prompt":"a","use_beam_search":true`, "use_beam_search", "beam search"},
		"embeddings":        {`"prompt":"a","prompt_embeds":"AAAA"`, "prompt_embeds", "cannot be used"},
		"a list for suffix": {`"prompt":"a","suffix":["b"]`, "suffix", "must be a text"},
		"tools":             {`"prompt":"a","tools":[{"type":"function"}]`, "tools", "not known"},
		"a template":        {`"prompt":"a","chat_template":"x"`, "chat_template", "not known"},
		"logprobs of all":   {`"prompt":"a","prompt_logprobs":1`, "prompt_logprobs", "not known"},
		"another host":      {`"prompt":"a","kv_transfer_params":{"a":1}`, "kv_transfer_params", "cannot be used"},
		"what nobody knows": {`"prompt":"a","frobnicate":1`, "frobnicate", "not known"},
		"another case":      {`"prompt":"a","Prompt":"b"`, "Prompt", "lower case"},
		"twice":             {`"prompt":"a","prompt":"b"`, "prompt", "twice"},
		"a cap of nothing":  {`"prompt":"a","max_tokens":0`, "max_tokens", "whole number"},
	} {
		_, err := openai.Completions.Parse("", []byte(`{"model":"m",`+c.fields+`}`), noPolicy)
		var refused *format.RequestError
		if !errors.As(err, &refused) || refused.Param != c.param || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q to be refused: %s", name, err, c.param, c.says)
		}
	}
	_, err := openai.Parse([]byte(`{"model":"m","prompt":"a"}`))
	if err == nil || !strings.Contains(err.Error(), "/v1/completions") {
		t.Errorf("a prompt in a chat: %v", err)
	}
}

func TestRewriteOfCompletions(t *testing.T) {
	const body = `"prompt":["a",  "b"],"max_completion_tokens":9,"n_cmpl":2,"suffix":"s","temperature":0.5,"seed":3,"min_p":0.1,"priority":-5,"user":"me","stream":true`
	for name, c := range map[string]struct {
		fields string
		w      format.Rewrite
		want   string
	}{
		"vllm": {body, format.Rewrite{Model: "up", Cap: 20, ForceUsage: true, ContinuousUsage: true, Profile: format.ProfileOf(format.EngineVLLM)},
			`{"model":"up","prompt":["a",  "b"],"suffix":"s","temperature":0.5,"seed":3,"min_p":0.1,"user":"me","stream":true,"n":2,"max_tokens":9,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`},
		"openai": {body, format.Rewrite{Cap: 9, ForceUsage: true, Profile: format.ProfileOf(format.EngineOpenAI)},
			`{"model":"m","prompt":["a",  "b"],"suffix":"s","temperature":0.5,"seed":3,"user":"me","stream":true,"n":2,"max_tokens":9,"stream_options":{"include_usage":true,"include_obfuscation":false}}`},
		"generic":       {`"prompt":[1,2],"echo":false`, format.Rewrite{Cap: 16, Profile: format.ProfileOf(format.EngineGeneric)}, `{"model":"m","prompt":[1,2],"n":1,"max_tokens":16}`},
		"llama.cpp":     {`"prompt":"a","n_predict":-1`, format.Rewrite{Cap: 50, Stream: true, ForceUsage: true, Profile: format.ProfileOf(format.EngineLlamaCpp)}, `{"model":"m","prompt":"a","n":1,"max_tokens":50,"stream":true,"stream_options":{"include_usage":true},"timings_per_token":true}`},
		"an owner's":    {`"prompt":"a"`, format.Rewrite{Cap: 5, Profile: format.Setting{CapField: format.CapCompletionTokens}.Profile("")}, `{"model":"m","prompt":"a","n":1,"max_tokens":5}`},
		"a lowered one": {`"prompt":"a","max_tokens":9,"min_tokens":8`, format.Rewrite{Cap: 4}, `{"model":"m","prompt":"a","min_tokens":4,"n":1,"max_tokens":4}`},
	} {
		got := string(completion(t, c.fields).Rewrite(c.w))
		if got != c.want || !json.Valid([]byte(got)) {
			t.Errorf("%s:\n%s, want\n%s", name, got, c.want)
		}
	}
}

func TestCountingCompletions(t *testing.T) {
	for name, c := range map[string]struct {
		engine  format.Engine
		fields  string
		path    string
		bodies  []string
		answers []string
		bound   int64 // of the prompt, after it
	}{
		"vllm": {format.EngineVLLM, `"prompt":"he said \"no\"","add_special_tokens":false`, "/tokenize",
			[]string{`{"model":"up","prompt":"he said \"no\"","add_special_tokens":false}`}, []string{`{"count":5}`}, 5},
		"vllm, a batch": {format.EngineVLLM, `"prompt":["hello","you","there"]`, "/tokenize",
			[]string{`{"model":"up","prompt":"hello"}`, `{"model":"up","prompt":"you"}`, `{"model":"up","prompt":"there"}`},
			[]string{`{"count":2}`, `{"count":3}`, `{"count":4}`}, 9},
		"sglang": {format.EngineSGLang, `"prompt":"hello"`, "/tokenize", []string{`{"model":"up","prompt":"hello"}`}, []string{`{"count":2}`}, 2},
		"llama.cpp": {format.EngineLlamaCpp, `"prompt":"hello"`, "/tokenize",
			[]string{`{"content":"hello","add_special":true,"parse_special":true,"model":"up"}`}, []string{`{"tokens":[1,2,3]}`}, 3},
		"tgi":    {format.EngineTGI, `"prompt":"hello"`, "/tokenize", []string{`{"inputs":"hello"}`}, []string{`[{"id":1},{"id":2}]`}, 2},
		"trtllm": {format.EngineTRTLLM, `"prompt":"hello"`, "/_internal/tokenize", []string{`{"model":"up","prompt":"hello"}`}, []string{`{"tokens":[1,2,3]}`}, 3},
		"what it does not see": {format.EngineVLLM, `"prompt":["ab","cd"],"suffix":"xyz"`, "/tokenize",
			[]string{`{"model":"up","prompt":"ab"}`, `{"model":"up","prompt":"cd"}`}, []string{`{"count":1}`, `{"count":1}`}, 2 + 2*(3+8)},
	} {
		r := completion(t, c.fields)
		b, err := r.Bound(format.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		questions := r.CountPrompt(format.ProfileOf(c.engine), "up", format.Limits{})
		if !r.Countable() || len(questions) != 1 {
			t.Errorf("%s: %d questions", name, len(questions))
			continue
		}
		first := questions[0]
		for i, q := 0, &first; q != nil; i++ {
			if q.Path != c.path || string(q.Body) != c.bodies[i] {
				t.Errorf("%s: asks %s %s", name, q.Path, q.Body)
			}
			n, next, err := q.Answer([]byte(c.answers[i]))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if next == nil {
				if b = b.WithCount(first, n); b.Input != c.bound || i != len(c.bodies)-1 {
					t.Errorf("%s: bound %d after %d answers, want %d", name, b.Input, i+1, c.bound)
				}
			}
			q = next
		}
	}
	for _, fields := range []string{`"prompt":[1,2]`, `"prompt":["a"` + strings.Repeat(`,"a"`, 16) + `]`} {
		if r := completion(t, fields); r.Countable() || r.CountPrompt(format.ProfileOf(format.EngineVLLM), "up", format.Limits{}) != nil {
			t.Errorf("%s would be counted", fields)
		}
	}
	if r := completion(t, `"prompt":"a"`); r.CountPrompt(format.ProfileOf(format.EngineOllama), "up", format.Limits{}) != nil {
		t.Error("Ollama is asked to count")
	}
}

func TestSmallestCompletion(t *testing.T) {
	path, body := openai.Completions.Smallest()
	r, err := openai.Completions.Parse(path, []byte(body), noPolicy)
	if err != nil || path != "/v1/completions" || r.Model() != "-" || r.Stream() || !r.HasCap() {
		t.Errorf("%v %+v", err, r)
	}
	if b, err := r.Bound(format.Limits{}); err != nil || b.Output != 1 {
		t.Errorf("%+v %v", b, err)
	}
}
