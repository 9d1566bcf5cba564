package openai_test

import (
	"fmt"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
	"sluice.example/sluice/pricing"
)

// prose is a text of so many times 24 bytes, of which each is about six tokens.
func prose(times int) string { return strings.Repeat("the river and its banks ", times) }

// promptCharge is the prompt that a unary answer with this usage of a prompt costs.
func promptCharge(t *testing.T, m format.Meter, document string) int64 {
	t.Helper()
	if _, err := m.Unary([]byte(document)); err != nil {
		t.Fatal(err)
	}
	u, _, _ := m.Final(format.Complete, start)
	return u[pricing.InputTokens]
}

// A field that has the engine read less of each prompt lowers what a usage must be at
// least, and no further.
func TestShortenedPromptsAreNotTooFew(t *testing.T) {
	two, choices := `["`+prose(200)+`","`+prose(100)+`"]`, `{"choices":[{"index":0,"text":"a"},{"index":1,"text":"b"}]`
	ids := "[" + strings.TrimSuffix(strings.Repeat("[7,7,7,7,7,7,7,7],", 2), ",") + "]"
	for name, c := range map[string]struct {
		prompt, cut    string
		reported, want int64
	}{
		"all of two":            {two, "", 500, 500},
		"too few of two":        {two, "", 200, 1800},
		"64 of each":            {two, "64", 128, 128},
		"one of two":            {two, "64", 64, 1800},
		"a longer one":          {two, "200", 350, 350},
		"not the longer one":    {two, "200", 349, 1800},
		"a context":             {two, "-1", 500, 500},
		"less than any context": {two, "-1", 20, 1800},
		"none":                  {two, "null", 200, 1800},
		"four ids of each":      {ids, "4", 8, 8},
		"three ids of each":     {ids, "4", 6, 16},
		"whole ids":             {ids, "64", 8, 16},
	} {
		fields := `"prompt":` + c.prompt
		if c.cut != "" {
			fields += `,"truncate_prompt_tokens":` + c.cut
		}
		m := textMeter(t, fields, format.MeterOptions{UsageOfAll: true})
		if got := promptCharge(t, m, choices+used(int(c.reported), 2)+"}"); got != c.want {
			t.Errorf("%s: %d are charged as %d, want %d", name, c.reported, got, c.want)
		}
	}
	for cut, counts := range map[string]map[int64]int64{"": {300: 300, 64: 1205}, "64": {64: 64, 63: 1205, 1: 1205}, "-1": {128: 128, 1: 1205}} {
		for reported, want := range counts {
			more := ""
			if cut != "" {
				more = `,"truncate_prompt_tokens":` + cut
			}
			r, err := openai.Parse([]byte(`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"` + prose(200) + `"}]` + more + `}`))
			if err != nil {
				t.Fatal(err)
			}
			b, err := r.Bound(limits)
			if err != nil {
				t.Fatal(err)
			}
			m := openai.NewMeter(r, b, nil, format.MeterOptions{Start: start})
			if got := promptCharge(t, m, `{"choices":[{"message":{"content":"a"}}]`+used(int(reported), 1)+"}"); got != want {
				t.Errorf("chat, cut at %q: %d are charged as %d, want %d", cut, reported, got, want)
			}
		}
	}
}

// Each prompt of a batch that is not empty is a token at least, and the short ones
// together are as long as one that is as long as they are.
func TestManyShortPromptsAreNotTooFew(t *testing.T) {
	batch := func(n int, text string) (prompts, choices string) {
		for i := range n {
			prompts += `,"` + text + `"`
			choices += fmt.Sprintf(`,{"index":%d,"text":"a"}`, i)
		}
		return "[" + prompts[1:] + "]", `{"choices":[` + choices[1:] + `]`
	}
	for name, c := range map[string]struct {
		text           string
		reported, want int64
	}{
		"a token each":     {"Hi!", 20, 20},
		"fewer":            {"Hi!", 19, 20},
		"one":              {"Hi!", 1, 20},
		"blanks":           {"    ", 1, 1},
		"as much as words": {prose(2), 60, 60},
		"far less":         {prose(2), 40, 240},
	} {
		prompts, choices := batch(20, c.text)
		m := textMeter(t, `"prompt":`+prompts, format.MeterOptions{UsageOfAll: true})
		if got := promptCharge(t, m, choices+used(int(c.reported), 20)+"}"); got != c.want {
			t.Errorf("%s: %d are charged as %d, want %d", name, c.reported, got, c.want)
		}
	}
}

// The same holds for texts that a model reads and does not go on with.
func TestManyShortTextsAreNotTooFew(t *testing.T) {
	list := func(n int, text string) string {
		return "[" + strings.TrimPrefix(strings.Repeat(`,"`+text+`"`, n), ",") + "]"
	}
	results := func(n int) (data string) {
		for i := range n {
			data += fmt.Sprintf(`,{"index":%d,"embedding":[1]}`, i)
		}
		return `{"data":[` + data[1:] + "]"
	}
	for name, c := range map[string]struct {
		fields   string
		texts    int
		counts   []int64 // that are believed
		tooFew   []int64
		estimate int64
	}{
		"a token each": {`"input":` + list(20, "Hi!"), 20, []int64{20, 45}, []int64{1, 19}, 15 + 20*2},
		"as words are": {`"input":` + list(20, prose(2)), 20, []int64{60}, []int64{20, 59}, 240 + 20*2},
		"blanks":       {`"input":` + list(20, "  "), 20, []int64{1}, nil, 0},
	} {
		for i, reported := range append(c.counts, c.tooFew...) {
			r, err := openai.Embeddings.Parse("", []byte(`{"model":"m",`+c.fields+`}`), noPolicy)
			if err != nil {
				t.Fatal(err)
			}
			b, err := r.Bound(limits)
			if err != nil {
				t.Fatal(err)
			}
			want := reported
			if i >= len(c.counts) {
				want = c.estimate
			}
			m := r.Meter(b, nil, format.MeterOptions{Start: start})
			if got := promptCharge(t, m, results(c.texts)+used(int(reported), 0)+"}"); got != want {
				t.Errorf("%s: %d are charged as %d, want %d", name, reported, got, want)
			}
		}
	}
}
