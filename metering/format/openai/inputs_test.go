package openai

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

func noPolicy(string) *format.Policy { return new(format.Policy) }

// parseInputs parses a request of an API that reads texts.
func parseInputs(t testing.TB, f format.Format, body string) format.Request {
	t.Helper()
	r, err := f.Parse(f.Paths()[0], []byte(body), noPolicy)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return r
}

func TestInputBounds(t *testing.T) {
	limits := format.Limits{ContextTokens: 100, TemplateBase: 1, TemplatePerMessage: 2}
	for _, c := range []struct {
		f                                 format.Format
		body                              string
		input, bytes, searches, documents int64
	}{
		{Embeddings, `{"model":"m","input":"hello"}`, 1 + 5 + 4 + 2, 5, 0, 0},
		{Embeddings, `{"model":"m","input":["hello","h\u00e4"],"encoding_format":"base64","user":"u","dimensions":8}`, 1 + 11 + 9, 8, 0, 0},
		{Embeddings, `{"model":"m","input":[1,2,3]}`, 1 + 3, 0, 0, 0},
		{Embeddings, `{"model":"m","input":[[1,2],[3]]}`, 1 + 3, 0, 0, 0},
		{Embeddings, `{"model":"m","input":["` + strings.Repeat("a", 500) + `","b"]}`, 1 + 100 + 7, 501, 0, 0},
		{Embeddings, `{"model":"m","input":"hello","input_type":"query"}`, 1 + 11 + 32 + 7, 5, 0, 0},
		{Rerank, `{"model":"m","query":"river","documents":["bank",{"text":"water"}],"top_n":1}`, 1 + 9 + 8 + 10 + 8, 19, 1, 2},
		{Rerank, `{"model":"m","query":"river","texts":["bank"],"truncate":true}`, 1 + 9 + 8, 9, 1, 1},
		{Rerank, `{"model":"m","query":"q","documents":[` + strings.Repeat(`"a",`, 100) + `"a"]}`, 1 + 101*10, 202, 2, 101},
		{Rerank, `{"model":"m","query":"river","documents":["bank"],"instruction":"rank"}`, 1 + 9 + 8 + 4, 9, 1, 1},
		{Score, `{"model":"m","text_1":"ab","text_2":["c","de"]}`, 1 + 3 + 8 + 4 + 8, 7, 0, 2},
		{Score, `{"model":"m","queries":["ab","c"],"documents":["d","ef"]}`, 1 + 3 + 8 + 3 + 8, 6, 0, 2},
		{Score, `{"model":"m","query":"ab","items":["c"],"label_token_ids":[1,2],"apply_softmax":true}`, 1 + 3 + 8, 3, 0, 1},
	} {
		r := parseInputs(t, c.f, c.body)
		b, err := r.Bound(limits)
		want := format.Bound{Sequences: 1, Input: c.input, Searches: c.searches, Documents: c.documents, Each: 100}
		if err != nil || b != want || r.PromptBytes() != c.bytes {
			t.Errorf("%.80s: %+v, %d bytes, %v; right is %+v", c.body, b, r.PromptBytes(), err, want)
		}
		if r.Stream() || !r.HasCap() || r.Fit(b, limits) != b || r.Model() != "m" {
			t.Errorf("%.80s: it has no completion", c.body)
		}
	}
}

func TestInputRefusals(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat(`"a",`, 2049), ",")
	for _, c := range []struct {
		f           format.Format
		body, param string
	}{
		{Embeddings, `{"input":"a"}`, "model"},
		{Embeddings, `{"model":"m"}`, "input"},
		{Embeddings, `{"model":"m","input":[]}`, "input"},
		{Embeddings, `{"model":"m","input":[[]]}`, "input"},
		{Embeddings, `{"model":"m","input":[1,"a"]}`, "input"},
		{Embeddings, `{"model":"m","input":[1.5]}`, "input"},
		{Embeddings, `{"model":"m","input":[-1]}`, "input"},
		{Embeddings, `{"model":"m","input":[{"image":"a"}]}`, "input"},
		{Embeddings, `{"model":"m","input":7}`, "input"},
		{Embeddings, `{"model":"m","input":[` + many + `]}`, "input"},
		{Embeddings, `{"model":"m","input":"a","stream":true}`, "stream"},
		{Embeddings, `{"model":"m","input":"a","encoding_format":"bytes"}`, "encoding_format"},
		{Embeddings, `{"model":"m","input":"a","messages":[{}]}`, "messages"},
		{Embeddings, `{"model":"m","input":"a","content":"b"}`, "content"},
		{Embeddings, `{"model":"m","input":"a","prompt_embeds":"b"}`, "prompt_embeds"},
		{Embeddings, `{"model":"m","input":"a","prompt_name":"query"}`, "prompt_name"},
		{Embeddings, `{"model":"m","input":"a","Input":"b"}`, "Input"},
		{Embeddings, `{"model":"m","input":"a","input":"b"}`, "input"},
		{Embeddings, `{"model":"m","input":"a","dimensions":"8"}`, "dimensions"},
		{Embeddings, `{"model":"m","input":"a","user":{"a":1}}`, "user"},
		{Rerank, `{"model":"m","query":"a"}`, "documents"},
		{Rerank, `{"model":"m","documents":["a"]}`, "query"},
		{Rerank, `{"model":"m","query":["a"],"documents":["a"]}`, "query"},
		{Rerank, `{"model":"m","query":"a","documents":["a"],"texts":["b"]}`, "texts"},
		{Rerank, `{"model":"m","query":"a","documents":[{"image":"a"}]}`, "documents"},
		{Rerank, `{"model":"m","query":"a","documents":[{"text":"a","more":"b"}]}`, "documents"},
		{Rerank, `{"model":"m","query":"a","documents":[]}`, "documents"},
		{Rerank, `{"model":"m","query":"a","documents":["a"],"max_chunks_per_doc":3}`, "max_chunks_per_doc"},
		{Score, `{"model":"m","text_1":["a","b"],"text_2":["a","b","c"]}`, "text_1"},
		{Score, `{"model":"m","text_1":"a"}`, "text_2"},
	} {
		r, err := c.f.Parse(c.f.Paths()[0], []byte(c.body), noPolicy)
		if err == nil {
			_, err = r.Bound(format.Limits{})
		}
		var refused *format.RequestError
		if !errors.As(err, &refused) || refused.Param != c.param {
			t.Errorf("%.80s: %v (%+v), want it to name %s", c.body, err, refused, c.param)
		}
	}
	r := parseInputs(t, Embeddings, `{"model":"m","input":["a","b"]}`)
	if _, err := r.Bound(format.Limits{MaxItems: 1}); err == nil {
		t.Error("an owner's limit is ignored")
	}
}

func TestInputRewrite(t *testing.T) {
	r := parseInputs(t, Embeddings, `{"model":"m", "input" : ["a"],"user":"u","normalize":true,"priority":3,"stream":false,"dimensions":null,"encoding_format":"base64"}`)
	for engine, want := range map[format.Engine]string{
		format.EngineVLLM:   `{"model":"up","input" : ["a"],"user":"u","normalize":true,"encoding_format":"base64"}`,
		format.EngineOpenAI: `{"model":"up","input" : ["a"],"user":"u","encoding_format":"base64"}`,
	} {
		if got := string(r.Rewrite(format.Rewrite{Model: "up", Cap: 9, Profile: format.ProfileOf(engine)})); got != want {
			t.Errorf("%s: %s", engine, got)
		}
	}
}

// inputAnswer reads an answer whole or, for pieces above 0, piece by piece.
func inputAnswer(r format.Request, b format.Bound, document string, pieces int) (format.Meter, error) {
	m := r.Meter(b, nil, format.MeterOptions{Start: time.Now()})
	if pieces == 0 {
		_, err := m.Unary([]byte(document))
		return m, err
	}
	p := m.(format.Pieces)
	for piece := range slices.Chunk([]byte(document), pieces) {
		p.Piece(piece)
		if p.Failed() {
			return m, errors.New("failed on the way")
		}
		p.Delivered()
	}
	return m, p.PiecesEnd()
}

func TestInputAnswers(t *testing.T) {
	const (
		two    = `{"model":"m","input":["hello there","and here"]}`
		packed = `{"model":"m","input":"hello","encoding_format":"base64"}`
		rank   = `{"model":"m","query":"river","documents":["bank","water"]}`
	)
	for _, c := range []struct {
		name           string
		f              format.Format
		body, document string
		prompt         int64 // 0: it is no answer
		source         metering.Source
	}{
		{"usage", Embeddings, two, `{"object":"list","data":[{"index":0,"embedding":[0.1,0.2]},{"index":1,"embedding":[[1]]}],"usage":{"prompt_tokens":9,"total_tokens":9}}`, 9, metering.SourceReported},
		{"only a total", Embeddings, two, `{"data":[{"embedding":[0.1]},{"embedding":[1]}],"usage":{"total_tokens":8}}`, 8, metering.SourceReported},
		{"a usage of zeros", Embeddings, two, `{"data":[{"embedding":[0.1]},{"embedding":[1]}],"usage":{"prompt_tokens":0,"total_tokens":0}}`, 5 + 4, metering.SourceCounted},
		{"no usage", Embeddings, two, "\n {\"data\":[{\"embedding\":[0.5,NaN]},{\"embedding\":[1]}]}\n", 5 + 4, metering.SourceCounted},
		{"beyond the bound", Embeddings, two, `{"data":[{"embedding":[0.1]},{"embedding":[1]}],"usage":{"prompt_tokens":999}}`, 27, metering.SourceReported},
		{"ids", Embeddings, `{"model":"m","input":[[1,2],[3]]}`, `{"data":[{"embedding":[0.1]},{"embedding":[1]}]}`, 3, metering.SourceCounted},
		{"too few", Embeddings, two, `{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":9}}`, 0, ""},
		{"base64 as asked", Embeddings, packed, `{"data":[{"index":0,"embedding":"AACAPwAAAD8="}],"usage":{"prompt_tokens":3}}`, 3, metering.SourceReported},
		{"base64 without an end", Embeddings, packed, `{"data":[{"index":0,"embedding":"AACA\/wAAAD8"}],"usage":{"prompt_tokens":3}}`, 3, metering.SourceReported},
		{"much base64", Embeddings, packed, `{"data":[{"index":0,"embedding":"` + strings.Repeat("AACA", 999) + `"}],"usage":{"prompt_tokens":3}}`, 3, metering.SourceReported},
		{"no base64", Embeddings, packed, `{"data":[{"index":0,"embedding":"error: out of memory"}],"usage":{"prompt_tokens":3}}`, 0, ""},
		{"a word for base64", Embeddings, packed, `{"data":[{"index":0,"embedding":"null"}],"usage":{"prompt_tokens":3}}`, 0, ""},
		{"base64 with a gap", Embeddings, packed, `{"data":[{"index":0,"embedding":"AACA==AAAACA"}],"usage":{"prompt_tokens":3}}`, 0, ""},
		{"base64 unasked", Embeddings, `{"model":"m","input":"hello"}`, `{"data":[{"index":0,"embedding":"AACAPwAAAD8="}],"usage":{"prompt_tokens":3}}`, 0, ""},
		{"vectors by type", Embeddings, `{"model":"m","input":"hello"}`, `{"data":[{"index":0,"embedding":{"float":[0.1]}}],"usage":{"prompt_tokens":3}}`, 3, metering.SourceReported},
		{"in any order", Embeddings, two, `{"data":[{"embedding":[0.1],"index":1},{"embedding":[1],"index":0}],"usage":{"prompt_tokens":9}}`, 9, metering.SourceReported},
		{"of nulls", Embeddings, two, `{"data":[{"embedding":[0.1]},{"embedding":[null,null]}],"usage":{"prompt_tokens":9}}`, 0, ""},
		{"of NaN", Embeddings, two, `{"data":[{"embedding":[0.1]},{"embedding":[NaN,NaN]}],"usage":{"prompt_tokens":9}}`, 0, ""},
		{"of texts", Embeddings, two, `{"data":[{"embedding":[0.1]},{"embedding":["a","b"]}],"usage":{"prompt_tokens":9}}`, 0, ""},
		{"of lists of nothing", Embeddings, two, `{"data":[{"embedding":[[0.1]]},{"embedding":[[]]}],"usage":{"prompt_tokens":9}}`, 0, ""},
		{"twice the same", Embeddings, two, `{"data":[{"index":1,"embedding":[0.1]},{"index":1,"embedding":[1]}],"usage":{"prompt_tokens":9}}`, 0, ""},
		{"beyond the texts", Embeddings, two, `{"data":[{"index":0,"embedding":[0.1]},{"index":2,"embedding":[1]}],"usage":{"prompt_tokens":9}}`, 0, ""},
		{"below the texts", Embeddings, two, `{"data":[{"index":0,"embedding":[0.1]},{"index":-1,"embedding":[1]}],"usage":{"prompt_tokens":9}}`, 0, ""},
		{"an empty one", Embeddings, two, `{"data":[{"embedding":[0.1]},{"embedding":[]}],"usage":{"prompt_tokens":9}}`, 0, ""},
		{"a list", Embeddings, two, `[{"embedding":[0.1]},{"embedding":[1]}]`, 0, ""},
		{"an error", Embeddings, two, `{"error":{"message":"out of memory","code":500}}`, 0, ""},
		{"an error beside data", Embeddings, two, `{"data":[{"embedding":[0.1]},{"embedding":[1]}],"error":"boom"}`, 0, ""},
		{"no JSON", Embeddings, two, `{"data":[{"embedding":[0.1]},`, 0, ""},
		{"a page", Embeddings, two, `<html>`, 0, ""},
		{"vLLM", Rerank, rank, `{"id":"r","model":"m","usage":{"total_tokens":14},"results":[{"index":1,"document":{"text":"water"},"relevance_score":0.9},{"index":0,"relevance_score":0.1}]}`, 14, metering.SourceReported},
		{"Cohere", Rerank, rank, `{"results":[{"index":1,"relevance_score":0.9},{"index":0,"relevance_score":0.1}],"meta":{"billed_units":{"search_units":1},"tokens":{"input_tokens":12}}}`, 12, metering.SourceReported},
		{"Cohere without tokens", Rerank, rank, `{"results":[{"index":1,"relevance_score":0.9},{"index":0,"relevance_score":0.1}],"meta":{"billed_units":{"search_units":1}}}`, 5 + 6, metering.SourceCounted},
		{"TEI", Rerank, `{"model":"m","query":"river","texts":["bank","water"]}`, `[{"index":1,"score":0.9},{"index":0,"score":0.1}]`, 5 + 6, metering.SourceCounted},
		{"SGLang", Rerank, rank, `[{"score":0.9,"index":0,"meta_info":{"prompt_tokens":6}},{"score":0.1,"index":1,"meta_info":{"prompt_tokens":7}}]`, 13, metering.SourceReported},
		{"SGLang, the best", Rerank, `{"model":"m","query":"river","documents":["bank of the river","water"],"top_n":1}`, `[{"index":0,"score":0.9,"meta_info":{"prompt_tokens":6}}]`, 14, metering.SourceCounted},
		{"the best", Rerank, `{"model":"m","query":"river","documents":["bank","water"],"top_n":1}`, `{"results":[{"index":1,"relevance_score":0.9}],"usage":{"total_tokens":14}}`, 14, metering.SourceReported},
		{"in two lists", Rerank, rank, `{"results":[{"index":1,"score":0.9},{"index":0,"score":0.1}],"data":[{"index":1,"score":0.9},{"index":0,"score":0.1}],"usage":{"total_tokens":14}}`, 14, metering.SourceReported},
		{"a document twice", Rerank, rank, `{"results":[{"index":1,"relevance_score":0.9},{"index":1,"relevance_score":0.1}],"usage":{"total_tokens":14}}`, 0, ""},
		{"scores of null", Rerank, rank, `{"results":[{"index":1,"relevance_score":null},{"index":0,"relevance_score":null}],"usage":{"total_tokens":14}}`, 0, ""},
		{"scores of NaN", Score, `{"model":"m","text_1":"a","text_2":["b","c"]}`, `{"data":[{"index":0,"score":NaN},{"index":1,"score":NaN}],"usage":{"prompt_tokens":6}}`, 0, ""},
		{"lists of NaN", Score, `{"model":"m","query":"a","items":["b","c"]}`, `{"scores":[[NaN],[NaN]],"usage":{"prompt_tokens":6}}`, 0, ""},
		{"one of two", Rerank, rank, `{"results":[{"index":1,"relevance_score":0.9}],"usage":{"total_tokens":14}}`, 0, ""},
		{"vLLM score", Score, `{"model":"m","text_1":"a","text_2":["b","c"]}`, `{"object":"list","data":[{"index":0,"object":"score","score":0.5},{"index":1,"score":1}],"usage":{"prompt_tokens":6,"total_tokens":6,"completion_tokens":0}}`, 6, metering.SourceReported},
		{"SGLang score", Score, `{"model":"m","query":"a","items":["b","c"]}`, `{"scores":[[0.1,0.9],[1,0]],"object":"scoring","usage":{"prompt_tokens":6,"total_tokens":6}}`, 6, metering.SourceReported},
	} {
		r := parseInputs(t, c.f, c.body)
		b, err := r.Bound(format.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		for _, pieces := range []int{0, 1, 5, 4096} {
			m, err := inputAnswer(r, b, c.document, pieces)
			end := format.Complete
			if err != nil {
				end = format.BackendCut
			}
			u, source, clamped := m.Final(end, time.Now())
			if c.prompt == 0 {
				if err == nil || pieces == 0 && u != (pricing.Units{}) {
					t.Errorf("%s by %d: %v %+v", c.name, pieces, err, u)
				}
				continue
			}
			if err != nil || u[pricing.InputTokens] != c.prompt || source != c.source || u[pricing.Calls] != 1 ||
				u[pricing.Documents] != b.Documents || u[pricing.Searches] != b.Searches || clamped != (m.Excess().Prompt > 0) {
				t.Errorf("%s by %d: %v %v %s, right is %d %s", c.name, pieces, err, u, source, c.prompt, c.source)
			}
		}
	}
}

// An answer that its client left costs its prompt, and nothing where the backend
// showed no sign of life.
func TestInputAnswersLeft(t *testing.T) {
	r := parseInputs(t, Embeddings, `{"model":"m","input":["hello there","and here"]}`)
	b, _ := r.Bound(format.Limits{})
	for name, c := range map[string]struct {
		part   string
		silent bool
		end    format.End
		prompt int64
	}{
		"nothing came":          {"", false, format.UnaryClientGone, 9},
		"the backend is silent": {"", true, format.UnaryClientGone, 0},
		"a part came":           {`{"data":[{"embe`, false, format.UnaryClientGone, 9},
		"no more GPU time":      {`{"data":[{"embe`, false, format.HoldExhausted, 9},
		"the backend broke off": {`{"data":[{"embe`, false, format.BackendCut, 0},
		"the gateway stops":     {`{"data":[{"embe`, false, format.Drained, 0},
	} {
		m := r.Meter(b, nil, format.MeterOptions{Start: time.Now()}).(format.Pieces)
		if c.part != "" {
			m.Piece([]byte(c.part))
			if u, _ := m.Running(); u[pricing.InputTokens] != 9 {
				t.Errorf("%s: running %v", name, u)
			}
		}
		if c.silent {
			m.Silent()
		}
		if prompt, _, ok := m.NeedsTokenizer(); !prompt || !ok {
			t.Errorf("%s: it does not ask for a count", name)
		}
		if u, _, _ := m.Final(c.end, time.Now()); u[pricing.InputTokens] != c.prompt {
			t.Errorf("%s: %v, right is %d", name, u, c.prompt)
		}
	}
}

// The questions of a batch count all of its texts, and a query once for each document.
func TestInputQuestions(t *testing.T) {
	vllm := format.ProfileOf(format.EngineVLLM)
	r := parseInputs(t, Embeddings, `{"model":"m","input":["one","two"]}`)
	q := r.CountPrompt(vllm, "up", format.Limits{})
	if len(q) != 1 || !strings.Contains(string(q[0].Body), `"prompt":"one\ntwo"`) || q[0].Unseen != 2*(4+1) || q[0].Likely(5) != 9 {
		t.Fatalf("%+v", q)
	}
	r = parseInputs(t, Rerank, `{"model":"m","query":"river","documents":["bank",{"text":"water"}]}`)
	q = r.CountPrompt(vllm, "up", format.Limits{})
	if len(q) != 1 || !strings.Contains(string(q[0].Body), `"prompt":"bank\nwater"`) {
		t.Fatalf("%+v", q)
	}
	_, next, err := q[0].Answer([]byte(`{"count":3}`))
	if err != nil || next == nil || !strings.Contains(string(next.Body), `"prompt":"river"`) {
		t.Fatalf("%+v %v", next, err)
	}
	if n, _, err := next.Answer([]byte(`{"count":2}`)); err != nil || n != 3+2*2 {
		t.Errorf("%d %v", n, err)
	}
	if q := parseInputs(t, Embeddings, `{"model":"m","input":[1,2]}`).CountPrompt(vllm, "up", format.Limits{}); q != nil {
		t.Errorf("token ids are counted again: %+v", q)
	}
}

// A batch as OpenAI's SDKs send it: 2,048 vectors in base64, 45 MB.
func TestLargestBatchOfEmbeddings(t *testing.T) {
	vector := base64.StdEncoding.EncodeToString(make([]byte, 4*4096))
	texts, data := make([]string, 2048), make([]string, 2048)
	for i := range texts {
		texts[i], data[i] = `"text"`, fmt.Sprintf(`{"object":"embedding","index":%d,"embedding":%q}`, i, vector)
	}
	r := parseInputs(t, Embeddings, `{"model":"m","encoding_format":"base64","input":[`+strings.Join(texts, ",")+`]}`)
	b, err := r.Bound(format.Limits{})
	if err != nil || b.Input != 2048*8 {
		t.Fatalf("%+v %v", b, err)
	}
	m := r.Meter(b, nil, format.MeterOptions{}).(format.Pieces)
	document := []byte(`{"object":"list","data":[` + strings.Join(data, ",") + `],"usage":{"prompt_tokens":6144,"total_tokens":6144}}`)
	if n := testing.AllocsPerRun(1, func() {
		m = r.Meter(b, nil, format.MeterOptions{}).(format.Pieces)
		for piece := range slices.Chunk(document, 64<<10) {
			m.Piece(piece)
		}
	}); n > 200 {
		t.Errorf("%v allocations", n)
	}
	if err := m.PiecesEnd(); err != nil {
		t.Fatal(err)
	}
	if u, s, _ := m.Final(format.Complete, time.Now()); u[pricing.InputTokens] != 6144 || s != metering.SourceReported {
		t.Errorf("%v %s", u, s)
	}
}
