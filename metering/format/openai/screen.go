package openai

import (
	"strconv"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// verdict says what becomes of a member within the conversation.
type verdict uint8

const (
	keep verdict = iota
	drop
)

// isEmpty reports whether a member says nothing: SDKs write absent members of a
// message so when they send an answer back as it came.
func isEmpty(v []byte) bool {
	switch string(v) {
	case "null", "[]", "{}", `""`:
		return true
	}
	return len(v) > 2 && (v[0] == '[' || v[0] == '{') && rawjson.SkipSpace(v, 1) == len(v)-1
}

// isNeutral reports whether a switch or list says "no" or nothing.
func isNeutral(v []byte) bool { return isEmpty(v) || string(v) == "false" }

// screenMessages checks the conversation, a list of objects, member by member,
// and returns it without what no backend is to see; v itself where all of it
// passes. What it does not know it refuses by name.
func screenMessages(v []byte, p *format.Policy) ([]byte, error) {
	var out []byte
	done := 0
	for c, i := rawjson.Elements(v), 0; c.More(); i++ {
		start := c.At()
		message := c.Value()
		if message[0] != '{' {
			return nil, format.RefuseParam(at("messages", i), "messages[%d] must be an object with a role and a content", i)
		}
		clean, err := screenMessage(message, i, p)
		if err != nil {
			return nil, err
		}
		if len(clean) != len(message) {
			out = append(append(out, v[done:start]...), clean...)
			done = c.At()
		}
	}
	if out == nil {
		return v, nil
	}
	return append(out, v[done:]...), nil
}

// at is the path of an element.
func at(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// screenMessage does the same for one message. What it returns is shorter where
// anything was dropped.
func screenMessage(m []byte, i int, p *format.Policy) ([]byte, error) {
	changed, answer := false, isAnswer(m)
	for c := rawjson.Members(m); c.More(); {
		key, value := c.Member()
		clean, v, err := screenMember(string(key), value, i, answer, p)
		if err != nil {
			return nil, err
		}
		changed = changed || v == drop || len(clean) != len(value)
	}
	if !changed {
		return m, nil
	}
	out := make([]byte, 0, len(m))
	for c := rawjson.Members(m); c.More(); {
		start := c.At()
		key, value := c.Member()
		clean, v, _ := screenMember(string(key), value, i, answer, p) // it had no error above
		switch {
		case v == drop:
		case len(clean) != len(value):
			out = rawjson.AppendMember(out, string(key), clean)
		default:
			out = append(rawjson.Separate(out), c.Since(start)...)
		}
	}
	return closed(out), nil
}

// isAnswer reports whether a message is one of the model's own, sent back.
func isAnswer(m []byte) bool {
	for c := rawjson.Members(m); c.More(); {
		if key, value := c.Member(); string(key) == "role" {
			return string(value) == `"assistant"`
		}
	}
	return false
}

// closed ends the object that out began, or is an empty one.
func closed(out []byte) []byte {
	if len(out) == 0 {
		out = append(out, '{')
	}
	return append(out, '}')
}

// screenMember says what becomes of one member of the message i, which is an answer or
// not, and gives its value as the backend gets it.
func screenMember(key string, value []byte, i int, answer bool, p *format.Policy) ([]byte, verdict, error) {
	switch key {
	case "role", "name", "tool_call_id", "refusal", "reasoning", "reasoning_content", "thinking":
		if !rawjson.IsString(value) && !rawjson.IsNull(value) {
			param := at("messages", i) + "." + key
			return nil, keep, format.RefuseParam(param, "%s must be a string", param)
		}
		return value, keep, nil
	case "content":
		clean, err := screenContent(value, i, p)
		return clean, keep, err
	case "tools", "tool_calls", "function_call":
		if isEmpty(value) {
			return value, drop, nil // a template could write it
		}
		if key == "tools" {
			return value, keep, screenTools(at("messages", i)+".tools", value)
		}
		return value, keep, nil
	case "prefix", "partial":
		if rawjson.IsScalar(value) && !rawjson.IsString(value) {
			return value, keep, nil
		}
	case "annotations", "provider_specific_fields", "thinking_blocks", "reasoning_details", "cache_control", "citations",
		"id", "created", "created_at", "timestamp", "index", "status", "parsed", "weight", "finish_reason", "stop_reason",
		"usage", "model", "object", "type", "metadata", "extra_content", "vendor", "logprobs", "token_ids":
		return value, drop, nil
	case "is_error":
		if rawjson.IsScalar(value) {
			return value, drop, nil
		}
	}
	if isEmpty(value) || answer && comesWithAnswers(key) {
		return value, drop, nil
	}
	param := at("messages", i) + "." + format.Clip(key)
	return nil, keep, format.RefuseParam(param, "%s is not known here; leave it out", param)
}

// comesWithAnswers reports whether services send a member with their answers that other
// engines do not read: it is dropped from an answer that is sent back. Elsewhere the same
// names ask for something, as images does of Ollama.
func comesWithAnswers(key string) bool {
	switch key {
	case "channel", "executed_tools", "images", "audio", "reasoning_text", "reasoning_opaque", "reasoning_summary",
		"encrypted_content", "context", "search_results", "content_filter_results", "recipient", "end_turn":
		return true
	}
	return false
}

// screenContent checks the content of the message i.
func screenContent(v []byte, i int, p *format.Policy) ([]byte, error) {
	if rawjson.IsString(v) || rawjson.IsNull(v) {
		return v, nil
	}
	path := at("messages", i) + ".content"
	if v[0] != '[' {
		return nil, format.RefuseParam(path, "%s must be text or a list of parts", path)
	}
	var out []byte
	done := 0
	for c, j := rawjson.Elements(v), 0; c.More(); j++ {
		start := c.At()
		part := c.Value()
		clean, err := screenPart(part, path, j, p)
		if err != nil {
			return nil, err
		}
		if len(clean) != len(part) {
			out = append(append(out, v[done:start]...), clean...)
			done = c.At()
		}
	}
	if out == nil {
		return v, nil
	}
	return append(out, v[done:]...), nil
}

// screenPart checks the part j of a content.
func screenPart(part []byte, content string, j int, p *format.Policy) ([]byte, error) {
	if rawjson.IsString(part) {
		return part, nil
	}
	path := at(content, j)
	if part[0] != '{' {
		return nil, format.RefuseParam(path, "%s must be an object with a type", path)
	}
	changed := false
	for c := rawjson.Members(part); c.More(); {
		key, value := c.Member()
		v, err := screenPartMember(path, string(key), value, p)
		if err != nil {
			return nil, err
		}
		changed = changed || v == drop
	}
	if !changed {
		return part, nil
	}
	out := make([]byte, 0, len(part))
	for c := rawjson.Members(part); c.More(); {
		start := c.At()
		key, value := c.Member()
		if v, _ := screenPartMember(path, string(key), value, p); v != drop { // it had no error above
			out = append(rawjson.Separate(out), c.Since(start)...)
		}
	}
	return closed(out), nil
}

// screenPartMember says what becomes of one member of a content part.
func screenPartMember(path, key string, value []byte, p *format.Policy) (verdict, error) {
	param := path + "." + format.Clip(key)
	switch key {
	case "type":
		if isTextType(value) || isMediaType(value) {
			return keep, nil
		}
		return keep, format.RefuseParam(param,
			"%s is of a kind that is not known here; send text, or media as a data: URL", param)
	case "text", "refusal", "thinking", "reasoning":
		if rawjson.IsString(value) || rawjson.IsNull(value) {
			return keep, nil
		}
		return keep, format.RefuseParam(param, "%s must be a string", param)
	case "image_url", "audio_url", "video_url":
		return keep, screenURL(param, value, p)
	case "input_audio":
		return keep, screenBytes(param, value, p, "data", "format")
	case "file":
		return keep, screenBytes(param, value, p, "file_data", "filename")
	case "detail":
		return keep, nil
	case "cache_control", "annotations", "citations", "signature", "logprobs", "id", "index", "metadata", "prompt_cache_breakpoint",
		"min_pixels", "max_pixels", "total_pixels": // one engine would read more of a picture than is held for
		return drop, nil
	}
	if isEmpty(value) {
		return drop, nil
	}
	return keep, format.RefuseParam(param, "%s is not known here; leave it out", param)
}

// screenURL checks an address, or an object with one.
func screenURL(param string, v []byte, p *format.Policy) error {
	if v[0] != '{' {
		return checkMedia(param, v, p)
	}
	for c := rawjson.Members(v); c.More(); {
		key, value := c.Member()
		switch name := string(key); {
		case name == "url":
			if err := checkMedia(param+".url", value, p); err != nil {
				return err
			}
		case name == "detail" || name == "format" || name == "media_type":
		case !isEmpty(value):
			return format.RefuseParam(param+"."+format.Clip(name), "%s.%s is not known here; leave it out", param, format.Clip(name))
		}
	}
	return nil
}

// screenBytes checks an object that holds base64 in the member data and may hold
// a word in the member about.
func screenBytes(param string, v []byte, p *format.Policy, data, about string) error {
	if v[0] != '{' {
		return format.RefuseParam(param, "%s must be an object", param)
	}
	for c := rawjson.Members(v); c.More(); {
		key, value := c.Member()
		switch name := string(key); {
		case name == data && isBase64(value):
		case name == data:
			if err := checkMedia(param+"."+name, value, p); err != nil {
				return err
			}
		case name == about && (rawjson.IsString(value) || rawjson.IsNull(value)):
		case !isEmpty(value):
			return format.RefuseParam(param+"."+format.Clip(name),
				"%s.%s is not known here; send the bytes in %s", param, format.Clip(name), data)
		}
	}
	return nil
}

// isMediaType reports whether v is the type of a part with a picture, a sound, a
// film or a file.
func isMediaType(v []byte) bool {
	switch string(v) {
	case `"image_url"`, `"input_audio"`, `"audio_url"`, `"video_url"`, `"file"`:
		return true
	}
	return false
}

// screenTools checks the definitions of tools. Only what the client runs is
// known; a tool that the backend runs costs what nobody bounds.
func screenTools(list string, v []byte) error {
	if v[0] != '[' {
		return format.RefuseParam(list, "%s must be a list of functions", list)
	}
	for c, i := rawjson.Elements(v), 0; c.More(); i++ {
		tool, path := c.Value(), at(list, i)
		if tool[0] != '{' {
			return format.RefuseParam(path, "%s must be an object with a type and a function", path)
		}
		for t := rawjson.Members(tool); t.More(); {
			key, value := t.Member()
			switch name := string(key); name {
			case "function", "custom", "cache_control", "strict", "defer_loading", "eager_input_streaming", "allowed_callers", "input_examples":
			case "type":
				if kind := string(value); kind != `"function"` && kind != `"custom"` {
					return format.RefuseParam(path+".type",
						"%s is a tool of the type %s, which would run at the backend; send functions", path, format.Clip(string(rawjson.UnquoteAny(value))))
				}
			case "name", "description", "parameters":
				return format.RefuseParam(path+"."+name,
					"%s has its %s beside the type, as in the Responses API; put it into function", path, name)
			default:
				if !isEmpty(value) {
					return format.RefuseParam(path+"."+format.Clip(name), "%s.%s is not known here; leave it out", path, format.Clip(name))
				}
			}
		}
	}
	return nil
}

// screenArguments checks the arguments of a template. Only plain values are
// bounded, and some names would replace the template or the conversation.
func screenArguments(name string, v []byte) error {
	if rawjson.IsScalar(v) {
		if len(v) > maxSwitch {
			return format.RefuseParam(name, "%s is too long", name)
		}
		return nil
	}
	if v[0] != '{' {
		return format.RefuseParam(name, "%s must be an object", name)
	}
	for c := rawjson.Members(v); c.More(); {
		key, value := c.Member()
		param := name + "." + format.Clip(string(key))
		switch string(key) {
		case "chat_template", "tokenize", "messages", "conversation", "tools", "documents", "tokenizer_kwargs", "processor_kwargs",
			"return_dict", "return_tensors", "return_assistant_tokens_mask", "padding", "truncation", "max_length":
			if !isNeutral(value) {
				return format.RefuseParam(param, "%s would replace the template's own; leave it out", param)
			}
		}
		if !rawjson.IsScalar(value) && !isEmpty(value) {
			return format.RefuseParam(param, "%s must be a plain value", param)
		}
	}
	return nil
}

// screenModalities checks the kinds of output: the cap bounds text and nothing
// else.
func screenModalities(v []byte) error {
	if v[0] != '[' {
		return format.Refuse("modalities must be a list")
	}
	for c := rawjson.Elements(v); c.More(); {
		if string(c.Value()) != `"text"` {
			return format.Refuse("only text is sold here; leave modalities out")
		}
	}
	return nil
}
