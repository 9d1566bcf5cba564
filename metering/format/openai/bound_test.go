package openai_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
)

var limits = format.Limits{ContextTokens: 8192, MaxCompletion: 256, TemplateBase: 10, TemplatePerMessage: 5}

// prompt is what the messages and the template of ask cost at most.
const prompt = int64(len("user")+len("Say hello.")) + 10 + 5

func TestBound(t *testing.T) {
	for name, c := range map[string]struct {
		fields string
		want   format.Bound
	}{
		"no maximum":                {``, format.Bound{Input: prompt, Cap: 256, Sequences: 1, Output: 256}},
		"null":                      {`"max_tokens":null,"n":null`, format.Bound{Input: prompt, Cap: 256, Sequences: 1, Output: 256}},
		"max_tokens":                {`"max_tokens":32`, format.Bound{Input: prompt, Cap: 32, Sequences: 1, Output: 32}},
		"max_completion_tokens":     {`"max_completion_tokens":33`, format.Bound{Input: prompt, Cap: 33, Sequences: 1, Output: 33}},
		"both, the smaller":         {`"max_completion_tokens":33,"max_tokens":40`, format.Bound{Input: prompt, Cap: 33, Sequences: 1, Output: 33}},
		"one of both null":          {`"max_completion_tokens":null,"max_tokens":40`, format.Bound{Input: prompt, Cap: 40, Sequences: 1, Output: 40}},
		"above the model's":         {`"max_tokens":100000`, format.Bound{Input: prompt, Cap: 256, Sequences: 1, Output: 256}},
		"above any number":          {`"max_tokens":99999999999999999999999`, format.Bound{Input: prompt, Cap: 256, Sequences: 1, Output: 256}},
		"another API's name":        {`"max_tokens":500,"n_predict":200`, format.Bound{Input: prompt, Cap: 200, Sequences: 1, Output: 200}},
		"four completions":          {`"n":4,"max_tokens":10`, format.Bound{Input: prompt, Cap: 10, Sequences: 4, Output: 40}},
		"best_of as n":              {`"n":8,"best_of":8,"max_tokens":10`, format.Bound{Input: prompt, Cap: 10, Sequences: 8, Output: 80}},
		"llama.cpp's n":             {`"n":2,"n_cmpl":8,"max_tokens":10`, format.Bound{Input: prompt, Cap: 10, Sequences: 8, Output: 80}},
		"sampling costs nothing":    {`"temperature":1,"top_k":5,"stop":["x"],"logit_bias":{"1":2},"seed":1,"user":"u","metadata":{"a":"b"}`, format.Bound{Input: prompt, Cap: 256, Sequences: 1, Output: 256}},
		"an unknown field, empty":   {`"zzz":[ ],"yyy":{},"xxx":""`, format.Bound{Input: prompt, Cap: 256, Sequences: 1, Output: 256}},
		"an unknown field, null":    {`"zzz":null`, format.Bound{Input: prompt, Cap: 256, Sequences: 1, Output: 256}},
		"template arguments, plain": {`"chat_template_kwargs":{"enable_thinking":false}`, format.Bound{Input: prompt + 2*5, Cap: 256, Sequences: 1, Output: 256}},
		"no beam search":            {`"n":2,"use_beam_search":false`, format.Bound{Input: prompt, Cap: 256, Sequences: 2, Output: 512}},
		"text output":               {`"modalities":["text"]`, format.Bound{Input: prompt, Cap: 256, Sequences: 1, Output: 256}},
	} {
		got, err := parse(t, ask(c.fields)).Bound(limits)
		c.want.Open = c.want.Input >= limits.ContextTokens
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}

func TestBoundOfMessages(t *testing.T) {
	const picture = `data:image/png;base64,AAAA`
	for name, c := range map[string]struct {
		message string
		open    bool // only the context length bounds it
	}{
		"text":                      {`{"role":"user","content":"x"}`, false},
		"no content":                {`{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}`, false},
		"text parts":                {`{"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}},"y"]}`, false},
		"reasoning":                 {`{"role":"assistant","content":"x","reasoning_content":"y","refusal":null}`, false},
		"a flag":                    {`{"role":"assistant","content":"x","prefix":true}`, false},
		"an answer as it came":      {`{"role":"assistant","content":"x","annotations":[],"audio":null,"function_call":null,"refusal":null,"images":[],"foo":{}}`, false},
		"an image":                  {`{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"` + picture + `"}}]}`, true},
		"an image that says text":   {`{"role":"user","content":[{"type":"text","text":"x","image_url":{"url":"` + picture + `"}}]}`, true},
		"an image, type twice":      {`{"role":"user","content":[{"type":"text","text":"x","type":"image_url"}]}`, true},
		"an image, nothing but URL": {`{"role":"user","content":[{"image_url":"` + picture + `"}]}`, true},
		"a video":                   {`{"role":"user","content":[{"type":"video_url","video_url":{"url":"data:video/mp4;base64,AA"}}]}`, true},
		"audio":                     {`{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"` + strings.Repeat("A", 64) + `","format":"wav"}}]}`, true},
		"a file":                    {`{"role":"user","content":[{"type":"file","file":{"filename":"x.pdf","file_data":"data:application/pdf;base64,AA"}}]}`, true},
	} {
		body := []byte(`{"model":"m","messages":[` + c.message + `]}`)
		b, err := parse(t, body).Bound(limits)
		if err != nil || (b.Input == limits.ContextTokens) != c.open || b.Open != c.open {
			t.Errorf("%s: %+v, %v; bounded by the context length: want %v", name, b, err, c.open)
		}
		_, err = parse(t, body).Bound(format.Limits{MaxCompletion: 256})
		var refused *format.RequestError
		if c.open != errors.As(err, &refused) {
			t.Errorf("%s, context length unknown: %v; refused: want %v", name, err, c.open)
		}
		known := limits
		known.MediaTokens = 1000
		if b, err = parse(t, body).Bound(known); err != nil || b.Open || (c.open && (b.Input < 1000 || b.Input > 1200)) {
			t.Errorf("%s, with the tokens of a picture known: %+v, %v", name, b, err)
		}
	}
}

// SDKs write absent members so. What says nothing is not sent, so that no template
// can write it into the prompt, and nothing is held for it.
func TestEmptyMembersBoundNothing(t *testing.T) {
	bound := func(body string) (*openai.Request, format.Bound) {
		r := parse(t, []byte(body))
		b, err := r.Bound(limits)
		if err != nil {
			t.Fatal(err)
		}
		return r, b
	}
	conversation := func(member string) string {
		return `{"model":"m","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"four"` + member + `}]}`
	}
	_, want := bound(conversation(""))
	for _, empty := range []string{"null", "[]", "[ ]", "{}", "{\n}", `""`} {
		for _, key := range []string{"tool_calls", "function_call", "tools", "audio", "images", "zzz", "annotations"} {
			r, got := bound(conversation(`,"` + key + `":` + empty))
			if got != want {
				t.Errorf("%s in a message, %s: %+v, want %+v", key, empty, got, want)
			}
			if sent := string(r.Rewrite(format.Rewrite{Cap: 1})); strings.Contains(sent, key) {
				t.Errorf("%s in a message, %s: sent as %s", key, empty, sent)
			}
		}
		for _, key := range []string{"tools", "functions", "tool_choice", "response_format", "documents", "guided_json", "thinking"} {
			schema := strings.HasPrefix(empty, "{") && key != "tools" && key != "thinking" // which any JSON fits
			_, want := bound(string(ask("")))
			r, got := bound(string(ask(`"` + key + `":` + empty)))
			if !schema && got != want {
				t.Errorf("%s, %s: %+v, want %+v", key, empty, got, want)
			}
			if sent := string(r.Rewrite(format.Rewrite{Cap: 1})); empty != "null" && strings.Contains(sent, key) != schema {
				t.Errorf("%s, %s: sent as %s", key, empty, sent)
			}
		}
	}
	for _, key := range []string{"refusal", "reasoning", "reasoning_content", "thinking", "name"} {
		for _, empty := range []string{"null", `""`} {
			if _, got := bound(conversation(`,"` + key + `":` + empty)); got != want {
				t.Errorf("%s, %s: %+v, want %+v", key, empty, got, want)
			}
		}
	}
}

func TestBoundIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		fields string
		limits format.Limits
		says   string
	}{
		"no cap at all":         {``, format.Limits{}, "max_tokens is missing"},
		"more than a number":    {`"n":9000000000000000000`, limits, "are too many"},
		"template beyond words": {``, format.Limits{MaxCompletion: 5, TemplatePerMessage: math.MaxInt64}, "too long"},
	} {
		_, err := parse(t, ask(c.fields)).Bound(c.limits)
		var refused *format.RequestError
		if !errors.As(err, &refused) || !strings.Contains(refused.Reason, c.says) {
			t.Errorf("%s: %v; want a *RequestError saying %q", name, err, c.says)
		}
	}
}

func TestBoundWithoutLimits(t *testing.T) {
	b, err := parse(t, ask(`"max_tokens":7`)).Bound(format.Limits{})
	if err != nil || b.Cap != 7 || b.Input != int64(len("userSay hello.")) {
		t.Errorf("%+v, %v", b, err)
	}
	b, err = parse(t, ask("")).Bound(format.Limits{ContextTokens: 100})
	if err != nil || b.Cap != 100 {
		t.Errorf("%+v, %v; want the context length as the cap", b, err)
	}
	long := []byte(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("a", 50_000) + `"}]}`)
	if b, err = parse(t, long).Bound(limits); err != nil || b.Input != 8192 {
		t.Errorf("%+v, %v; want the context length", b, err)
	}
}

func TestNarrowingABound(t *testing.T) {
	b := format.Bound{Input: 100, Cap: 50, Sequences: 4, Output: 200}
	if got := b.WithInput(30); got.Input != 30 || got.Counted != 30 {
		t.Errorf("%+v", got)
	}
	for _, n := range []int64{-1, 0, 101} {
		if got := b.WithInput(n); got != b {
			t.Errorf("a count of %d was believed: %+v", n, got)
		}
	}
	b.Unseen = 7
	if got := b.WithInput(30); got.Input != 37 || got.Counted != 30 {
		t.Errorf("what the tokenizer did not see is missing: %+v", got)
	}
	if got := b.WithInput(98); got.Input != 100 {
		t.Errorf("the bound was raised: %+v", got)
	}
	b.Open = true
	if got := b.WithInput(30); got != b {
		t.Errorf("a count of the text of an open prompt was believed: %+v", got)
	}
	for c, want := range map[int64]int64{10: 10, 0: 1, -5: 1, 60: 50} {
		if got := b.WithCap(c); got.Cap != want || got.Output != 4*want {
			t.Errorf("cap %d: %+v", c, got)
		}
	}
}

func TestWhatATokenizerDoesNotSee(t *testing.T) {
	const format = `"response_format":{"type":"json_object"}`
	b, err := parse(t, ask(format)).Bound(limits)
	if err != nil || b.Unseen < int64(len(`{"type":"json_object"}`)) || b.Input != prompt+b.Unseen || b.Open {
		t.Errorf("%+v, %v", b, err)
	}
}
