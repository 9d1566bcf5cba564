package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"sluice.example/sluice/metering/format/rawjson"
)

// Question is one call that makes a backend count tokens without generating any.
type Question struct {
	Path string // of a POST at the backend
	Body []byte // JSON

	unseen   int64 // tokens that the call is not shown: at most
	template int64 // and likely
	least    int64 // a smaller count cannot be true
	read     func(answer []byte) (int64, error)
	next     func(answer []byte) (Question, error) // the call that goes on with the answer; nil: read has the count
}

// Likely is the number of tokens of a prompt of which this question counted n:
// what it was not shown is added as it usually is.
func (q *Question) Likely(n int64) int64 { return addSat(n, q.template) }

// ErrTokenCount reports an answer of a tokenizer without a count that can be
// true.
var ErrTokenCount = errors.New("no usable token count in the answer of the tokenizer")

// Answer reads the answer to a question: a count of at least 1 token, or another
// question to ask, whose answer has it. It fails with ErrTokenCount; so does a
// count of nothing for a text that is not empty, and one that would need tokens
// longer than any vocabulary has.
func (q *Question) Answer(body []byte) (tokens int64, next *Question, err error) {
	if q.next != nil {
		following, err := q.next(body)
		if err != nil {
			return 0, nil, err
		}
		following.unseen, following.template, following.least = q.unseen, q.template, q.least
		return 0, &following, nil
	}
	if tokens, err = q.read(body); err == nil && tokens < q.least {
		return 0, nil, fmt.Errorf("%w: %d tokens are too few", ErrTokenCount, tokens)
	}
	return tokens, nil, err
}

// longestToken is more bytes than a token has on average in any text: the longest
// runs of spaces in known vocabularies have 128.
const longestToken = 256

// leastTokens is the smallest count that is believed of so many bytes.
func leastTokens(bytes int64) int64 { return max(1, bytes/longestToken) }

// Countable reports whether a tokenizer alone can count the prompt: it is nothing
// but text.
func (r *Request) Countable() bool { return r.size.open == "" && r.size.media == 0 }

// CountPrompt lists the calls that count the prompt of this request at a backend,
// the best first: each alone is enough. None where the backend cannot count, or
// where the prompt is more than text. l says what the template adds, for backends
// that count texts only.
func (r *Request) CountPrompt(p Profile, model string, l Limits) []Question {
	if !r.Countable() {
		return nil
	}
	q := Question{unseen: r.size.unseen, least: leastTokens(r.size.text - messageOverhead*r.size.messages)}
	switch p.Counting {
	case CountVLLM:
		q.Path, q.Body, q.read = "/tokenize", r.conversation(model, "tools"), readCount
	case CountTGI:
		q.Path, q.Body, q.read = "/chat_tokenize", r.conversation(model, "tools"), readTGI
	case CountTRTLLM:
		q.Path, q.Body, q.read = "/_internal/tokenize", r.conversation(model), readCount
		q.unseen = addSat(q.unseen, r.size.tools)
	case CountSGLang:
		q.Path, q.Body, q.read = "/tokenize", r.text(model), readCount
		q.template = messageTokens * r.size.messages
		q.unseen = addSat(r.size.bytes()-r.size.prose, addSat(max(0, l.TemplateBase), mulSat(max(0, l.TemplatePerMessage), r.size.messages)))
	case CountLlamaCpp:
		q.Path, q.Body, q.read = "/v1/chat/completions/input_tokens", r.conversation(model, "tools", "reasoning_effort"), readInputTokens
		older := q
		older.Path, older.next = "/apply-template", func(answer []byte) (Question, error) { return countTemplated(model, answer) }
		return []Question{q, older}
	default:
		return nil
	}
	return []Question{q}
}

// messageTokens is what a template usually adds to a message.
const messageTokens = 4

// conversation is the body of a call that counts a conversation as a backend
// renders it: model, messages, what steers a template, and the fields named.
func (r *Request) conversation(model string, also ...string) []byte {
	out := rawjson.AppendMember(make([]byte, 0, len(r.messages)+256), "model", rawjson.Quote(model))
	for i := range r.members {
		m := &r.members[i]
		switch m.key {
		case "messages":
			out = rawjson.AppendMember(out, m.key, r.messages)
			continue
		case "add_generation_prompt", "continue_final_message", "add_special_tokens", "chat_template_kwargs":
		default:
			if !has(also, m.key) {
				continue
			}
		}
		if !rawjson.IsNull(m.value) {
			out = append(rawjson.Separate(out), m.raw...)
		}
	}
	return append(out, '}')
}

func has(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

// text is the body of a call that counts the plain text of the conversation.
func (r *Request) text(model string) []byte {
	var text []byte
	s := size{sink: &text}
	s.addMessages(r.messages)
	out := rawjson.AppendMember(nil, "model", rawjson.Quote(model))
	return append(rawjson.AppendMember(out, "prompt", rawjson.Quote(string(text))), '}')
}

// CountText is the call that counts a text without special tokens around it; ok
// is false where the backend cannot count.
func CountText(p Profile, model, text string) (q Question, ok bool) {
	q = Question{Path: "/tokenize", read: readCount, least: leastTokens(int64(len(text)))}
	body := rawjson.AppendMember(nil, "model", rawjson.Quote(model))
	switch p.Counting {
	case CountVLLM, CountSGLang:
		body = rawjson.AppendMember(rawjson.AppendMember(body, "prompt", rawjson.Quote(text)), "add_special_tokens", []byte("false"))
	case CountTRTLLM:
		q.Path, body = "/_internal/tokenize", rawjson.AppendMember(body, "prompt", rawjson.Quote(text))
	case CountLlamaCpp:
		body = rawjson.AppendMember(rawjson.AppendMember(nil, "content", rawjson.Quote(text)), "add_special", []byte("false"))
	case CountTGI:
		body, q.read = rawjson.AppendMember(rawjson.AppendMember(nil, "inputs", rawjson.Quote(text)), "add_special_tokens", []byte("false")), readList
	default:
		return q, false
	}
	q.Body = append(body, '}')
	return q, true
}

// countTemplated goes on with llama.cpp's answer to /apply-template: the text that
// the template made of a conversation.
func countTemplated(model string, answer []byte) (Question, error) {
	var templated struct {
		Prompt string `json:"prompt"`
	}
	if err := json.Unmarshal(answer, &templated); err != nil || templated.Prompt == "" {
		return Question{}, ErrTokenCount
	}
	body := rawjson.AppendMember(rawjson.AppendMember(nil, "content", rawjson.Quote(templated.Prompt)), "add_special", []byte("true"))
	body = rawjson.AppendMember(rawjson.AppendMember(body, "parse_special", []byte("true")), "model", rawjson.Quote(model))
	return Question{Path: "/tokenize", Body: append(body, '}'), read: readCount}, nil
}

// readCount reads the member count (vLLM, SGLang, TensorRT-LLM), else the length
// of the list of tokens (llama.cpp).
func readCount(answer []byte) (int64, error) {
	var a struct {
		Count  *int64            `json:"count"`
		Tokens []json.RawMessage `json:"tokens"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrTokenCount, err)
	}
	if a.Count != nil {
		return believable(*a.Count)
	}
	return believable(int64(len(a.Tokens)))
}

// readInputTokens reads llama.cpp's count of a conversation.
func readInputTokens(answer []byte) (int64, error) {
	var a struct {
		InputTokens int64 `json:"input_tokens"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrTokenCount, err)
	}
	return believable(a.InputTokens)
}

// readTGI reads TGI's count of a conversation: a list of tokens.
func readTGI(answer []byte) (int64, error) {
	var a struct {
		Tokens json.RawMessage `json:"tokenize_response"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrTokenCount, err)
	}
	return readList(a.Tokens)
}

// readList reads an answer that is the list of tokens itself.
func readList(answer []byte) (int64, error) {
	var tokens []json.RawMessage
	if err := json.Unmarshal(answer, &tokens); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrTokenCount, err)
	}
	return believable(int64(len(tokens)))
}

// believable refuses a count of nothing: only texts that are not empty are asked
// about. A server that does not understand the question answers so.
func believable(n int64) (int64, error) {
	if n < 1 || n > math.MaxInt32 {
		return 0, fmt.Errorf("%w: %d tokens cannot be", ErrTokenCount, n)
	}
	return n, nil
}
