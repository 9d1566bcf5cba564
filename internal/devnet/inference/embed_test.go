package inference

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// ask posts a body and decodes the answer.
func ask(t *testing.T, url, path, body string, into any) {
	t.Helper()
	resp, err := http.Post(url+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v %s", path, resp.StatusCode, err, content)
	}
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatal(err)
	}
}

func TestReadingTexts(t *testing.T) {
	s, err := New(Config{Record: true})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	tokens := func(text string) int { return len(s.Tokenizer().Encode(text)) }
	type usage struct {
		Prompt int `json:"prompt_tokens"`
		Total  int `json:"total_tokens"`
	}
	var floats struct {
		Data  []struct{ Embedding []float64 }
		Usage usage
	}
	ask(t, srv.URL, "/v1/embeddings", `{"model":"demo","input":["the river","the river","its banks"],"dimensions":16}`, &floats)
	if want := 2*tokens("the river") + tokens("its banks") + 6; floats.Usage.Prompt != want || floats.Usage.Total != want {
		t.Errorf("%+v, right is %d", floats.Usage, want)
	}
	var length float64
	for i, x := range floats.Data[0].Embedding {
		length += x * x
		if floats.Data[1].Embedding[i] != x {
			t.Error("the same text has another vector")
		}
	}
	if len(floats.Data) != 3 || len(floats.Data[0].Embedding) != 16 || math.Abs(length-1) > 1e-5 {
		t.Errorf("%d vectors of length %v", len(floats.Data), length)
	}
	var packed struct {
		Data  []struct{ Embedding string }
		Usage usage
	}
	ask(t, srv.URL, "/v1/embeddings", `{"model":"demo","input":[[1,2,3],[4]],"encoding_format":"base64"}`, &packed)
	if b, err := base64.StdEncoding.DecodeString(packed.Data[0].Embedding); err != nil || len(b) != 4*defaultDimensions || packed.Usage.Prompt != 4 {
		t.Errorf("%d bytes, %v, %+v", len(b), err, packed.Usage)
	}
	var ranked struct {
		Results []struct {
			Index int
			Score float64 `json:"relevance_score"`
		}
		Usage usage
	}
	ask(t, srv.URL, "/v1/rerank", `{"model":"demo","query":"the river","documents":["money","the river"],"top_n":1}`, &ranked)
	if want := tokens("money") + 3*tokens("the river") + 6; len(ranked.Results) != 1 || ranked.Results[0].Index != 1 || ranked.Usage.Prompt != want {
		t.Errorf("%+v, right is %d", ranked, want)
	}
	var scored struct {
		Data  []struct{ Score float64 }
		Usage usage
	}
	ask(t, srv.URL, "/v1/score", `{"model":"demo","text_1":"the river","text_2":"the river"}`, &scored)
	if len(scored.Data) != 1 || math.Abs(scored.Data[0].Score-1) > 1e-5 || scored.Usage.Prompt != 2*tokens("the river")+3 {
		t.Errorf("%+v", scored)
	}
	if r := s.Requests(); len(r) != 4 || r[3].PromptTokens != scored.Usage.Prompt || r[3].Outcome != "complete" {
		t.Errorf("%+v", r)
	}
}
