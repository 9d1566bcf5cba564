package openai

import (
	"testing"
	"time"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// An answer may say the same in two lists. Each result counts once, and the answer is
// whole where one list has all of them, because clients read one.
func TestResultsInSeveralListsCountOnce(t *testing.T) {
	const (
		rank  = `{"model":"m","query":"river","documents":["bank","water"]}`
		score = `{"model":"m","text_1":"a","text_2":["b","c"]}`
		two   = `{"model":"m","input":["hello there","and here"]}`
		one   = `{"index":1,"score":0.9,"meta_info":{"prompt_tokens":6}}`
		other = `{"index":0,"score":0.1,"meta_info":{"prompt_tokens":7}}`
	)
	for name, c := range map[string]struct {
		f              format.Format
		body, document string
		prompt         int64 // 0: it is no answer
	}{
		"one of two in both lists":     {Rerank, rank, `{"results":[` + one + `],"data":[` + one + `]}`, 0},
		"each list has another":        {Rerank, rank, `{"results":[` + one + `],"data":[` + other + `]}`, 0},
		"without indices":              {Rerank, rank, `{"results":[{"score":0.9}],"data":[{"score":0.9}]}`, 0},
		"one in each, of one kind":     {Score, score, `{"data":[{"index":0,"score":0.5}],"scores":[[0.5]]}`, 0},
		"one list is short":            {Rerank, rank, `{"results":[` + one + `],"data":[` + one + `,` + other + `]}`, 13},
		"the second one is short":      {Rerank, rank, `{"results":[` + one + `,` + other + `],"data":[` + one + `]}`, 13},
		"the tokens of both lists":     {Rerank, rank, `{"results":[` + one + `,` + other + `],"data":[` + one + `,` + other + `]}`, 13},
		"the same member twice":        {Embeddings, two, `{"data":[{"embedding":[1]}],"data":[{"embedding":[1]}],"usage":{"prompt_tokens":9}}`, 0},
		"the same member, escaped":     {Embeddings, two, `{"data":[{"embedding":[1]}],"d\u0061ta":[{"embedding":[1]}],"usage":{"prompt_tokens":9}}`, 0},
		"the same member twice, whole": {Embeddings, two, `{"data":[{"embedding":[1]},{"embedding":[1]}],"data":[]}`, 0},
	} {
		r := parseInputs(t, c.f, c.body)
		b, err := r.Bound(format.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		for _, pieces := range []int{0, 5} {
			m, err := inputAnswer(r, b, c.document, pieces)
			switch {
			case c.prompt == 0 && err == nil:
				t.Errorf("%s by %d: it is taken for an answer", name, pieces)
			case c.prompt > 0:
				if u, _, _ := m.Final(format.Complete, time.Now()); err != nil || u[pricing.InputTokens] != c.prompt {
					t.Errorf("%s by %d: %v %v, right is %d", name, pieces, err, u, c.prompt)
				}
			}
		}
	}
}
