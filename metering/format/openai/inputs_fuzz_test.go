package openai

import (
	"testing"
	"time"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// FuzzInputs: what a backend gets of a request that has texts read is the same request,
// no charge exceeds its bound, and the pieces in which an answer comes change nothing.
func FuzzInputs(f *testing.F) {
	f.Add(0, []byte(`{"model":"m","input":["a","b\u00e4"],"user":"u"}`), []byte(`{"data":[{"embedding":[1]},{"embedding":"A"}],"usage":{"prompt_tokens":9}}`))
	f.Add(1, []byte(`{"model":"m","query":"a","texts":["b",{"text":"c"}],"top_n":1}`), []byte(`[{"index":0,"score":NaN,"meta_info":{"prompt_tokens":3}}]`))
	f.Add(2, []byte(`{"model":"m","text_1":["a"],"text_2":"c"}`), []byte(`{"scores":[[1,0]],"meta":{"tokens":{"input_tokens":-4}}}`))
	f.Fuzz(func(t *testing.T, which int, body, document []byte) {
		api := []format.Format{Embeddings, Rerank, Score}[uint(which)%3]
		r, err := api.Parse(api.Paths()[0], body, noPolicy)
		if err != nil {
			return
		}
		limits := format.Limits{ContextTokens: 1000, TemplateBase: 2, TemplatePerMessage: 1}
		b, err := r.Bound(limits)
		if err != nil {
			return
		}
		sent := r.Rewrite(format.Rewrite{Model: "m2", Profile: format.ProfileOf(format.EngineVLLM)})
		again, err := api.Parse(api.Paths()[0], sent, noPolicy)
		if err != nil {
			t.Fatalf("%s became %s, which is refused: %v", body, sent, err)
		}
		if b2, err := again.Bound(limits); err != nil || b2 != b || again.Model() != "m2" {
			t.Fatalf("%s became %s: %+v, then %+v %v", body, sent, b, b2, err)
		}
		for _, q := range r.CountPrompt(format.ProfileOf(format.EngineVLLM), "m", limits) {
			_, _, _ = q.Answer([]byte(`{"count":3}`))
		}
		whole, err := inputAnswer(r, b, string(document), 0)
		end := format.Complete
		if err != nil {
			end = format.BackendCut
		}
		u, _, _ := whole.Final(end, time.Time{})
		if u[pricing.InputTokens] > b.Input || u[pricing.CachedInputTokens] > u[pricing.InputTokens] || err != nil && u != (pricing.Units{}) {
			t.Fatalf("%s for %s: %v, %v", document, body, u, err)
		}
		pieces, err2 := inputAnswer(r, b, string(document), 3)
		u2, _, _ := pieces.Final(end, time.Time{})
		if err == nil && (err2 != nil || u2[pricing.InputTokens] != u[pricing.InputTokens]) ||
			u2[pricing.InputTokens] > b.Input || u2[pricing.Documents] > b.Documents || u2[pricing.Searches] > b.Searches {
			t.Fatalf("%s for %s: %v, in pieces %v %v", document, body, u, u2, err2)
		}
	})
}
