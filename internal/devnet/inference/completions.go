package inference

import (
	"bytes"
	"net/http"
)

// textPrompt is one prompt of a request for completions.
type textPrompt struct {
	text   string
	tokens int
}

// textCap is how many tokens a completion has at most when the request gives no number.
const textCap = 16

func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	s.generate(w, r, "cmpl-", s.parseCompletion)
}

// parseCompletion reads a request for completions. Each prompt of the request gets n completions.
func (s *Server) parseCompletion(o object) (*chatRequest, error) {
	for _, field := range []string{"suffix", "echo"} {
		if v := string(o[field]); v != "" && v != "null" && v != "false" && v != `""` {
			return nil, badRequest("%s is not currently supported", field)
		}
	}
	q, err := s.parseCommon(o)
	if err != nil {
		return nil, err
	}
	if q.bestOf > q.choices {
		return nil, badRequest("best_of above n is not supported.")
	}
	if err := s.parsePrompts(q, o["prompt"]); err != nil {
		return nil, err
	}
	q.perPrompt = q.choices
	q.choices *= len(q.prompts)
	if q.bestOf = q.choices; q.choices > s.cfg.Slots {
		return nil, badRequest("prompts and n are limited to the %d slots of this server.", s.cfg.Slots)
	}
	if q.maxTokens == 0 {
		q.maxTokens = textCap
	}
	for _, p := range q.prompts {
		if p.tokens == 0 || p.tokens+q.maxTokens > s.cfg.MaxModelLen {
			return nil, badRequest("This model's maximum context length is %d tokens. However, you requested %d tokens (%d in the prompt, %d in the completion). Please reduce the length of the prompt or completion.",
				s.cfg.MaxModelLen, p.tokens+q.maxTokens, p.tokens, q.maxTokens)
		}
	}
	return q, nil
}

// parsePrompts reads the prompts of a request: one text, several texts, the tokens of one prompt,
// or the tokens of several prompts.
func (s *Server) parsePrompts(q *chatRequest, raw []byte) error {
	prompt := object{"one": raw, "several": raw}
	var texts []string
	var lists [][]int
	inner, list := bytes.CutPrefix(raw, []byte("["))
	inner = bytes.TrimSpace(inner)
	switch {
	case len(inner) == 0:
		return badRequest("prompt must be given.")
	case !list:
		texts = make([]string, 1)
		if err := prompt.get("one", &texts[0]); err != nil {
			return err
		}
	case inner[0] == '"':
		if err := prompt.get("several", &texts); err != nil {
			return err
		}
	case inner[0] == '[':
		if err := prompt.get("several", &lists); err != nil {
			return err
		}
	default:
		lists = make([][]int, 1)
		if err := prompt.get("one", &lists[0]); err != nil {
			return err
		}
	}
	for _, text := range texts {
		before := len(q.prompt)
		q.prompt = s.model.tok.Append(q.prompt, text)
		q.prompts = append(q.prompts, textPrompt{text, len(q.prompt) - before})
	}
	for _, ids := range lists {
		text, err := s.model.tok.Decode(ids)
		if err != nil {
			return badRequest("prompt: %v", err)
		}
		q.prompt = append(q.prompt, ids...)
		q.prompts = append(q.prompts, textPrompt{text, len(ids)})
	}
	return nil
}

// promptOf returns the number of tokens of a sequence's prompt.
func (q *chatRequest) promptOf(of *sequence) int {
	if q.prompts == nil {
		return q.promptTokens()
	}
	return q.prompts[of.index/q.perPrompt].tokens
}

// object returns the member "object" of an answer. For a chunk of an answer, chunk is the suffix of
// the name.
func (q *chatRequest) object(chunk string) string {
	if q.prompts != nil {
		return "text_completion"
	}
	return "chat.completion" + chunk
}

// output returns the member of a streamed choice that holds the generated text.
func (q *chatRequest) output() string {
	if q.prompts != nil {
		return `,"text":`
	}
	return `,"delta":`
}
