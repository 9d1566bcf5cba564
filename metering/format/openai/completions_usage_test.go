package openai_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
	"sluice.example/sluice/pricing"
)

// document is an answer with these texts of its choices, and a usage.
func document(usage string, texts ...string) string {
	var choices strings.Builder
	for i, text := range texts {
		fmt.Fprintf(&choices, `,{"index":%d,"text":"%s","finish_reason":"stop"}`, i, text)
	}
	return `{"id":"c","object":"text_completion","choices":[` + choices.String()[1:] + "]" + usage + "}"
}

// The usage of a document for several prompts is that of all, unless its backend is known
// to report that of the first one or the prompts are too long for it.
func TestUsageOfTheFirstPrompt(t *testing.T) {
	llama, known := format.MeterOptions{UsagePerSequence: true}, format.MeterOptions{UsageOfAll: true}
	generic := format.MeterOptions{}
	short, long := `["The gate is","Water runs down"]`, `["`+prose(100)+`","`+prose(100)+`"]`
	ids := `[[1,2,3,4,5],[1,2,3,4,5,6]]`
	for name, c := range map[string]struct {
		prompts    string
		o          format.MeterOptions
		reported   int
		completion int
		want       int64
		output     int64
		source     metering.Source
	}{
		"llama.cpp":                 {short, llama, 5, 3, 5 + 4, 6, metering.SourceCounted},
		"llama.cpp, of all":         {`["a","b"]`, llama, 9, 3, 9, 6, metering.SourceCounted},
		"unknown, short":            {short, generic, 12, 6, 12, 6, metering.SourceReported},
		"unknown, of the first":     {long, generic, 550, 3, 550 + 600, 3, metering.SourceRunning},
		"unknown, of many bytes":    {long, generic, 650, 3, 650, 3, metering.SourceReported},
		"unknown, of all":           {long, generic, 1300, 6, 1300, 6, metering.SourceReported},
		"unknown, of long words":    {long, generic, 900, 6, 900, 6, metering.SourceReported},
		"unknown, ids of the first": {ids, generic, 5, 3, 11, 6, metering.SourceCounted},
		"unknown, ids of all":       {ids, generic, 11, 6, 11, 6, metering.SourceReported},
		"known, of long words":      {long, known, 500, 6, 500, 6, metering.SourceReported},
		"known, of too few":         {long, known, 100, 6, 1200, 6, metering.SourceCounted},
	} {
		m := textMeter(t, `"max_tokens":8,"prompt":`+c.prompts, c.o)
		if _, err := m.Unary([]byte(document(used(c.reported, c.completion), "ab cdef", "ab cdef"))); err != nil {
			t.Fatal(err)
		}
		running, _ := m.Running()
		u, source, _ := m.Final(format.Complete, start)
		if onlyTokens(u) != tokens(c.want, c.output) || source != c.source {
			t.Errorf("%s: %v from %s, want %d and %d from %s", name, onlyTokens(u), source, c.want, c.output, c.source)
		}
		if c.output == 6 && onlyTokens(running)[0] != onlyTokens(u)[0] {
			t.Errorf("%s: %v before the end, %v after it", name, onlyTokens(running), onlyTokens(u))
		}
	}
}

// The backend's tokenizer counts better than the usage of some prompts and an estimate of
// the others do.
func TestTokenizerForTheOtherPrompts(t *testing.T) {
	m := textMeter(t, `"prompt":["The gate is","Water runs down"]`, format.MeterOptions{UsagePerSequence: true})
	if _, err := m.Unary([]byte(document(used(5, 3), "ab cdef", "ab cdef"))); err != nil {
		t.Fatal(err)
	}
	if prompt, text, ok := m.NeedsTokenizer(); !prompt || text != "" || !ok {
		t.Errorf("asks the tokenizer for %v %q %v", prompt, text, ok)
	}
	m.Tokenized(12, -1)
	if u, _, _ := m.Final(format.Complete, start); onlyTokens(u) != tokens(12, 6) {
		t.Errorf("%v", onlyTokens(u))
	}
}

// A stream that has a usage chunk for each completion costs, wherever it ends, the
// prompts whose usage came and an estimate of the others.
func TestPromptsOfAStreamThatIsCut(t *testing.T) {
	var events []string // two prompts of 5 and 7 tokens, two completions of each
	for i := range 4 {
		events = append(events, say(i, "ab", ""), say(i, "cdef", ""), stop(i, ""), alone(5+2*(i/2), 2))
	}
	events = append(events, done)
	for heard, want := range map[int]int64{1: 7, 4: 5 + 4, 7: 5 + 4, 8: 5 + 4, 11: 5 + 4, 12: 12, 15: 12, 17: 12} {
		for name, o := range map[string]format.MeterOptions{"llama.cpp": {UsagePerSequence: true}, "unknown": {}} {
			for _, end := range []format.End{format.BackendCut, format.ClientGone} {
				m := textMeter(t, twoByTwo, o)
				listen(m, events[:heard]...)
				running, _ := m.Running()
				if heard == len(events) {
					end = format.Complete
				}
				u, _, clamped := m.Final(end, start.Add(time.Second))
				words := int64(strings.Count(strings.Join(events[:heard], ""), `"text":"ab"`) + strings.Count(strings.Join(events[:heard], ""), `"text":"cdef"`))
				if onlyTokens(u) != tokens(want, words) || clamped || onlyTokens(running) != onlyTokens(u) {
					t.Errorf("%s, %d of %d events: %v, %v before, clamped %v; want %d and %d", name, heard, len(events), onlyTokens(u), onlyTokens(running), clamped, want, words)
				}
			}
		}
	}
}

// A usage that is more than the prompt of its choice can be is that of all.
func TestUsageOfAllInAChoice(t *testing.T) {
	const fields = `"stream":true,"prompt":[[1,2,3,4,5,6,7],[1,2,3,4,5,6,7,8,9]]`
	for name, events := range map[string][]string{
		"in the last one": {say(0, "a", ""), say(1, "b", ""), stop(0, ""), stop(1, used(16, 2)), done},
		"in each of them": {say(0, "a", used(16, 1)), say(1, "b", used(16, 2)), stop(0, used(16, 2)), stop(1, used(16, 2)), done},
	} {
		m := textMeter(t, fields, format.MeterOptions{})
		listen(m, events...)
		if u, _, clamped := m.Final(format.Complete, start); u[0] != tokens(16, 0)[0] || clamped {
			t.Errorf("%s: %v %v", name, onlyTokens(u), clamped)
		}
	}
}

// A usage that is missing makes those that came no usage of all. Nothing tells that the
// second one that came is not that of the second completion.
func TestAUsageChunkThatIsMissing(t *testing.T) {
	events := []string{say(0, "ab", ""), stop(0, ""), alone(5, 1), say(1, "ab", ""), stop(1, ""), say(2, "ab", ""), stop(2, ""), alone(7, 1), say(3, "ab", ""), stop(3, ""), done}
	for name, o := range map[string]format.MeterOptions{"llama.cpp": {UsagePerSequence: true}, "unknown": {}} {
		m := textMeter(t, twoByTwo, o)
		listen(m, events...)
		if u, _, clamped := m.Final(format.Complete, start); onlyTokens(u) != tokens(7+4, 4) || clamped {
			t.Errorf("%s: %v, clamped %v", name, onlyTokens(u), clamped)
		}
	}
}

// Prompts that the client has the engine cut are shorter than their text, and a usage of
// all of them is not taken for that of one.
func TestUsageOfPromptsThatWereCut(t *testing.T) {
	long := `["` + prose(100) + `","` + prose(100) + `"]`
	for name, c := range map[string]struct {
		prompts, cut string
		reported     int
		want         int64
	}{
		"texts": {long, "300", 600, 600},
		"ids":   {`[[1,2,3,4,5,6],[1,2,3,4,5,6]]`, "3", 6, 6},
	} {
		m := textMeter(t, `"max_tokens":8,"truncate_prompt_tokens":`+c.cut+`,"prompt":`+c.prompts, format.MeterOptions{})
		if got := promptCharge(t, m, document(used(c.reported, 6), "ab cdef", "ab cdef")); got != c.want {
			t.Errorf("%s: %d are charged as %d, want %d", name, c.reported, got, c.want)
		}
		m = textMeter(t, `"max_tokens":8,"truncate_prompt_tokens":`+c.cut+`,"stream":true,"prompt":`+c.prompts, format.MeterOptions{UsageOfAll: true, ContinuousUsage: true, TruncatesPrompts: true})
		listen(m, say(0, "a", used(c.reported/2, 1)))
		if u, _, _ := m.Final(format.ClientGone, start); onlyTokens(u) != tokens(c.want, 1) {
			t.Errorf("%s, left: %v, want %d", name, onlyTokens(u), c.want)
		}
	}
}

// What a cache had of each prompt adds up as the prompts do.
func TestCachedTokensOfABatch(t *testing.T) {
	cached := func(prompt, cached int) string {
		return fmt.Sprintf(`data: {"id":"c","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":%d}}}`+"\n\n", prompt, cached)
	}
	events := []string{say(0, "ab", ""), stop(0, ""), cached(5, 3), say(1, "ab", ""), stop(1, ""), cached(7, 4), done}
	for name, o := range map[string]format.MeterOptions{"llama.cpp": {UsagePerSequence: true}, "unknown": {}} {
		for heard, want := range map[int]int64{3: 3, len(events): 7} {
			m := textMeter(t, `"prompt":["The gate is","Water runs down"],"max_tokens":8,"stream":true`, o)
			listen(m, events[:heard]...)
			end := format.BackendCut
			if heard == len(events) {
				end = format.Complete
			}
			if u, _, clamped := m.Final(end, start.Add(time.Second)); u[pricing.CachedInputTokens] != want || clamped {
				t.Errorf("%s, %d events: %v, clamped %v, want %d cached", name, heard, u, clamped, want)
			}
		}
	}
}

// An engine that ignores the field reads all of each prompt, and so does one that is
// asked for as much as its model can read.
func TestPromptsThatAreCutOnlyWhereTheEngineCuts(t *testing.T) {
	ids := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }
	listed := "[[7]," + ids(400) + "," + ids(400) + "]"
	texts := `["The gate is","` + prose(100) + `","` + prose(100) + `"]`
	for _, e := range format.Engines() {
		p := format.ProfileOf(e)
		o := format.MeterOptions{UsagePerSequence: p.UsagePerSequence, TruncatesPrompts: p.TruncatesPrompts()}
		for name, c := range map[string]struct {
			cut, prompts string
			first        int
			full, short  int64
		}{
			"ids":       {"1", listed, 1, 801, 3},
			"texts":     {"2", texts, 2, 1202, 6},
			"no number": {"-1", texts, 3, 1203, 1203},
		} {
			want := c.full
			if e == format.EngineVLLM || e == format.EngineTRTLLM {
				want = c.short
			}
			m := textMeter(t, `"max_tokens":8,"stream":true,"truncate_prompt_tokens":`+c.cut+`,"prompt":`+c.prompts, o)
			listen(m, say(0, "a", used(c.first, 1)))
			if u, _, _ := m.Final(format.ClientGone, start); onlyTokens(u) != tokens(want, 1) {
				t.Errorf("%s of %s: %v, want %d", name, e, onlyTokens(u), want)
			}
		}
	}
	if format.ProfileOf("no engine").TruncatesPrompts() {
		t.Error("an engine that is not known truncates prompts")
	}
}

// What a tokenizer counts of texts, and what was counted of ids, is what was sent: an
// engine that cuts the prompts reads less. Nor does a count lower what was reported.
func TestCountsOfPromptsThatWereCut(t *testing.T) {
	texts := `["` + prose(100) + `","` + prose(100) + `"]`
	for name, c := range map[string]struct {
		prompt  string
		usage   string
		counted int64
		want    map[bool]int64 // by whether the engine cuts
	}{
		"one of two texts":   {texts, used(10, 1), 1100, map[bool]int64{true: 20, false: 1100}},
		"no usage":           {texts, "", 1100, map[bool]int64{true: 20, false: 1100}},
		"a count of less":    {texts, used(10, 1), 9, map[bool]int64{true: 10, false: 10}},
		"no count":           {texts, "", -1, map[bool]int64{true: 20, false: 1200}},
		"one text":           {`"` + prose(100) + `"`, "", 600, map[bool]int64{true: 10, false: 600}},
		"ids":                {`[[1,2,3,4,5,6,7,8,9,10,11,12],[1,2]]`, "", -1, map[bool]int64{true: 12, false: 14}},
		"ids, of the second": {`[[1,2],[1,2,3,4,5,6,7,8,9,10,11,12]]`, used(2, 1), -1, map[bool]int64{true: 12, false: 14}},
	} {
		for cuts, want := range c.want {
			m := textMeter(t, `"max_tokens":8,"stream":true,"truncate_prompt_tokens":10,"prompt":`+c.prompt, format.MeterOptions{UsageOfAll: true, TruncatesPrompts: cuts})
			listen(m, say(0, "a", c.usage))
			if c.counted > 0 {
				if prompt, _, _ := m.NeedsTokenizer(); !prompt {
					t.Errorf("%s: the prompts are not counted", name)
				}
				m.Tokenized(c.counted, -1)
			}
			if u, _, _ := m.Final(format.ClientGone, start); onlyTokens(u) != tokens(want, 1) {
				t.Errorf("%s, cut %v: %v, want %d", name, cuts, onlyTokens(u), want)
			}
		}
	}
	r, err := openai.Parse([]byte(`{"model":"m","max_tokens":9,"stream":true,"truncate_prompt_tokens":10,"messages":[{"role":"user","content":"` + prose(100) + `"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Bound(limits)
	if err != nil {
		t.Fatal(err)
	}
	m := openai.NewMeter(r, b, nil, format.MeterOptions{Start: start, TruncatesPrompts: true})
	listen(m, `data: {"choices":[{"index":0,"delta":{"content":"a"}}]}`+"\n\n")
	m.Tokenized(610, -1)
	if u, _, _ := m.Final(format.ClientGone, start); onlyTokens(u) != tokens(10, 1) {
		t.Errorf("a chat: %v", onlyTokens(u))
	}
}

// A usage of more than the prompts could have if they were cut shows that they were not,
// and may be that of one of them.
func TestUsageBeyondTheCut(t *testing.T) {
	texts := `["` + prose(100) + `","` + prose(100) + `"]`
	for name, c := range map[string]struct {
		prompts, cut string
		reported     int
		want         int64
	}{
		"ids":            {`[[1,2,3,4,5,6,7,8],[1,2,3,4,5,6,7,8,9]]`, "3", 8, 17},
		"ids, cut":       {`[[1,2,3,4,5,6,7,8],[1,2,3,4,5,6,7,8,9]]`, "3", 6, 6},
		"texts":          {texts, "200", 550, 550 + 600},
		"texts, cut":     {texts, "300", 550, 550},
		"at the longest": {texts, "-1", 550, 550},
	} {
		m := textMeter(t, `"max_tokens":8,"truncate_prompt_tokens":`+c.cut+`,"prompt":`+c.prompts, format.MeterOptions{})
		if got := promptCharge(t, m, document(used(c.reported, 4), "ab cdef", "ab cdef")); got != c.want {
			t.Errorf("%s: %d are charged as %d, want %d", name, c.reported, got, c.want)
		}
	}
}
