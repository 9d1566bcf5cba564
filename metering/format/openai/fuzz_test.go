package openai_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
	"sluice.example/sluice/pricing"
)

// requests seed the fuzzing of requests.
var requests = []string{
	string(ask(``)),
	string(ask(`"stream":true,"stream_options":{"include_usage":false,"x":[1]},"n":4,"best_of":8,"max_tokens":5,"max_completion_tokens":null`)),
	string(ask(`"max_tokens":5,"n_predict":100,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"chat_template_kwargs":{"a":true}`)),
	`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"é"},{"type":"image_url","image_url":{"url":"x"}}]},{"role":"tool","content":"\u00e9","tool_call_id":"1"},{"role":"assistant","content":null,"tool_calls":[{"function":{"arguments":"{\"a\":[1]}"}}]}]}`,
	`{"model":"m","messages":[{}],"use_beam_search":true,"previous_response_id":"x","zzz":{},"Model":1}`,
	`{"model":"\u006d","messages":[[]]}`,
}

func FuzzRequest(f *testing.F) {
	for _, body := range requests {
		f.Add([]byte(body), int64(8192), int64(256))
	}
	f.Fuzz(func(t *testing.T, body []byte, context, most int64) {
		r, err := openai.Parse(body)
		if err != nil {
			var refused *format.RequestError
			if !errors.As(err, &refused) || r != nil {
				t.Fatalf("error %T with %v", err, r)
			}
			return
		}
		if r.PromptBytes() > int64(len(body)+16*r.Messages()+len(body)) || r.PromptBytes() < 0 {
			t.Fatalf("%d bytes of prompt in a body of %d", r.PromptBytes(), len(body))
		}
		b, err := r.Bound(format.Limits{ContextTokens: context, MaxCompletion: most, TemplateBase: 10, TemplatePerMessage: 5})
		if err != nil {
			return
		}
		if b.Input < 0 || b.Cap < 1 || b.Sequences < 1 || b.Output != b.Cap*b.Sequences || (most > 0 && b.Cap > most) {
			t.Fatalf("bound %+v", b)
		}
		how := format.Rewrite{Model: "up/m", Cap: b.Cap, ForceUsage: true, ContinuousUsage: true}
		checkRewritten(t, r, b, body, r.Rewrite(how))
		how.Profile = format.Profile{Caps: []string{"max_completion_tokens"}}
		checkRewritten(t, r, b, body, r.Rewrite(how))
		for _, e := range format.Engines() {
			p := format.ProfileOf(e)
			for _, q := range r.CountPrompt(p, "up/m", format.Limits{}) {
				if !r.Countable() || !json.Valid(q.Body) {
					t.Fatalf("%s: tokenizer request %s", e, q.Body)
				}
			}
			if out := r.Rewrite(format.Rewrite{Cap: b.Cap, Profile: p}); !json.Valid(out) {
				t.Fatalf("%s: %s became %s", e, body, out)
			}
		}
	})
}

// checkRewritten checks that out asks for what body asked for, within b.
func checkRewritten(t *testing.T, r *openai.Request, b format.Bound, body, out []byte) {
	t.Helper()
	again, err := openai.Parse(out)
	if err != nil {
		t.Fatalf("%s became %s: %v", body, out, err)
	}
	ab, err := again.Bound(format.Limits{ContextTokens: max(b.Input, 1)})
	if err != nil || ab.Output > b.Output || ab.Sequences != b.Sequences {
		t.Fatalf("%s became %s: bound %+v, then %+v, %v", body, out, b, ab, err)
	}
	if again.Model() != "up/m" || again.Stream() != r.Stream() || (r.Stream() && !(again.WantsUsage() && again.WantsContinuousUsage())) {
		t.Fatalf("%s became %s", body, out)
	}
	var before, after map[string]json.RawMessage
	if json.Unmarshal(body, &before) != nil || json.Unmarshal(out, &after) != nil {
		t.Fatalf("%s became %s", body, out)
	}
	limit := json.Number(string(after["max_tokens"]) + string(after["max_completion_tokens"]))
	if after["max_tokens"] == nil || after["max_completion_tokens"] == nil {
		if n, err := limit.Int64(); err != nil || n < 1 || n > b.Cap {
			t.Fatalf("%s became %s: cap %s, want at most %d", body, out, limit, b.Cap)
		}
	}
	for key, value := range before {
		switch key {
		case "messages", "temperature", "tools", "zzz":
			if !bytes.Equal(value, after[key]) && !sameButEmpty(value, after[key]) {
				t.Fatalf("%s became %s: %s changed", body, out, key)
			}
		}
	}
}

// sameButEmpty reports whether two values differ in empty members only, which are not
// sent on.
func sameButEmpty(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(withoutEmpty(x), withoutEmpty(y))
}

func withoutEmpty(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, member := range v {
			if member = withoutEmpty(member); member == nil {
				delete(v, key)
			} else {
				v[key] = member
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = withoutEmpty(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	case string:
		if v == "" {
			return nil
		}
	}
	return v
}

func FuzzEvent(f *testing.F) {
	for _, event := range []string{
		role, finish, total, done, content("a", `,"usage":{"prompt_tokens":12,"completion_tokens":1}`), content("a", `,"usage":null`),
		"data: {\"choices\":[{}],\ndata: \"usage\":null}\n\n", ": ping\n\n", "data:\n\n", "data:\ndata:\n\n", "data: Internal Server Error\n\n", "event: error\ndata: {\"error\":1}\n\n",
		`data: {"usage":1,"choices":[{"index":9,"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{\"\u00e9"}}]}}],"usage":{"prompt_tokens":-1e99}}`,
	} {
		f.Add([]byte(event), []byte(event), true, false)
	}
	f.Fuzz(func(t *testing.T, first, second []byte, wants, continuous bool) {
		fields := `"stream":true`
		if wants {
			fields = `"stream":true,"stream_options":{"include_usage":true}`
		}
		m := meter(t, fields, format.MeterOptions{ContinuousUsage: continuous, KeepText: true})
		for _, event := range [][]byte{first, second, first} {
			before := bytes.Clone(event)
			out, last := m.Event(event)
			if !bytes.Equal(event, before) {
				t.Fatalf("%q was changed", before)
			}
			if out != nil && !last {
				checkShown(t, event, out)
			}
			if out != nil && !last {
				m.Delivered()
			}
			if u, _ := m.Running(); u[pricing.InputTokens] < 0 || u[pricing.OutputTokens] < 0 || u[pricing.CachedInputTokens] > u[pricing.InputTokens] {
				t.Fatalf("running %+v", u)
			}
		}
		m.NeedsTokenizer()
		for _, end := range []format.End{format.BackendCut, format.ClientGone, format.Complete, format.UnaryClientGone} {
			u, _, _ := m.Final(end, start)
			if u[pricing.InputTokens] < 0 || u[pricing.InputTokens] > prompt || u[pricing.OutputTokens] < 0 || u[pricing.OutputTokens] > 256 || u[pricing.CachedInputTokens] < 0 || u[pricing.CachedInputTokens] > u[pricing.InputTokens] {
				t.Fatalf("final %+v", u)
			}
		}
		one := meter(t, "", format.MeterOptions{KeepText: true})
		_, _ = one.Unary(first) // it only must not panic: what is no JSON is an error
		one.Final(format.Complete, start)
	})
}

// checkShown checks that out, which a client gets of event, is comments alone, or
// one line of the same data, without what the client did not ask for, and that no
// line is in it which SDKs stumble over.
func checkShown(t *testing.T, event, out []byte) {
	t.Helper()
	text := string(out)
	if strings.HasPrefix(text, ":") && !strings.Contains(text, "\ndata") {
		if strings.Contains(text, "\n\n") || strings.Contains(text, ": l402") {
			t.Fatalf("%q became %q", event, out)
		}
		return
	}
	if !strings.HasSuffix(text, "\n\n") || strings.Count("\n"+text, "\ndata:") != 1 || strings.Contains(text, "\r") ||
		strings.Contains("\n"+text, "\nid:") || strings.Contains("\n"+text, "\nretry:") {
		t.Fatalf("%q became %q", event, out)
	}
	var before, after map[string]any
	if err := json.Unmarshal(data(out), &after); err != nil {
		t.Fatalf("%q became %q: %v", event, out, err)
	}
	if json.Unmarshal(data(event), &before) != nil {
		return // its numbers were repaired
	}
	for _, name := range []string{"usage", "timings"} {
		delete(before, name)
		delete(after, name)
	}
	if !reflect.DeepEqual(before, after) {
		t.Fatalf("%q became %q", event, out)
	}
}

// data is the data of an event, read the slow way.
func data(event []byte) []byte {
	text := strings.ReplaceAll(strings.ReplaceAll(string(event), "\r\n", "\n"), "\r", "\n")
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimPrefix(line, "\ufeff")
		if value, ok := strings.CutPrefix(line, "data:"); ok {
			lines = append(lines, strings.TrimPrefix(value, " "))
		}
	}
	return []byte(strings.Join(lines, "\n"))
}

func FuzzParseTokenCount(f *testing.F) {
	for _, body := range []string{`{"count":5,"tokens":[1,2]}`, `{"tokens":[{"id":1}]}`, `{"count":-1}`, `{"count":1e99}`, `[]`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, e := range format.Engines() {
			q, ok := format.CountText(format.ProfileOf(e), "m", "some text")
			if !ok {
				continue
			}
			n, next, err := q.Answer(body)
			if n < 0 || next != nil || (err == nil) == (n == 0) || (err != nil && !errors.Is(err, format.ErrTokenCount)) {
				t.Fatalf("%s: %d, %v", e, n, err)
			}
		}
	})
}
