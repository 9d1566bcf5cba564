package openai

import (
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// Completions is POST /v1/completions, which goes on with texts or tokens.
var Completions format.Format = completions{}

type completions struct{}

const pathCompletions = "/v1/completions"

// Name implements format.Format.
func (completions) Name() string { return "completions" }

// Paths implements format.Format.
func (completions) Paths() []string { return []string{pathCompletions} }

// Smallest implements format.Format: one word of prompt, one token of an answer.
func (completions) Smallest() (path, body string) {
	return pathCompletions, `{"model":"-","prompt":"Hi","max_tokens":1}`
}

// Parse implements format.Format.
func (completions) Parse(_ string, body []byte, policy func(model string) *format.Policy) (format.Request, error) {
	r, err := parseCompletion(body, policy)
	if err != nil {
		return nil, err // a nil *completionRequest would be no nil format.Request
	}
	return r, nil
}

// completionRequest is one request for completions. What a meter reads of it is in
// Request; it has prompts in place of messages.
type completionRequest struct {
	Request
	uncapped bool // the client asked for an answer without a cap, by -1
}

// defaultCap is how many tokens the API generates where the client gives no number.
// It is always written, because llama.cpp and Ollama would go on without an end.
const defaultCap = 16

func parseCompletion(body []byte, policy func(model string) *format.Policy) (*completionRequest, error) {
	text := rawjson.TrimBOM(body)
	if err := rawjson.CheckDocument(text); err != nil {
		return nil, format.Refuse("the body cannot be read: %v; send one JSON object", err)
	}
	r := &completionRequest{Request: Request{body: body, sequences: 1, members: make([]member, 0, 16)}}
	var err error
	if r.members, r.model, err = collect(text[rawjson.SkipSpace(text, 0):], r.members, completionKind); err != nil {
		return nil, err
	}
	p := policy(r.model)
	r.members = impose(r.members, p, completionKind)
	for i := range r.members {
		if err := r.read(&r.members[i], p); err != nil {
			return nil, format.About(r.members[i].key, err)
		}
	}
	switch {
	case len(r.prompts) == 0:
		return nil, format.RefuseParam("prompt", "prompt is missing; send the text to go on with")
	case r.sequences > maxChoices/int64(len(r.prompts)):
		return nil, format.RefuseParam("n", "%d prompts with n completions each are more than %d; send fewer", len(r.prompts), maxChoices)
	}
	return r, r.checkBeams()
}

// read decides what becomes of one member.
func (r *completionRequest) read(m *member, p *format.Policy) error {
	switch m.kind {
	case kindPrompt:
		return r.readPrompts(m.value)
	case kindSuffix:
		return r.readSuffix(m)
	case kindEcho:
		if m.dropped = isNeutral(m.value); !m.dropped {
			return format.Refuse("echo sends the prompt back within the answer, where nothing tells the two apart; put it before the answer yourself")
		}
		return nil
	case kindElsewhere:
		if m.dropped = isEmpty(m.value); !m.dropped {
			return format.Refuse("%s belongs to another path than /v1/completions, such as /v1/chat/completions; send prompt here, or call that path", m.key)
		}
		return nil
	case kindCap:
		n, _ := rawjson.Whole(m.value)
		r.uncapped = r.uncapped || n == -1
	}
	return r.Request.read(m, p)
}

// completionKind is kindOf for this API. Members that only chat knows are unknown,
// because engines give them no meaning here that could be vouched for.
func completionKind(key string) kind {
	switch key {
	case "prompt":
		return kindPrompt
	case "suffix":
		return kindSuffix
	case "echo":
		return kindEcho
	case "messages", "input":
		return kindElsewhere
	case "tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "parse_tool_calls", "modalities", "audio",
		"documents", "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message",
		"mm_processor_kwargs", "media_io_kwargs", "images_config", "reasoning", "thinking", "top_logprobs":
		return kindUnknown
	}
	if k := kindOf(key); k != kindSwitch {
		return k
	}
	return kindUnknown
}

// Rewrite is the body to send; see Request.Rewrite. Engines that take the cap under
// another name in chat know only max_tokens here.
func (r *completionRequest) Rewrite(w format.Rewrite) []byte {
	w.Profile.Caps = completionCaps[:]
	return r.Request.Rewrite(w)
}

var completionCaps = [...]string{format.CapTokens}
