package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// TestCheaters tries to have tokens counted that are not charged. Whatever the
// client sends, the charge is at least what the inference server really did.
func TestCheaters(t *testing.T) {
	t.Parallel()
	message := func(content string) string { return `[{"role":"user","content":` + content + `}]` }
	image := `[{"type":"text","text":"What is on it?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]`
	oneByte := quoted(strings.Repeat("#~^|@%$&", 60))
	multi := quoted(strings.Repeat("水門はどこですか🌊", 12))
	for _, row := range []struct {
		name    string
		members []string
		stream  string // "only", "never" or empty for both
		hardest bool   // what was delivered does not show it: no estimate can know
	}{
		{name: "asks for no usage", members: []string{"stream_options", `{"include_usage":false}`}, stream: "only"},
		{name: "asks for no running usage", members: []string{"stream_options", `{"include_usage":false,"continuous_usage_stats":false}`}, stream: "only"},
		{name: "options are null", members: []string{"stream_options", "null"}, stream: "only"},
		{name: "n is 4", members: []string{"n", "4"}},
		{name: "n by llama.cpp's name", members: []string{"n_cmpl", "4"}},
		{name: "max_completion_tokens", members: []string{"max_tokens", "", "max_completion_tokens", "30"}},
		{name: "two maxima", members: []string{"max_tokens", "1", "max_completion_tokens", "40"}},
		{name: "two maxima the other way", members: []string{"max_tokens", "40", "max_completion_tokens", "5"}},
		{name: "a maximum by another name", members: []string{"max_tokens", "", "max_new_tokens", "20"}},
		{name: "no maximum", members: []string{"max_tokens", "", "temperature", "0.1"}},
		{name: "a null maximum", members: []string{"max_tokens", "null"}},
		{name: "an image", members: []string{"messages", message(image)}, hardest: true},
		{name: "a prompt of one-byte tokens", members: []string{"messages", message(oneByte)}, hardest: true},
		{name: "a prompt beyond ASCII", members: []string{"messages", message(multi)}, hardest: true},
		{name: "an unknown field that says nothing", members: []string{"x_secret", `""`}},
		{name: "a stop that comes at once", members: []string{"stop", `[" "]`}, hardest: true},
		{name: "tools", members: []string{"tools", `[{"type":"function","function":{"name":"open_the_sluice","parameters":{"type":"object"}}}]`}, hardest: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for _, streamed := range []bool{false, true} {
				if streamed && row.stream == "never" || !streamed && row.stream == "only" {
					continue
				}
				q := ask{model: "running", members: row.members}
				o, _ := lab.run(t, q, streamed)
				o.wantExact(t)
				if streamed {
					o.ended.complete(t)
					if strings.Contains(o.ended.raw, `"usage"`) {
						t.Errorf("a usage came that was not asked for:\n%s", tail(o.ended.raw))
					}
				}
				if row.hardest {
					continue
				}
				// The same with a backend that tells nothing: counted, never free.
				q.model, q.fault = "plain", "no-usage"
				o, _ = lab.run(t, q, streamed)
				if streamed && o.charge.Usage.Output < int64(o.truth.CompletionTokens) {
					t.Errorf("without usage charged for %d tokens of %d", o.charge.Usage.Output, o.truth.CompletionTokens)
				}
				if u := o.charge.Usage; u.Output < int64(o.truth.CompletionTokens)/2 || u.Input < int64(o.truth.PromptTokens)/2 {
					t.Errorf("without usage charged for %d + %d tokens, the backend did %d + %d", u.Input, u.Output, o.truth.PromptTokens, o.truth.CompletionTokens)
				}
				wantPriced(t, o.charge)
			}
		})
	}
}

// TestCheatersByEscapes hides the names of what costs behind escapes, and
// repeats them where nobody looks: it is read as the backend reads it.
func TestCheatersByEscapes(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, from, to string }{
		{"n", `"ignore_eos":true`, `"ignore_eos":true,"\u006e":3`},
		{"max_tokens", `"max_tokens":24`, `"max\u005ftokens":40`},
		{"usage asked for twice", `"ignore_eos":true`, `"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true,"include_usage":false}`},
		{"content twice", `"content":`, `"content":"x","content":`},
		{"a surrogate pair", `mill`, `\ud83c\udf0a\ud83c\udf0a`},
	} {
		body := chat("model", `"running"`)
		if !strings.Contains(body, row.from) {
			t.Fatalf("%s: no %q in %s", row.name, row.from, body)
		}
		k, name := lab.buy(t, 20_000), lab.newCase()
		a := lab.post(t, strings.Replace(body, row.from, row.to, 1), k.header(caseHeader, name))
		o := outcome{charge: lab.entry(t, k, a.want(t, http.StatusOK).header.Get("L402-Request-Id"))}
		o.truth, _ = lab.truth(t, name)
		o.wantExact(t)
	}
}

// TestCheatersCountedByTokenizer asks the backend's tokenizer where it reports
// no usage: prompts of one-byte tokens are no cheaper.
func TestCheatersCountedByTokenizer(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"one-byte tokens": strings.Repeat("#~^|@%$&", 60),
		"beyond ASCII":    strings.Repeat("水門はどこですか🌊", 12),
		"plain":           "Where is the mill?",
	} {
		for _, streamed := range []bool{false, true} {
			members := []string{"messages", `[{"role":"user","content":` + quoted(content) + `}]`}
			o, _ := lab.run(t, ask{model: "tokenizer", fault: "no-usage", members: members}, streamed)
			u := o.charge.Usage
			if u.Input != int64(o.truth.PromptTokens) || o.charge.Source != "tokenizer" {
				t.Errorf("%s: charged for a prompt of %d tokens (%s), it has %d", name, u.Input, o.charge.Source, o.truth.PromptTokens)
			}
			if streamed && u.Output < int64(o.truth.CompletionTokens) {
				t.Errorf("%s: charged for %d tokens in events of one token each, there were %d", name, u.Output, o.truth.CompletionTokens)
			}
		}
	}
}

// TestCapReachesTheBackend sends the cap that was held for on to the backend.
func TestCapReachesTheBackend(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		members []string
		most    int
	}{
		{[]string{"max_tokens", ""}, 256},
		{[]string{"max_tokens", "100000"}, 256},
		{[]string{"max_tokens", "1", "max_completion_tokens", "30"}, 1}, // the smallest
		{[]string{"max_tokens", "", "max_new_tokens", "12"}, 12},
	} {
		o, _ := lab.run(t, ask{model: "running", members: row.members}, false)
		if o.truth.CompletionTokens != row.most {
			t.Errorf("%v: the backend made %d tokens, want %d; it got %s", row.members, o.truth.CompletionTokens, row.most, o.sentBody())
		}
		o.wantExact(t)
	}
}

// TestHoldCoversAllSequences answers 402 to somebody who can pay for one
// sequence and asks for many.
func TestHoldCoversAllSequences(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 4000)
	for _, members := range [][]string{
		{"n", "8", "max_tokens", "200"}, {"n_cmpl", "8", "max_tokens", "200"}, {"n", "8", "max_tokens", ""},
		{"num_return_sequences", "8", "max_tokens", "200"},
	} {
		a := lab.post(t, chat(append([]string{"model", `"running"`}, members...)...), k.header())
		if c := a.challenge(t); c.problem["required_msat"].(float64) < 8*200*4 {
			t.Errorf("%v: required_msat is %v", members, c.problem["required_msat"])
		}
	}
	// What the text does not bound is held for by the whole context.
	image := `[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]`
	a := lab.post(t, chat("model", `"running"`, "messages", image), k.header())
	if c := a.challenge(t); c.problem["required_msat"].(float64) < 4096 {
		t.Errorf("an image of unknown size is held for with %v msat", c.problem["required_msat"])
	}
	lab.wantFree(t, k)
	if a.status != http.StatusPaymentRequired {
		t.Errorf("status %d", a.status)
	}
}
