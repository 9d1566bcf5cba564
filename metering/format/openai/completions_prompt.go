package openai

import (
	"math"
	"strconv"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// prompt is one prompt of a request.
type prompt struct {
	text   []byte // the JSON string; nil: it is a list of tokens
	bytes  int64  // of the text, for estimates
	tokens int64  // at most; of a list of tokens exactly
}

// What engines add to a prompt that is a text, in tokens: those of its beginning and
// end; and around a suffix, markers of the places.
const (
	specialTokens = 4
	markerTokens  = 8
)

// readPrompts reads the prompts: a text, several texts, the tokens of one prompt by
// their numbers, or those of several. Texts and tokens in one list are one prompt to
// some engines and several to others, and refused.
func (r *completionRequest) readPrompts(v []byte) error {
	switch {
	case rawjson.IsString(v):
		return r.addText(v)
	case v[0] != '[':
		return format.Refuse("prompt must be a text, a list of texts, a list of tokens, or a list of such lists")
	case isEmpty(v):
		return format.Refuse("prompt is an empty list; send at least one prompt")
	}
	first := v[rawjson.SkipSpace(v, 1)]
	if first != '"' && first != '[' {
		return r.addTokens("prompt", v)
	}
	i := 0
	for e := rawjson.Elements(v); e.More(); i++ {
		name, value := at("prompt", i), e.Value()
		if value[0] != first {
			return format.RefuseParam(name, "%s is of another kind than the prompts before it; send texts alone, or lists of tokens alone", name)
		}
		if len(r.prompts) == maxChoices {
			return format.Refuse("there are more than %d prompts; send fewer in one request", maxChoices)
		}
		add := r.addText
		if first == '[' {
			add = func(v []byte) error { return r.addTokens(name, v) }
		}
		if err := add(value); err != nil {
			return err
		}
	}
	return nil
}

// addText adds a prompt that is a text.
func (r *completionRequest) addText(v []byte) error {
	var s size
	s.addText(v, false)
	r.prompts = append(r.prompts, prompt{text: v, bytes: s.text, tokens: s.worst})
	r.size.text += s.text
	return nil
}

// addTokens adds a prompt that is a list of tokens.
func (r *completionRequest) addTokens(name string, v []byte) error {
	var n int64
	for e := rawjson.Elements(v); e.More(); n++ {
		if id, ok := rawjson.Whole(e.Value()); !ok || id < 0 || id > math.MaxInt32 {
			where := name + "[" + strconv.FormatInt(n, 10) + "]"
			return format.RefuseParam(where, "%s is no token; a list of tokens holds whole numbers from 0 on", where)
		}
	}
	if n == 0 {
		return format.RefuseParam(name, "%s is an empty list; send at least one token", name)
	}
	r.prompts = append(r.prompts, prompt{tokens: n})
	r.ids += n
	return nil
}

// readSuffix reads the text that stands behind what is generated. Engines write it
// into each prompt.
func (r *completionRequest) readSuffix(m *member) error {
	if m.dropped = isEmpty(m.value); m.dropped {
		return nil
	}
	if !rawjson.IsString(m.value) {
		return format.Refuse("suffix must be a text")
	}
	var s size
	s.addText(m.value, false)
	r.suffix = s.worst + markerTokens
	r.size.text += s.text
	return nil
}

// isTokens reports whether the prompts are tokens rather than texts.
func (r *completionRequest) isTokens() bool { return r.prompts[0].text == nil }

// most is the most tokens that a prompt can be at a backend.
func (r *completionRequest) most(p *prompt, l format.Limits) int64 {
	n := format.AddSat(p.tokens, r.suffix)
	if p.text != nil { // Ollama writes a text into the template of chats
		n = format.AddSat(n, format.AddSat(specialTokens, format.AddSat(max(0, l.TemplateBase), max(0, l.TemplatePerMessage))))
	}
	if r.size.open != "" {
		n = l.ContextTokens
	}
	if l.ContextTokens > 0 {
		n = min(n, l.ContextTokens)
	}
	return n
}

// likely is what a prompt takes as a rule, by what was learned.
func (p *prompt) likely(e *format.Estimates) int64 {
	if p.text == nil {
		return p.tokens
	}
	return format.TokensFor(p.bytes, e.Prompt)
}

// Bound bounds the request from above: each prompt once, by its tokens or by its
// bytes, and the completions of all of them. Without a number of the client a
// completion has defaultCap tokens.
func (r *completionRequest) Bound(l format.Limits) (format.Bound, error) {
	most := r.cap
	if most == 0 && !r.uncapped {
		most = defaultCap
	}
	b, err := boundOutput(most, r.sequences*int64(len(r.prompts)), l)
	if err != nil {
		return format.Bound{}, err
	}
	b.Open, b.Unseen = r.size.open != "", r.size.unseen
	if b.Open && l.ContextTokens <= 0 {
		return format.Bound{}, format.Refuse("%s has no bound on its cost for this model; leave it out", r.size.open)
	}
	for i := range r.prompts {
		b.Input = format.AddSat(b.Input, r.most(&r.prompts[i], l))
	}
	b.Input = format.AddSat(b.Input, r.size.bytes())
	if b.Input == format.MaxInt64 {
		return format.Bound{}, format.RefuseParam("prompt", "the prompt is too long; shorten it")
	}
	if r.isTokens() && !b.Open && r.suffix == 0 && r.size.bytes() == 0 {
		b.Counted = b.Input
	}
	return b, nil
}

// Fit is b with a cap that leaves the longest prompt its place in the context, where
// the client gave no cap; see Request.Fit.
func (r *completionRequest) Fit(b format.Bound, l format.Limits) format.Bound {
	longest := &r.prompts[0]
	for i := range r.prompts {
		if p := &r.prompts[i]; p.tokens > longest.tokens {
			longest = p
		}
	}
	most := r.most(longest, l)
	if len(r.prompts) == 1 && b.Counted > 0 {
		most = b.Input
	}
	switch {
	case r.cap > 0, l.ContextTokens <= 0, format.AddSat(most, b.Cap) <= l.ContextTokens:
		return b
	case longest.text == nil, len(r.prompts) == 1 && b.Counted > 0:
		return b.WithCap(max(l.ContextTokens-most, l.MinCompletion))
	}
	return fitText(b, l, longest.bytes, format.AddSat(max(0, l.TemplateBase), r.suffix), most)
}
