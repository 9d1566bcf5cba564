package inference

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

const (
	maxBody     = 32 << 20 // bytes of a request body
	maxChoices  = 128      // n and best_of
	maxStops    = 4
	greedyBelow = 1e-5 // a lower temperature counts as zero
)

// apiError is an error in the OpenAI format.
type apiError struct {
	Status  int
	Kind    string
	Message string
}

func (e *apiError) Error() string { return e.Message }

func badRequest(format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, "BadRequestError", fmt.Sprintf(format, args...)}
}

// object holds the members of a JSON object. It distinguishes "MODEL" from "model", as every real
// inference server does. A struct of encoding/json does not.
type object map[string]json.RawMessage

// get decodes one member into v. When the member is absent or null, get does not change v.
func (o object) get(name string, v any) error {
	raw, ok := o[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return badRequest("%s: %v", name, err)
	}
	return nil
}

func readObject(r *http.Request) (body []byte, o object, err error) {
	body, err = io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, nil, &apiError{http.StatusRequestEntityTooLarge, "BadRequestError", fmt.Sprintf("the body is larger than %d bytes", maxBody)}
		}
		return nil, nil, badRequest("cannot read the body: %v", err)
	}
	if err := json.Unmarshal(body, &o); err != nil {
		return body, nil, badRequest("the body is not a JSON object: %v", err)
	}
	return body, o, nil
}

// chatRequest is a checked request for a chat, or for completions if it has prompts.
type chatRequest struct {
	prompt          []int  // token ids, with those of the chat template
	question        string // text of the last user message
	images          int    // tokens for images, not included in prompt
	how             sampling
	maxTokens       int // per sequence; 0: as many as the context has room for
	choices, bestOf int
	stops           []string
	stream          bool
	includeUsage    bool
	continuousUsage bool

	prompts   []textPrompt // only for completions; prompt holds the tokens of all prompts
	perPrompt int          // choices of each prompt
}

func (s *Server) parseChat(o object) (*chatRequest, error) {
	q, err := s.parseCommon(o)
	if err != nil {
		return nil, err
	}
	if err := s.parsePrompt(q, o, true); err != nil {
		return nil, err
	}
	return q, s.fitContext(q)
}

// parseCommon reads the members that a chat and a request for completions share.
func (s *Server) parseCommon(o object) (*chatRequest, error) {
	q := &chatRequest{choices: 1}
	var name string
	seed := s.cfg.Seed + s.count.unseeded.Add(1)<<32
	q.how = sampling{Temperature: 1, TopP: 1, Seed: seed}
	var requestSeed *int64
	err := errors.Join(
		o.get("model", &name), o.get("stream", &q.stream), o.get("temperature", &q.how.Temperature), o.get("top_p", &q.how.TopP),
		o.get("seed", &requestSeed), o.get("n", &q.choices), o.get("best_of", &q.bestOf),
		o.get("ignore_eos", &q.how.IgnoreEOS), o.get("min_tokens", &q.how.MinTokens),
	)
	if err != nil {
		return nil, err
	}
	if requestSeed != nil {
		q.how.Seed = uint64(*requestSeed)
	}
	if name != s.cfg.Model {
		return nil, &apiError{http.StatusNotFound, "NotFoundError", fmt.Sprintf("The model `%s` does not exist.", name)}
	}
	return q, errors.Join(q.parseStreamOptions(o), q.parseStops(o), q.parseCap(o), q.check(s.cfg.Slots))
}

func (q *chatRequest) parseStreamOptions(o object) error {
	var options object
	if err := o.get("stream_options", &options); err != nil {
		return err
	}
	if options != nil && !q.stream {
		return badRequest("Stream options can only be defined when `stream=True`.")
	}
	// As in vLLM, there is running usage only if there is final usage.
	err := errors.Join(options.get("include_usage", &q.includeUsage), options.get("continuous_usage_stats", &q.continuousUsage))
	q.continuousUsage = q.continuousUsage && q.includeUsage
	return err
}

func (q *chatRequest) parseStops(o object) error {
	var one string
	if raw := o["stop"]; len(raw) > 0 && raw[0] == '"' {
		if err := o.get("stop", &one); err != nil {
			return err
		}
		q.stops = []string{one}
	} else if err := o.get("stop", &q.stops); err != nil {
		return err
	}
	if len(q.stops) > maxStops {
		return badRequest("stop: at most %d sequences", maxStops)
	}
	for _, stop := range q.stops {
		if stop == "" {
			return badRequest("stop cannot contain an empty string.")
		}
	}
	return nil
}

// parseCap reads max_completion_tokens, or else the older max_tokens.
func (q *chatRequest) parseCap(o object) error {
	for _, field := range []string{"max_completion_tokens", "max_tokens"} {
		var limit *int
		if err := o.get(field, &limit); err != nil {
			return err
		}
		if limit == nil {
			continue
		}
		if *limit < 1 {
			return badRequest("%s must be at least 1, got %d.", field, *limit)
		}
		if q.maxTokens == 0 {
			q.maxTokens = *limit
		}
	}
	return nil
}

func (q *chatRequest) check(slots int) error {
	if q.bestOf == 0 {
		q.bestOf = q.choices
	}
	switch {
	case !(q.how.Temperature >= 0 && q.how.Temperature <= 2):
		return badRequest("temperature must be within 0 and 2, got %v.", q.how.Temperature)
	case !(q.how.TopP > 0 && q.how.TopP <= 1):
		return badRequest("top_p must be in (0, 1], got %v.", q.how.TopP)
	case q.choices < 1 || q.choices > maxChoices:
		return badRequest("n must be within 1 and %d, got %d.", maxChoices, q.choices)
	case q.bestOf < q.choices || q.bestOf > maxChoices:
		return badRequest("best_of must be within n and %d, got %d.", maxChoices, q.bestOf)
	case q.bestOf > slots:
		return badRequest("n and best_of are limited to the %d slots of this server.", slots)
	case q.bestOf > q.choices && q.stream:
		return badRequest("best_of is not possible in a stream.")
	case q.how.MinTokens < 0 || q.maxTokens > 0 && q.how.MinTokens > q.maxTokens:
		return badRequest("min_tokens must be within 0 and max_tokens, got %d.", q.how.MinTokens)
	}
	if q.how.Temperature < greedyBelow {
		q.how.Temperature = 0
	}
	return nil
}

// fitContext sets the cap so that prompt and answer fit into the context together. It fails when
// the requested cap does not fit.
func (s *Server) fitContext(q *chatRequest) error {
	prompt := q.promptTokens()
	left := s.cfg.MaxModelLen - prompt
	if left < 1 || q.maxTokens > left {
		return badRequest("This model's maximum context length is %d tokens. However, you requested %d tokens (%d in the messages, %d in the completion). Please reduce the length of the messages or completion.",
			s.cfg.MaxModelLen, prompt+max(q.maxTokens, 1), prompt, q.maxTokens)
	}
	if q.maxTokens == 0 {
		q.maxTokens = left
	}
	return nil
}

func (q *chatRequest) promptTokens() int { return len(q.prompt) + q.images }

// parsePrompt applies the chat template to the messages and tools of a request.
func (s *Server) parsePrompt(q *chatRequest, o object, generation bool) error {
	var messages []object
	if err := o.get("messages", &messages); err != nil {
		return err
	}
	if len(messages) == 0 {
		return badRequest("messages must have at least one message.")
	}
	if tools := o["tools"]; len(tools) > 0 && string(tools) != "null" && string(tools) != "[]" {
		q.prompt = s.frame(q.prompt, "<|tools|>", string(tools))
	}
	for i, m := range messages {
		role, text, images, err := s.parseMessage(m)
		if err != nil {
			return fmt.Errorf("messages[%d]: %w", i, err)
		}
		q.prompt = s.frame(q.prompt, "<|"+role+"|>", text)
		for range images {
			q.prompt = append(q.prompt, s.model.tok.special("<|image|>"))
			q.images += s.cfg.ImageTokens - 1
		}
		if role == "user" {
			q.question = text
		}
	}
	if generation {
		q.prompt = append(q.prompt, s.model.tok.special("<|assistant|>"), '\n')
	}
	return nil
}

// frame appends one message to dst: TemplatePerMessage tokens and the tokens of the text.
func (s *Server) frame(dst []int, marker, text string) []int {
	dst = append(dst, s.model.tok.special(marker), '\n')
	dst = s.model.tok.Append(dst, text)
	return append(dst, s.model.tok.special("<|end|>"), '\n')
}

func (s *Server) parseMessage(m object) (role, text string, images int, err error) {
	if err := m.get("role", &role); err != nil {
		return "", "", 0, err
	}
	switch role {
	case "developer":
		role = "system"
	case "system", "user", "assistant", "tool":
	default:
		return "", "", 0, badRequest("unknown role %q", role)
	}
	var parts []object
	if raw := m["content"]; len(raw) > 0 && raw[0] == '[' {
		err = m.get("content", &parts)
	} else {
		err = m.get("content", &text)
	}
	var texts []string
	for _, part := range parts {
		var kind, t string
		if err = errors.Join(err, part.get("type", &kind), part.get("text", &t)); err != nil {
			break
		}
		switch {
		case kind == "text":
			texts = append(texts, t)
		case kind == "image_url" && s.cfg.ImageTokens > 0:
			images++
		default:
			err = badRequest("this model takes no content of type %q", kind)
		}
	}
	if parts != nil {
		text = strings.Join(texts, "\n")
	}
	if calls := m["tool_calls"]; len(calls) > 0 && string(calls) != "null" {
		text += string(calls)
	}
	return role, text, images, err
}
