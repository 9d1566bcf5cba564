package openai

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// Where no usage comes, no text counts above what a model reads of it, however it is
// counted: by its bytes, by the tokenizer for the bound, or by the tokenizer afterwards.
func TestNoTextCountsAboveTheContext(t *testing.T) {
	const context = 100
	long := strings.Repeat("long", 1000) // 1,000 tokens
	for name, c := range map[string]struct {
		f                  format.Format
		body, document     string
		estimated, counted int64 // of a tokenizer that says 2,000
	}{
		"embeddings": {Embeddings, `{"model":"m","input":["` + long + `","four","four"]}`,
			`{"data":[{"embedding":[1]},{"embedding":[1]},{"embedding":[1]}]}`, context + 2*3, context + 2*6},
		"two long ones": {Embeddings, `{"model":"m","input":["` + long + `","four","` + long + `"]}`,
			`{"data":[{"embedding":[1]},{"embedding":[1]},{"embedding":[1]}]}`, 2*context + 3, 2*context + 3},
		"rerank": {Rerank, `{"model":"m","query":"four","documents":["` + long + `","four"]}`,
			`[{"index":0,"score":1},{"index":1,"score":1}]`, context + 2 + 3, context + 10},
		"score": {Score, `{"model":"m","text_1":"four","text_2":["` + long + `","four"]}`,
			`{"data":[{"index":0,"score":1},{"index":1,"score":1}]}`, context + 2 + 3, context + 10},
	} {
		r := parseInputs(t, c.f, c.body)
		b, err := r.Bound(format.Limits{ContextTokens: context, TemplateBase: 50})
		if err != nil {
			t.Fatal(err)
		}
		final := func(b format.Bound, counted int64) (int64, metering.Source) {
			m := r.Meter(b, nil, format.MeterOptions{Start: time.Now()})
			if _, err := m.Unary([]byte(c.document)); err != nil {
				t.Fatal(err)
			}
			m.Tokenized(counted, -1)
			u, source, _ := m.Final(format.Complete, time.Now())
			return u[pricing.InputTokens], source
		}
		if n, source := final(b, -1); n < c.estimated-2 || n > c.estimated+2 || source != metering.SourceCounted {
			t.Errorf("%s: %d tokens by %s, right are about %d", name, n, source, c.estimated)
		}
		if n, source := final(b, 2000); n < c.counted-2 || n > c.counted+2 || source != metering.SourceTokenizer {
			t.Errorf("%s: %d tokens by %s, right are about %d", name, n, source, c.counted)
		}
		b.Counted = b.Input // a count before the hold, of more than it has
		if n, source := final(b, -1); n > 2*context+10 || source != metering.SourceTokenizer {
			t.Errorf("%s: %d tokens by %s from before", name, n, source)
		}
	}
	ids := parseInputs(t, Embeddings, `{"model":"m","input":[[1`+strings.Repeat(",1", 999)+`],[1,2,3]]}`)
	b, err := ids.Bound(format.Limits{ContextTokens: context, TemplateBase: 50})
	if err != nil {
		t.Fatal(err)
	}
	m := ids.Meter(b, nil, format.MeterOptions{Start: time.Now()})
	if _, err := m.Unary([]byte(`{"data":[{"embedding":[1]},{"embedding":[1]}]}`)); err != nil {
		t.Fatal(err)
	}
	if u, _, _ := m.Final(format.Complete, time.Now()); u[pricing.InputTokens] != context+3 {
		t.Errorf("%v for 1,000 and 3 token ids", u)
	}
}

// A usage of texts that the client has the engine cut may be as few tokens as it has each
// of them cut to, and no fewer.
func TestUsagesOfTextsThatAreCut(t *testing.T) {
	long := strings.Repeat("abcdefgh", 400) // 3,200 bytes: 200 tokens at least
	for api, c := range map[format.Format]struct{ texts, document string }{
		Embeddings: {`"input":["` + long + `","` + long + `"]`, `{"data":[{"embedding":[1]},{"embedding":[1]}]`},
		Rerank:     {`"query":"a","documents":["` + long + `","` + long + `"]`, `{"results":[{"score":1},{"score":1}]`},
		Score:      {`"text_1":"a","text_2":["` + long + `","` + long + `"]`, `{"data":[{"score":1},{"score":1}]`},
	} {
		for more, least := range map[string]int64{
			``: 400, `,"truncate_prompt_tokens":50`: 100, `,"truncate_prompt_tokens":9999`: 400, `,"truncate_prompt_tokens":null`: 400,
			`,"truncate_prompt_tokens":-1`: 2 * leastContext, `,"truncate":true`: 2 * leastContext, `,"truncate":false`: 400,
			`,"truncation_side":"left"`: 400, `,"truncate":"END","truncate_prompt_tokens":10`: 20,
		} {
			r := parseInputs(t, api, `{"model":"m",`+c.texts+more+`}`)
			b, err := r.Bound(format.Limits{ContextTokens: 8192})
			if err != nil {
				t.Fatal(err)
			}
			for reported, right := range map[int64]bool{least: true, least - 1: false} {
				m := r.Meter(b, nil, format.MeterOptions{Start: time.Now()})
				if _, err := m.Unary(fmt.Appendf(nil, `%s,"usage":{"prompt_tokens":%d}}`, c.document, reported)); err != nil {
					t.Fatal(err)
				}
				u, source, _ := m.Final(format.Complete, time.Now())
				if (source == metering.SourceReported && u[pricing.InputTokens] == reported) != right {
					t.Errorf("%s%s: %d tokens are reported: %v by %s", api.Name(), more, reported, u, source)
				}
			}
		}
	}
}

// The usage of texts that were cut says nothing of how many bytes a token has.
func TestTextsThatAreCutTeachNothing(t *testing.T) {
	text := strings.Repeat("abcdefgh", 400)
	learnt := func(more string, context int64) float64 {
		cal := format.NewCalibration()
		for voter := range uint64(40) {
			r := parseInputs(t, Embeddings, `{"model":"m","input":"`+text+`"`+more+`}`)
			b, err := r.Bound(format.Limits{ContextTokens: context})
			if err != nil {
				t.Fatal(err)
			}
			m := r.Meter(b, cal, format.MeterOptions{Start: time.Now(), Voter: voter + 1})
			if _, err := m.Unary([]byte(`{"data":[{"embedding":[1]}],"usage":{"prompt_tokens":300}}`)); err != nil {
				t.Fatal(err)
			}
			if _, source, _ := m.Final(format.Complete, time.Now()); source != metering.SourceReported {
				t.Fatal(source)
			}
		}
		prompt, _ := cal.BytesPerToken()
		return prompt
	}
	if n := learnt("", 8192); n < 10 {
		t.Errorf("%v bytes per token are learned of a text in full", n)
	}
	for more, context := range map[string]int64{`,"truncate_prompt_tokens":300`: 8192, `,"truncate":true`: 8192, ``: 300} {
		if n := learnt(more, context); n != format.DefaultBytesPerToken {
			t.Errorf("%q within %d: %v bytes per token are learned", more, context, n)
		}
	}
}
