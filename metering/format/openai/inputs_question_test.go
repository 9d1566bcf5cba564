package openai

import (
	"runtime"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
)

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// No text is copied for a tokenizer that there is not, that has nothing to count, or that
// is not asked yet.
func TestTextsAreJoinedOnlyWhereTheyAreCounted(t *testing.T) {
	const size = 1 << 20
	long := strings.Repeat("abcdefgh", size/8)
	none, vllm := format.ProfileOf(format.EngineOllama), format.ProfileOf(format.EngineVLLM)
	for name, c := range map[string]struct {
		f       format.Format
		body    string
		profile format.Profile
	}{
		"embeddings": {Embeddings, `{"model":"m","input":["` + long + `","b"]}`, none},
		"rerank":     {Rerank, `{"model":"m","query":"` + long + `","documents":["` + long + `"]}`, none},
		"score":      {Score, `{"model":"m","text_1":"` + long + `","text_2":["` + long + `"]}`, none},
		"token ids":  {Embeddings, `{"model":"m","input":[1` + strings.Repeat(",1", size/2) + `]}`, vllm},
		"the query, before the documents are counted": {Rerank, `{"model":"m","query":"` + long + `","documents":["a"]}`, vllm},
	} {
		r := parseInputs(t, c.f, c.body)
		if n := allocated(func() { r.CountPrompt(c.profile, "up", format.Limits{}) }); n > size/4 {
			t.Errorf("%s: %d bytes are allocated", name, n)
		}
	}
}
