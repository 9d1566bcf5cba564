package format

import (
	"encoding/json"
	"fmt"
	"math"

	"sluice.example/sluice/metering/format/rawjson"
)

// CountText is the call that counts a text without special tokens around it; ok
// is false where the backend cannot count.
func CountText(p Profile, model, text string) (q Question, ok bool) {
	q = Question{Path: "/tokenize", Read: ReadCount, Least: LeastTokens(int64(len(text)))}
	body := rawjson.AppendMember(nil, "model", rawjson.Quote(model))
	switch p.Counting {
	case CountVLLM, CountSGLang:
		body = rawjson.AppendMember(rawjson.AppendMember(body, "prompt", rawjson.Quote(text)), "add_special_tokens", []byte("false"))
	case CountTRTLLM:
		q.Path, body = "/_internal/tokenize", rawjson.AppendMember(body, "prompt", rawjson.Quote(text))
	case CountLlamaCpp:
		body = rawjson.AppendMember(rawjson.AppendMember(nil, "content", rawjson.Quote(text)), "add_special", []byte("false"))
	case CountTGI:
		body, q.Read = rawjson.AppendMember(rawjson.AppendMember(nil, "inputs", rawjson.Quote(text)), "add_special_tokens", []byte("false")), ReadList
	default:
		return q, false
	}
	q.Body = append(body, '}')
	return q, true
}

// ReadCount reads the member count (vLLM, SGLang, TensorRT-LLM), else the length
// of the list of tokens (llama.cpp).
func ReadCount(answer []byte) (int64, error) {
	var a struct {
		Count  *int64            `json:"count"`
		Tokens []json.RawMessage `json:"tokens"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrTokenCount, err)
	}
	if a.Count != nil {
		return Believable(*a.Count)
	}
	return Believable(int64(len(a.Tokens)))
}

// ReadList reads an answer that is the list of tokens itself.
func ReadList(answer []byte) (int64, error) {
	var tokens []json.RawMessage
	if err := json.Unmarshal(answer, &tokens); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrTokenCount, err)
	}
	return Believable(int64(len(tokens)))
}

// Believable refuses a count of nothing: only texts that are not empty are asked
// about. A server that does not understand the question answers so.
func Believable(n int64) (int64, error) {
	if n < 1 || n > math.MaxInt32 {
		return 0, fmt.Errorf("%w: %d tokens cannot be", ErrTokenCount, n)
	}
	return n, nil
}
