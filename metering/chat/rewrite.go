package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Rewrite is what a request becomes before a backend sees it.
type Rewrite struct {
	Model           string   // the backend's name of the model; empty: the client's
	Cap             int64    // completion tokens per sequence, at least 1; never raises what the client asked for
	ForceUsage      bool     // ask for the usage chunk, whatever the client said
	ContinuousUsage bool     // ask for a usage in every chunk: the backend knows continuous_usage_stats
	Caps            []string // the names under which the cap is written, see Profile.Caps; none: max_tokens
}

// Rewrite is the body to send: the client's fields in their order and byte
// for byte, but for the model, the cap and, on a stream, stream_options. The cap
// is always sent, under the names that the backend knows and under no other: a
// backend may prefer another name's number, or may not know the client's name.
func (r *Request) Rewrite(w Rewrite) []byte {
	out := make([]byte, 0, len(r.body)+len(w.Model)+128)
	w.Cap = max(1, w.Cap)
	if r.cap > 0 {
		w.Cap = min(w.Cap, r.cap)
	}
	optioned := false
	for _, m := range r.members {
		switch m.kind {
		case kindModel:
			if w.Model != "" {
				out = appendMember(out, m.key, quote(w.Model))
				continue
			}
		case kindCap:
			continue
		case kindSequences:
			if isNull(m.value) {
				continue
			}
		case kindOptions:
			if r.stream {
				optioned = true
				out = appendMember(out, m.key, r.options(m.value, w))
				continue
			}
		}
		out = append(separate(out), m.raw...)
	}
	if len(w.Caps) == 0 {
		w.Caps = []string{capTokens}
	}
	for _, name := range w.Caps {
		out = appendMember(out, name, strconv.AppendInt(nil, w.Cap, 10))
	}
	if r.stream && !optioned && (w.ForceUsage || w.ContinuousUsage) {
		out = appendMember(out, "stream_options", r.options([]byte("null"), w))
	}
	return append(out, '}')
}

// options is the client's stream_options, v, with what w forces.
func (r *Request) options(v []byte, w Rewrite) []byte {
	out := make([]byte, 0, len(v)+64)
	for c := members(v); c.more(); {
		start := c.i
		key, _ := c.member()
		switch string(key) {
		case "include_usage", "continuous_usage_stats":
		default:
			out = append(separate(out), c.b[start:c.i]...)
		}
	}
	if w.ForceUsage || r.wantsUsage {
		out = appendMember(out, "include_usage", []byte("true"))
	}
	if w.ContinuousUsage || r.wantsContinuous {
		out = appendMember(out, "continuous_usage_stats", []byte("true"))
	}
	if len(out) == 0 {
		out = append(out, '{')
	}
	return append(out, '}')
}

// separate opens the object out, or adds the comma before its next member.
func separate(out []byte) []byte {
	if len(out) == 0 {
		return append(out, '{')
	}
	return append(out, ',')
}

// appendMember adds a member whose key needs no escapes.
func appendMember(out []byte, key string, value []byte) []byte {
	out = append(separate(out), '"')
	out = append(out, key...)
	out = append(out, '"', ':')
	return append(out, value...)
}

// quote is s as a JSON string.
func quote(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil { // no string fails to encode
		return []byte(`""`)
	}
	return b
}

// TokenizePrompt is the body of a POST /tokenize that counts the prompt of
// this request as the backend will see it (vLLM: TokenizeChatRequest); nil
// where the prompt is more than text, which a tokenizer alone cannot count.
func (r *Request) TokenizePrompt(model string) []byte {
	if r.size.open != "" {
		return nil
	}
	out := appendMember(make([]byte, 0, len(r.body)), "model", quote(model))
	for _, m := range r.members {
		switch m.key {
		case "messages", "tools", "add_generation_prompt", "continue_final_message", "add_special_tokens",
			"chat_template", "chat_template_kwargs", "mm_processor_kwargs", "media_io_kwargs":
			if !isNull(m.value) {
				out = append(separate(out), m.raw...)
			}
		}
	}
	return append(out, '}')
}

// TokenizeText is the body of a POST /tokenize that counts a text without the
// special tokens around it (vLLM: TokenizeCompletionRequest).
func TokenizeText(model, text string) []byte {
	out := appendMember(nil, "model", quote(model))
	out = appendMember(out, "prompt", quote(text))
	return append(appendMember(out, "add_special_tokens", []byte("false")), '}')
}

// ErrTokenCount reports an answer to /tokenize without a usable count.
var ErrTokenCount = errors.New("no token count in the answer of the tokenizer")

// ParseTokenCount is the count in the answer to a POST /tokenize: its member
// count (vLLM, SGLang), else the length of its list of tokens (llama.cpp).
// It fails with ErrTokenCount.
func ParseTokenCount(body []byte) (int64, error) {
	var answer struct {
		Count  *int64            `json:"count"`
		Tokens []json.RawMessage `json:"tokens"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrTokenCount, err)
	}
	switch {
	case answer.Count != nil && *answer.Count >= 0 && *answer.Count <= math.MaxInt32:
		return *answer.Count, nil
	case answer.Count == nil && answer.Tokens != nil:
		return int64(len(answer.Tokens)), nil
	}
	return 0, ErrTokenCount
}
