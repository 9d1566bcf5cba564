package openai

import (
	"encoding/json"
	"fmt"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// Countable reports whether a tokenizer alone can count the prompt: it is nothing
// but text.
func (r *Request) Countable() bool { return r.size.open == "" && r.size.media == 0 }

// CountPrompt lists the calls that count the prompt of this request at a backend,
// the best first: each alone is enough. None where the backend cannot count, or
// where the prompt is more than text. l says what the template adds, for backends
// that count texts only.
func (r *Request) CountPrompt(p format.Profile, model string, l format.Limits) []format.Question {
	if !r.Countable() {
		return nil
	}
	q := format.Question{Unseen: r.size.unseen, Least: format.LeastTokens(r.denseMessages())}
	switch p.Counting {
	case format.CountVLLM:
		q.Path, q.Body, q.Read = "/tokenize", r.conversation(model, "tools"), format.ReadCount
	case format.CountTGI:
		q.Path, q.Body, q.Read = "/chat_tokenize", r.conversation(model, "tools"), readTGI
	case format.CountTRTLLM:
		q.Path, q.Body, q.Read = "/_internal/tokenize", r.conversation(model), format.ReadCount
		q.Unseen = format.AddSat(q.Unseen, r.size.tools)
	case format.CountSGLang:
		q.Path, q.Body, q.Read = "/tokenize", r.text(model), format.ReadCount
		q.Template = messageTokens * r.size.messages
		q.Unseen = format.AddSat(r.size.bytes()-r.size.prose, format.AddSat(max(0, l.TemplateBase), format.MulSat(max(0, l.TemplatePerMessage), r.size.messages)))
	case format.CountLlamaCpp:
		q.Path, q.Body, q.Read = "/v1/chat/completions/input_tokens", r.conversation(model, "tools", "reasoning_effort"), readInputTokens
		older := q
		older.Path, older.Next = "/apply-template", func(answer []byte) (format.Question, error) { return countTemplated(model, answer) }
		return []format.Question{q, older}
	default:
		return nil
	}
	return []format.Question{q}
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

// countTemplated goes on with llama.cpp's answer to /apply-template: the text that
// the template made of a conversation.
func countTemplated(model string, answer []byte) (format.Question, error) {
	var templated struct {
		Prompt string `json:"prompt"`
	}
	if err := json.Unmarshal(answer, &templated); err != nil || templated.Prompt == "" {
		return format.Question{}, format.ErrTokenCount
	}
	body := rawjson.AppendMember(rawjson.AppendMember(nil, "content", rawjson.Quote(templated.Prompt)), "add_special", []byte("true"))
	body = rawjson.AppendMember(rawjson.AppendMember(body, "parse_special", []byte("true")), "model", rawjson.Quote(model))
	return format.Question{Path: "/tokenize", Body: append(body, '}'), Read: format.ReadCount}, nil
}

// readInputTokens reads llama.cpp's count of a conversation.
func readInputTokens(answer []byte) (int64, error) {
	var a struct {
		InputTokens int64 `json:"input_tokens"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return 0, fmt.Errorf("%w: %w", format.ErrTokenCount, err)
	}
	return format.Believable(a.InputTokens)
}

// readTGI reads TGI's count of a conversation: a list of tokens.
func readTGI(answer []byte) (int64, error) {
	var a struct {
		Tokens json.RawMessage `json:"tokenize_response"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return 0, fmt.Errorf("%w: %w", format.ErrTokenCount, err)
	}
	return format.ReadList(a.Tokens)
}
