package chat

// Limits is what a model allows, in tokens. Zero means not known or none.
type Limits struct {
	ContextTokens      int64 // the context length: prompt and completion together
	MaxCompletion      int64 // the most completion tokens per sequence, and the cap where the client gave none
	MinCompletion      int64 // the shortest answer worth truncating to; Bound does not use it
	TemplateBase       int64 // what the chat template adds to a conversation
	TemplatePerMessage int64 // what the chat template adds to each message
}

// Bound is how much a request can cost at most, in tokens.
type Bound struct {
	Input     int64 // prompt
	Cap       int64 // completion, per sequence
	Sequences int64 // at least 1
	Output    int64 // completion: Cap × Sequences
	Open      bool  // the bytes do not bound the prompt, nor does a tokenizer that is shown only its text
	Unseen    int64 // the part of Input that POST /tokenize is not shown, such as response_format
	Counted   int64 // prompt tokens that the backend's tokenizer counted; 0: it was not asked
}

// Bound bounds the request from above. The prompt is bounded by its bytes and
// the template's overhead, or by the context length where that is less. Where
// the bytes bound nothing, the context length does; where that is not known
// either, and where the completion has no cap at all, it fails with a
// *RequestError.
func (r *Request) Bound(l Limits) (Bound, error) {
	b := Bound{Sequences: r.sequences, Cap: r.cap}
	most := l.MaxCompletion
	if most <= 0 {
		most = l.ContextTokens
	}
	if most > 0 && (b.Cap == 0 || b.Cap > most) {
		b.Cap = most
	}
	if b.Cap == 0 {
		return Bound{}, about("max_tokens", refuse("max_tokens is missing; give the most tokens to generate"))
	}
	b.Output = mulSat(b.Cap, b.Sequences)
	if b.Output == maxInt64 {
		return Bound{}, refuse("%d tokens for each of %d completions are too many; ask for less", b.Cap, b.Sequences)
	}
	b.Open, b.Unseen = r.size.open != "", r.size.unseen
	switch {
	case b.Open && l.ContextTokens <= 0:
		return Bound{}, about(r.size.open, refuse("%s has no bound on its cost for this model; leave it out", r.size.open))
	case r.size.repeated:
		b.Input = mulSat(l.ContextTokens, b.Sequences)
	case b.Open:
		b.Input = l.ContextTokens
	default:
		b.Input = addSat(r.size.bytes(), max(0, l.TemplateBase))
		b.Input = addSat(b.Input, mulSat(max(0, l.TemplatePerMessage), r.size.messages))
		if l.ContextTokens > 0 {
			b.Input = min(b.Input, l.ContextTokens)
		}
	}
	if b.Input == maxInt64 {
		return Bound{}, about("messages", refuse("the prompt is too long; shorten it"))
	}
	return b, nil
}

// WithInput is b with a prompt of so many tokens, counted by the backend's own
// tokenizer on Request.TokenizePrompt, and what that did not see. A count that
// raises the bound is not believed; of an open prompt, none is.
func (b Bound) WithInput(tokens int64) Bound {
	if tokens > 0 && !b.Open && tokens <= b.Input {
		b.Input, b.Counted = min(b.Input, addSat(tokens, b.Unseen)), tokens
	}
	return b
}

// WithCap is b with a lower cap, in tokens per sequence; at least 1, and
// never above the cap it had.
func (b Bound) WithCap(c int64) Bound {
	b.Cap = max(1, min(c, b.Cap))
	b.Output = b.Cap * b.Sequences
	return b
}
