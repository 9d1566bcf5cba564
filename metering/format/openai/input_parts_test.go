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

// A long answer is passed on as it comes. Where it turns out to be none, the results that
// were delivered before are charged, by the share of the texts that they are of.
func TestDeliveredResultsAreCharged(t *testing.T) {
	const (
		texts = `{"model":"m","input":["` + "sixteen bytes ab" + `","` + "sixteen bytes ab" + `","` + "sixteen bytes ab" + `","` + "sixteen bytes ab" + `"]}`
		ids   = `{"model":"m","input":[[1,2,3],[4],[5],[6,7,8,9,10]]}`
		rank  = `{"model":"m","query":"river","documents":["bank","bank","bank","bank"]}`
	)
	vectors := func(last string) string {
		return `{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1]},{"index":2,"embedding":[1]}` + last
	}
	ranks := func(last string) string {
		return `{"results":[{"index":3,"relevance_score":1},{"index":1,"relevance_score":1},{"index":2,"relevance_score":1}` + last
	}
	for name, c := range map[string]struct {
		f              format.Format
		body, document string
		prompt         int64
		documents      int64
	}{
		"null":                 {Embeddings, texts, vectors(`,{"index":3,"embedding":null}]}`), 3 * 6, 0},
		"NaN":                  {Embeddings, texts, vectors(`,{"index":3,"embedding":[NaN]}]}`), 3 * 6, 0},
		"junk":                 {Embeddings, texts, vectors(`,{"index":3,"embedding":"out of memory"}]}`), 3 * 6, 0},
		"twice the same":       {Embeddings, texts, vectors(`,{"index":2,"embedding":[1]}]}`), 3 * 6, 0},
		"missing":              {Embeddings, texts, vectors(`]}`), 3 * 6, 0},
		"missing, with usage":  {Embeddings, texts, vectors(`],"usage":{"prompt_tokens":40}}`), 30, 0},
		"usage of those alone": {Embeddings, texts, vectors(`],"usage":{"prompt_tokens":18}}`), 18, 0},
		"usage of all":         {Embeddings, texts, vectors(`],"usage":{"prompt_tokens":24}}`), 18, 0},
		"beyond the bound":     {Embeddings, texts, vectors(`],"usage":{"prompt_tokens":4000}}`), 60, 0},
		"an error at the end":  {Embeddings, texts, vectors(`],"error":{"message":"boom"}}`), 3 * 6, 0},
		"it breaks off":        {Embeddings, texts, vectors(`,{"index":3,"embe`), 3 * 6, 0},
		"no JSON":              {Embeddings, texts, vectors(`,         }}}`), 3 * 6, 0},
		"ids":                  {Embeddings, ids, vectors(`,{"index":3,"embedding":[]}]}`), 5, 0},
		"ranks":                {Rerank, rank, ranks(`,{"index":0,"relevance_score":null}]}`), 15, 3},
		"without indices":      {Rerank, rank, `{"results":[{"score":1},{"score":null}]}`, 5, 1},
		"nothing good":         {Embeddings, texts, `{"data":[{"index":0,"embedding":[null]}]}`, 0, 0},
		"nothing at all":       {Embeddings, texts, `{"data":[]}`, 0, 0},
		"all in the wrong one": {Embeddings, texts, `{"embeddings":[[1],[1],[1],[1]]}`, 0, 0},
	} {
		r := parseInputs(t, c.f, c.body)
		b, err := r.Bound(format.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		for _, end := range []format.End{format.BackendCut, format.Drained} {
			m, err := inputAnswer(r, b, c.document, 5)
			if err == nil && m.Finished() {
				t.Fatalf("%s: it is taken for an answer", name)
			}
			u, source, _ := m.Final(end, time.Now())
			if u[pricing.InputTokens] != c.prompt || u[pricing.Documents] != c.documents || (u == pricing.Units{}) != (c.prompt == 0) ||
				(source == metering.SourceNone) != (c.prompt == 0) {
				t.Errorf("%s: %v by %s, right are %d tokens and %d documents", name, u, source, c.prompt, c.documents)
			}
			whole, _ := inputAnswer(r, b, c.document, 0)
			if u, _, _ := whole.Final(end, time.Now()); u != (pricing.Units{}) {
				t.Errorf("%s: nothing was delivered, and it costs %v", name, u)
			}
		}
	}
}

// What came within the piece that did not reach the client was not delivered, and the
// tokenizer counts what no usage tells.
func TestDeliveredResultsAreThoseThatWereWritten(t *testing.T) {
	r := parseInputs(t, Embeddings, `{"model":"m","input":["`+strings.Repeat(`text","`, 3)+`text"]}`)
	b, err := r.Bound(format.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	m := r.Meter(b, nil, format.MeterOptions{Start: time.Now()}).(format.Pieces)
	vector := func(i int) []byte { return fmt.Appendf(nil, `{"index":%d,"embedding":[1]},`, i) }
	m.Piece([]byte(`{"data":[`))
	m.Piece(vector(0))
	m.Delivered()
	m.Piece(vector(1))
	m.Piece([]byte(`7]}`))
	if prompt, _, ok := m.NeedsTokenizer(); !m.Failed() || !prompt || !ok {
		t.Errorf("failed %v, and it asks for no count", m.Failed())
	}
	m.Tokenized(20, -1)
	if u, source, _ := m.Final(format.BackendCut, time.Now()); u[pricing.InputTokens] != 5 || source != metering.SourceTokenizer {
		t.Errorf("%v by %s", u, source)
	}
}

// One search of a rerank pays for the first hundred results.
func TestSearchesOfDeliveredResults(t *testing.T) {
	const documents = 250
	r := parseInputs(t, Rerank, `{"model":"m","query":"river","documents":["`+strings.Repeat(`bank","`, documents-1)+`bank"]}`)
	b, err := r.Bound(format.Limits{})
	if err != nil || b.Searches != 3 {
		t.Fatal(b, err)
	}
	for delivered, searches := range map[int]int64{1: 1, 100: 1, 101: 2, 249: 3} {
		m := r.Meter(b, nil, format.MeterOptions{Start: time.Now()}).(format.Pieces)
		m.Piece([]byte(`{"results":[`))
		for i := range delivered {
			m.Piece(fmt.Appendf(nil, `{"index":%d,"relevance_score":1},`, i))
		}
		m.Piece([]byte(`null]}`))
		m.Delivered()
		u, _, _ := m.Final(format.BackendCut, time.Now())
		if u[pricing.Searches] != searches || u[pricing.Documents] != int64(delivered) || u[pricing.Calls] != 1 {
			t.Errorf("%d results: %v", delivered, u)
		}
	}
}

// The beginning of what is no JSON is no part of an answer, and makes no meter fail.
func TestBeginningOfNoJSON(t *testing.T) {
	for _, part := range []string{`{:"`, `{"data":[,`, `[:`, `{"a"`, `{`, ``} {
		r, err := Embeddings.Parse("", []byte(`{"model":"demo","input":"a"}`), func(string) *format.Policy { return new(format.Policy) })
		if err != nil {
			t.Fatal(err)
		}
		m := r.Meter(format.Bound{Input: 9}, nil, format.MeterOptions{})
		if m.UnaryPart([]byte(part)); m.Started() {
			t.Errorf("%q is a part of an answer", part)
		}
	}
}
