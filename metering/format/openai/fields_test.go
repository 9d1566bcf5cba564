package openai_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
)

// refusedParam is the field that a refusal names; it fails unless err is one.
func refusedParam(t *testing.T, what string, err error) string {
	t.Helper()
	var refused *format.RequestError
	if !errors.As(err, &refused) {
		t.Fatalf("%s: %v; want a *RequestError", what, err)
	}
	return refused.Param
}

// sent parses what a backend of an engine gets.
func sent(t *testing.T, r *openai.Request, e format.Engine) map[string]json.RawMessage {
	t.Helper()
	var out map[string]json.RawMessage
	body := r.Rewrite(format.Rewrite{Cap: 10, ForceUsage: true, Profile: format.ProfileOf(e)})
	if err := json.Unmarshal(body, &out); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return out
}

// What popular clients send by default passes, and none of it makes the hold the
// whole context.
func TestWhatClientsSendByDefaultIsNeverRefused(t *testing.T) {
	files, err := os.ReadDir("testdata/clients")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d clients, %v", len(files), err)
	}
	for _, f := range files {
		body, err := os.ReadFile("testdata/clients/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		r, err := openai.Parse(body)
		if err != nil {
			t.Errorf("%s: %v", f.Name(), err)
			continue
		}
		b, err := r.Bound(format.Limits{ContextTokens: 1 << 20, MaxCompletion: 256, TemplateBase: 64, TemplatePerMessage: 16})
		if err != nil || b.Open || b.Input > 8*int64(len(body)) {
			t.Errorf("%s: bound %+v, %v of %d bytes", f.Name(), b, err, len(body))
		}
		for _, e := range format.Engines() {
			sent(t, r, e)
		}
	}
}

// A field that nobody knows is refused by its name, unless the owner lists it.
func TestUnknownFieldsAreRefusedByName(t *testing.T) {
	for _, name := range []string{"zzz", "n_samples", "max_think_tokens", "lora_names"} {
		_, err := openai.Parse(ask(`"` + name + `":1`))
		if got := refusedParam(t, name, err); got != name {
			t.Errorf("%s: param %q", name, got)
		}
		if err := openai.CheckAllowField(name); err != nil {
			t.Errorf("%s cannot be allowed: %v", name, err)
		}
		r := parseFor(t, ask(`"`+name+`":1`), format.Policy{AllowFields: []string{name}})
		if string(sent(t, r, format.EngineVLLM)[name]) != "1" {
			t.Errorf("%s is allowed and did not pass", name)
		}
		for _, empty := range []string{"null", "[]", "{}", `""`} {
			if r, err := openai.Parse(ask(`"` + name + `":` + empty)); err != nil || sent(t, r, format.EngineVLLM)[name] != nil {
				t.Errorf("%s, which says nothing: %v", name, err)
			}
		}
	}
}

// State, addresses, prompts of another form and what multiplies the work never
// reach a backend, and no owner can allow them.
func TestForbiddenFieldsNeverPass(t *testing.T) {
	for name, value := range map[string]string{
		"kv_transfer_params": `{"remote_host":"10.0.0.1"}`, "bootstrap_host": `"10.0.0.1"`, "bootstrap_room": `1`, "lora_path": `"/etc/passwd"`,
		"data_parallel_rank": `3`, "vllm_xargs": `{"a":1}`, "custom_params": `{"a":1}`, "custom_logit_processor": `"x"`, "session_params": `{"id":"x"}`,
		"previous_response_id": `"x"`, "conversation": `"x"`, "prompt": `"x"`, "input_ids": `[1,2]`, "prompt_embeds": `"gAS="`, "image_data": `"http://10.0.0.1"`,
		"return_hidden_states": `true`, "options": `{"num_predict":100000}`, "sampling_params": `{"n":9}`, "extra_body": `{"n":9}`,
		"use_beam_search": `true`, "best_of": `8`, "num_beams": `4`, "beam_width": `4`, "modalities": `["text","audio"]`, "web_search_options": `{"a":1}`,
	} {
		_, err := openai.ParseFor(ask(`"`+name+`":`+value), func(string) *format.Policy { return &format.Policy{AllowFields: []string{name}} })
		want := name
		if name == "num_beams" || name == "beam_width" {
			want = "best_of"
		}
		if got := refusedParam(t, name, err); got != want {
			t.Errorf("%s: param %q", name, got)
		}
		if openai.CheckAllowField(name) == nil {
			t.Errorf("an owner can allow %s", name)
		}
	}
}

// Ids, routing and priority are dropped: the request is served without them.
func TestRoutingFieldsAreDropped(t *testing.T) {
	for name, value := range map[string]string{
		"request_id": `"same"`, "rid": `"same"`, "priority": `-5`, "service_tier": `"priority"`, "id_slot": `0`, "session_id": `"x"`,
		"provider": `{"order":["a"]}`, "models": `["a","b"]`, "route": `"fallback"`, "usage": `{"include":true}`, "keep_alive": `"24h"`,
		"store": `true`, "metadata": `{"a":"b"}`, "timings_per_token": `true`, "return_progress": `true`, "stream_interval": `100`,
		"prediction": `{"type":"content","content":"x"}`, "return_hidden_states": `false`, "lora_path": `null`, "echo": `false`,
	} {
		r, err := openai.Parse(ask(`"` + name + `":` + value))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, e := range format.Engines() {
			if got := sent(t, r, e)[name]; got != nil && !(name == "store" && string(got) == "false") {
				t.Errorf("%s reached %s as %s", name, e, got)
			}
		}
		b, err := r.Bound(limits)
		if err != nil || b.Input != prompt {
			t.Errorf("%s changes the bound: %+v, %v", name, b, err)
		}
	}
}

// Fields that lengthen a prompt need the owner's word, and are held at the whole
// context even then.
func TestRiskyFieldsNeedTheOwnersWord(t *testing.T) {
	for name, open := range map[string]bool{"chat_template": true, "mm_processor_kwargs": true, "audio": true, "echo": false, "prompt_logprobs": false} {
		body := ask(`"` + name + `":{"x":1}`)
		_, err := openai.Parse(body)
		if got := refusedParam(t, name, err); got != name {
			t.Errorf("%s: param %q", name, got)
		}
		b, err := parseFor(t, body, format.Policy{AllowFields: []string{name}}).Bound(limits)
		if err != nil || b.Open != open || (b.Input == limits.ContextTokens) != open {
			t.Errorf("%s, allowed: %+v, %v", name, b, err)
		}
	}
}

// An engine that refuses fields it does not know gets only those it knows.
func TestStrictEnginesGetOnlyWhatTheyKnow(t *testing.T) {
	r := parse(t, ask(`"temperature":1,"min_p":0.1,"mirostat":2,"dry_base":1.5,"user":"u","reasoning_effort":"low","min_tokens":3,"cache_salt":"s"`))
	for e, want := range map[format.Engine]string{
		format.EngineVLLM:   "cache_salt dry_base max_tokens messages min_p min_tokens mirostat model n reasoning_effort temperature user",
		format.EngineTRTLLM: "cache_salt max_tokens messages min_p min_tokens model n reasoning_effort temperature user",
		format.EngineOpenAI: "max_completion_tokens messages model n reasoning_effort store temperature user",
	} {
		var names []string
		for name := range sent(t, r, e) {
			names = append(names, name)
		}
		if got := strings.Join(sorted(names), " "); got != want {
			t.Errorf("%s got %s\nwant %s", e, got, want)
		}
	}
}

func TestLongSwitchesAreRefused(t *testing.T) {
	for _, name := range []string{"reasoning_effort", "think", "verbosity"} {
		_, err := openai.Parse(ask(`"` + name + `":"` + strings.Repeat("x", 1000) + `"`))
		if got := refusedParam(t, name, err); got != name {
			t.Errorf("%s: param %q", name, got)
		}
		parse(t, ask(`"`+name+`":"low"`))
	}
}

func TestNumbersAsClientsWriteThem(t *testing.T) {
	for value, want := range map[string]int64{`-1`: 0, `null`: 0, `5`: 5, `5.0`: 5, `5e0`: 5, `0.5e1`: 5, `500e-2`: 5, `-1.0`: 0} {
		b, err := parse(t, ask(`"max_tokens":`+value)).Bound(limits)
		if want == 0 {
			want = 256
		}
		if err != nil || b.Cap != want {
			t.Errorf("max_tokens %s: cap %d, %v; want %d", value, b.Cap, err, want)
		}
	}
	for _, value := range []string{`0`, `0.0`, `"100"`, `1.5`, `-2`, `true`, `[1]`, `1e-1`} {
		_, err := openai.Parse(ask(`"max_completion_tokens":` + value))
		if got := refusedParam(t, value, err); got != "max_completion_tokens" {
			t.Errorf("%s: param %q", value, got)
		}
	}
	if b, err := parse(t, ask(`"n":2.0,"max_tokens":1e1`)).Bound(limits); err != nil || b.Sequences != 2 || b.Cap != 10 {
		t.Errorf("%+v, %v", b, err)
	}
	if r := parse(t, append([]byte("\xef\xbb\xbf"), ask("")...)); r.Model() != "m" || sent(t, r, format.EngineVLLM)["model"] == nil {
		t.Error("a byte order mark is no part of the document")
	}
}

// What other services know, or send with their answers, passes or is dropped; nothing of
// it makes the hold the whole context.
func TestMembersOfOtherServices(t *testing.T) {
	echo := func(more string) string {
		return `"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b",` + more + `},{"role":"user","content":"c"}]`
	}
	tool := `"messages":[{"role":"user","content":"a"},{"role":"tool","tool_call_id":"x","content":"c","is_error":false}]`
	pixels := `"messages":[{"role":"user","content":[{"type":"text","text":"x","min_pixels":3136,"max_pixels":100352}]}]`
	user := `"messages":[{"role":"user","content":"x"}],`
	for body, absent := range map[string]string{
		echo(`"executed_tools":[{"index":0,"type":"search","arguments":"{}","output":"x"}]`): "executed_tools",
		echo(`"channel":"final"`): "channel",
		echo(`"images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]`): "images",
		echo(`"audio":{"id":"audio_1"}`):                    "audio",
		echo(`"reasoning_text":"x","reasoning_opaque":"y"`): "reasoning_",
		tool:                            "is_error",
		pixels:                          "_pixels",
		user + `"enable_search":false`:  "enable_search",
		user + `"web_search":false`:     "web_search",
		user + `"user_id":"x"`:          "user_id",
		user + `"thinking_budget":1024`: "",
		user + `"tool_stream":true`:     "",
		user + `"random_seed":7`:        "",
	} {
		r, err := openai.Parse([]byte(`{"model":"m",` + body + `}`))
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		b, err := r.Bound(format.Limits{ContextTokens: 1 << 20, MaxCompletion: 256, TemplateBase: 64, TemplatePerMessage: 16})
		if err != nil || b.Open || b.Input > 8*int64(len(body)) {
			t.Errorf("%s: bound %+v, %v", body, b, err)
		}
		out := string(r.Rewrite(format.Rewrite{Cap: 10, Profile: format.ProfileOf(format.EngineGeneric)}))
		if absent != "" && strings.Contains(out, absent) {
			t.Errorf("%s: a backend gets %s", body, out)
		}
		if added, ok := strings.CutPrefix(body, user); ok && absent == "" && !strings.Contains(out, added) {
			t.Errorf("%s: a backend gets %s", body, out)
		}
	}
	for _, field := range []string{"enable_search", "web_search", "deferred"} {
		_, err := openai.Parse([]byte(`{"model":"m",` + user + `"` + field + `":true}`))
		if got := refusedParam(t, field, err); got != field {
			t.Errorf("%s: param %q", field, got)
		}
	}
}
