package openai

import (
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// mostCounted bounds the prompts of a request that a tokenizer is asked about: it
// takes one call for each.
const mostCounted = 16

// Countable reports whether a tokenizer alone can count the prompts. Tokens need none.
func (r *completionRequest) Countable() bool {
	return !r.isTokens() && r.size.open == "" && len(r.prompts) <= mostCounted
}

// CountPrompt is the call that counts the first prompt at a backend, which leads on to
// those for the others. Engines count the tokens that they add to a text; no template
// is written around it.
func (r *completionRequest) CountPrompt(p format.Profile, model string, _ format.Limits) []format.Question {
	if !r.Countable() {
		return nil
	}
	q, ok := r.count(p.Counting, model, 0, 0)
	if !ok {
		return nil
	}
	var text int64
	for i := range r.prompts {
		text += r.prompts[i].bytes
	}
	q.Least = format.LeastTokens(text)
	q.Unseen = format.AddSat(r.size.bytes(), format.MulSat(r.suffix, int64(len(r.prompts))))
	return []format.Question{q}
}

// count is the call that counts prompt i. Those before it are before tokens.
func (r *completionRequest) count(by format.Counting, model string, i int, before int64) (q format.Question, ok bool) {
	text, name := r.prompts[i].text, rawjson.Quote(model)
	read := format.ReadCount
	q.Path = "/tokenize"
	switch by {
	case format.CountVLLM, format.CountSGLang:
		q.Body = rawjson.AppendMember(rawjson.AppendMember(nil, "model", name), "prompt", text)
		for j := range r.members {
			if m := &r.members[j]; m.key == "add_special_tokens" && !rawjson.IsNull(m.value) {
				q.Body = append(rawjson.Separate(q.Body), m.raw...)
			}
		}
	case format.CountTRTLLM:
		q.Path = "/_internal/tokenize"
		q.Body = rawjson.AppendMember(rawjson.AppendMember(nil, "model", name), "prompt", text)
	case format.CountLlamaCpp:
		q.Body = rawjson.AppendMember(rawjson.AppendMember(nil, "content", text), "add_special", []byte("true"))
		q.Body = rawjson.AppendMember(rawjson.AppendMember(q.Body, "parse_special", []byte("true")), "model", name)
	case format.CountTGI:
		q.Body, read = rawjson.AppendMember(nil, "inputs", text), format.ReadList
	default:
		return q, false
	}
	q.Body = append(q.Body, '}')
	q.Read = func(answer []byte) (int64, error) {
		n, err := read(answer)
		return format.AddSat(before, n), err
	}
	if i+1 < len(r.prompts) {
		q.Next = func(answer []byte) (format.Question, error) {
			n, err := read(answer)
			if err != nil {
				return format.Question{}, err
			}
			next, _ := r.count(by, model, i+1, format.AddSat(before, n))
			return next, nil
		}
	}
	return q, true
}
