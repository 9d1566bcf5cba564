package openai_test

import (
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
)

// What multiplies the cost of a request, or changes what the client asked for, is not
// the owner's to set, and the reason says why.
func TestFieldsThatAnOwnerCannotSet(t *testing.T) {
	for _, c := range []struct {
		api         format.Format
		name, value string
		why         string
	}{
		{openai.Chat, "n", "2", "multiplies the cost"},
		{openai.Chat, "num_return_sequences", "2", "multiplies the cost"},
		{openai.Chat, "best_of", "2", "nobody counts"},
		{openai.Chat, "max_tokens", "9", "max_completion_tokens of the model"},
		{openai.Chat, "n_predict", "9", "how much the client pays"},
		{openai.Chat, "min_tokens", "9", "did not ask for"},
		{openai.Chat, "ignore_eos", "true", "before its cap"},
		{openai.Chat, "stream", "true", "form of its answer"},
		{openai.Chat, "stream_options", "{}", "form of its answer"},
		{openai.Chat, "model", `"x"`, "under models of the backend"},
		{openai.Chat, "messages", "[]", "what the client asks"},
		{openai.Chat, "lora_path", `"x"`, "nothing bounds"},
		{openai.Chat, "prediction", "{}", "nothing bounds"},
		{openai.Chat, "store", "true", "writes it itself"},
		{openai.Chat, "modalities", `["audio"]`, "only text"},
		{openai.Chat, "Temperature", "1", "not the name"},
		{openai.Chat, "", "1", "not the name"},
		{openai.Chat, "reasoning_effort", `"` + strings.Repeat("x", 99) + `"`, "at most 64 bytes"},
		{openai.Chat, "tools", `[{"type":"web_search"}]`, "would run at the backend"},
		{openai.Chat, "chat_template_kwargs", `{"tokenize":true}`, "replace the template's own"},
		{openai.Completions, "prompt", `"x"`, "what the client asks"},
		{openai.Completions, "echo", "true", "would come back"},
		{openai.Embeddings, "input", `"x"`, "what the client asks"},
		{openai.Embeddings, "encoding_format", `"float"`, "form of its answer"},
		{openai.Rerank, "documents", "[]", "what the client asks"},
		{openai.Score, "text_1", `"x"`, "what the client asks"},
	} {
		_, err := c.api.(format.Ruled).CheckSet(c.name, []byte(c.value))
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s of %s: %v, want %q", c.name, c.api.Name(), err, c.why)
		}
	}
}

func TestFieldsThatAnOwnerCanSet(t *testing.T) {
	for _, c := range []struct {
		api         format.Format
		name, value string
		used        bool
	}{
		{openai.Chat, "temperature", "0", true},
		{openai.Chat, "service_tier", `"flex"`, true},
		{openai.Chat, "chat_template_kwargs", `{"enable_thinking":false}`, true},
		{openai.Chat, "my_flag", `{"a":[1]}`, true},
		{openai.Chat, "dimensions", "8", false},
		{openai.Completions, "tools", "[]", false},
		{openai.Completions, "seed", "1", true},
		{openai.Embeddings, "dimensions", "8", true},
		{openai.Embeddings, "temperature", "1", false},
		{openai.Rerank, "instruction", `"rank well"`, true},
		{openai.Score, "truncate_prompt_tokens", "512", true},
	} {
		used, err := c.api.(format.Ruled).CheckSet(c.name, []byte(c.value))
		if err != nil || used != c.used {
			t.Errorf("%s of %s: %v, used %v", c.name, c.api.Name(), err, used)
		}
	}
}

func TestFieldsThatAnOwnerCanRemove(t *testing.T) {
	for name, why := range map[string]string{"user": "", "tools": "", "previous_response_id": "", "unheard_of": "", "best_of": "", "min_tokens": "",
		"n": "multiplies the cost", "max_tokens": "how much the client pays", "stream": "form of its answer", "messages": "what the client asks", "priority": "reaches no backend"} {
		used, err := openai.Chat.(format.Ruled).CheckRemove(name)
		if why == "" && (err != nil || !used) || why != "" && (err == nil || !strings.Contains(err.Error(), why)) {
			t.Errorf("%s: %v, used %v", name, err, used)
		}
	}
}

// A field that the owner sets is in the bound as if the client had sent it, and counts in
// place of what the client sent.
func TestOwnersFieldsAreBounded(t *testing.T) {
	const instruction = `"{\"type\":\"object\",\"properties\":{}}"`
	limits := format.Limits{ContextTokens: 1 << 20, MaxCompletion: 9}
	bound := func(body string, p format.Policy) format.Bound {
		t.Helper()
		r, err := openai.Chat.Parse("", []byte(body), func(string) *format.Policy { return &p })
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.Bound(limits)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const plain = `{"model":"m","messages":[{"role":"user","content":"Say it"}]}`
	const long = `{"model":"m","messages":[{"role":"user","content":"Say it"}],"guided_regex":` + instruction + `}`
	set := format.Policy{Set: []format.Field{format.NewField("guided_regex", []byte(instruction))}}
	if got, want := bound(plain, set), bound(long, format.Policy{}); got != want || got.Input <= bound(plain, format.Policy{}).Input {
		t.Errorf("set: %+v, sent: %+v", got, want)
	}
	short := format.Policy{Set: []format.Field{format.NewField("guided_regex", []byte(`"x"`))}}
	if got, want := bound(long, short), bound(strings.Replace(long, instruction, `"x"`, 1), format.Policy{}); got != want {
		t.Errorf("set in place of the client's: %+v, want %+v", got, want)
	}
	if got, want := bound(long, format.Policy{Remove: []string{"guided_regex"}}), bound(plain, format.Policy{}); got != want {
		t.Errorf("removed: %+v, want %+v", got, want)
	}
	open := format.Policy{Set: []format.Field{format.NewField("chat_template", []byte(`"{{ x }}"`))}}
	if got := bound(plain, open); !got.Open || got.Input != limits.ContextTokens {
		t.Errorf("a template of the owner's: %+v", got)
	}
}
