package openai

import (
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// Rerank is POST /v1/rerank, as Cohere, Jina, vLLM, llama.cpp and TEI have it.
var Rerank format.Format = rerank{}

// Score is POST /v1/score, as vLLM and SGLang have it.
var Score format.Format = score{}

type (
	rerank struct{}
	score  struct{}
)

// A model that ranks reads a pair: the query, again with each document, with up to
// four tokens around both, and a mark for the beginning of either.
var (
	rerankAPI = inputAPI{kindOf: rerankKind, strict: strictRank, items: "documents", most: 1000, special: 6, likely: 3}
	scoreAPI  = inputAPI{kindOf: scoreKind, strict: strictRank, items: "documents", most: 1000, special: 6, likely: 3}
)

// Name implements format.Format.
func (rerank) Name() string { return "rerank" }

// Name implements format.Format.
func (score) Name() string { return "score" }

// Paths implements format.Format.
func (rerank) Paths() []string { return []string{"/v1/rerank", "/rerank", "/v2/rerank"} }

// Capability implements format.Kindred: a token for rerank scores as well.
func (score) Capability() string { return rerank{}.Name() }

// Paths implements format.Format.
func (score) Paths() []string { return []string{"/v1/score", "/score"} }

// Smallest implements format.Format.
func (rerank) Smallest() (path, body string) {
	return "/v1/rerank", `{"model":"-","query":"Hi","documents":["Hi"]}`
}

// Smallest implements format.Format.
func (score) Smallest() (path, body string) {
	return "/v1/score", `{"model":"-","text_1":"Hi","text_2":"Hi"}`
}

// searchDocuments is how many documents one search has at most.
const searchDocuments = 100

// searchesFor is how many searches so many documents take.
func searchesFor(documents int64) int64 { return (documents + searchDocuments - 1) / searchDocuments }

// Parse implements format.Format.
func (rerank) Parse(_ string, body []byte, policy func(model string) *format.Policy) (format.Request, error) {
	r := &pairRequest{inputs: inputs{api: &rerankAPI}, kind: results{lists: []string{"results", "data"}, bare: true, read: readScore}}
	if err := r.parse(body, policy, r.readTexts); err != nil {
		return nil, err
	}
	if err := r.pair("query", "documents"); err != nil {
		return nil, err
	}
	if !rawjson.IsString(r.sides[0]) {
		return nil, format.RefuseParam("query", "query must be a text")
	}
	r.searches = searchesFor(r.documents)
	for i := range r.members {
		if m := &r.members[i]; m.key == "top_n" || m.key == "top_k" {
			if n, ok := rawjson.Whole(m.value); ok && n > 0 {
				r.kind.want = min(r.kind.want, n)
			}
		}
	}
	return r, nil
}

// Parse implements format.Format.
func (score) Parse(_ string, body []byte, policy func(model string) *format.Policy) (format.Request, error) {
	r := &pairRequest{inputs: inputs{api: &scoreAPI}, kind: results{lists: []string{"data", "scores"}, read: readScore}}
	if err := r.parse(body, policy, r.readTexts); err != nil {
		return nil, err
	}
	if err := r.pair("text_1", "text_2"); err != nil {
		return nil, err
	}
	return r, nil
}

// rerankKind is the kind of a member of a request to rank. What makes an engine read a
// document in several parts is refused: the query would be read again with each.
func rerankKind(key string) kind {
	switch key {
	case "query", "documents", "texts":
		return kindText
	case "text_1", "text_2", "queries", "items", "data_1", "data_2", "max_chunks_per_doc", "rank_fields":
		return kindForbidden
	}
	return pairKind(key)
}

// scoreKind is the kind of a member of a request to score.
func scoreKind(key string) kind {
	switch key {
	case "text_1", "text_2", "queries", "documents", "query", "items", "data_1", "data_2":
		return kindText
	case "label_token_ids":
		return kindLabels
	}
	return pairKind(key)
}

// pairKind is the kind of a member of a request for scores of pairs.
func pairKind(key string) kind {
	switch key {
	case "model":
		return kindModel
	case "stream":
		return kindNoStream
	case "top_n", "top_k", "max_tokens_per_doc":
		return kindCount
	case "instruction", "instruct":
		return kindRendered
	case "return_documents", "return_text", "raw_scores", "truncate", "truncation", "truncation_direction", "truncation_side",
		"truncate_prompt_tokens", "activation", "use_activation", "softmax", "apply_softmax", "item_first", "encoding_format", "user",
		"cache_salt", "add_special_tokens":
		return kindHarmless
	case "messages", "content", "inputs", "text", "images", "image", "chat_template", "chat_template_kwargs",
		"mm_processor_kwargs", "media_io_kwargs":
		return kindForbidden
	}
	return otherKind(key)
}

func strictRank(key string) bool {
	switch key {
	case "model", "query", "documents", "top_n", "text_1", "text_2":
		return true
	}
	return false
}
