package openai

// Limits is what a model allows, in tokens. Zero means not known or none.
type Limits struct {
	ContextTokens      int64 // the context length: prompt and completion together
	MaxCompletion      int64 // the most completion tokens per sequence, and the cap where the client gave none
	MinCompletion      int64 // the shortest answer worth giving; Bound does not use it
	TemplateBase       int64 // what the chat template adds to a conversation
	TemplatePerMessage int64 // what the chat template adds to each message
	MediaTokens        int64 // the most prompt tokens of one picture, sound, film or file; 0: not known
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
		return Bound{}, refuseParam(capTokens, "max_tokens is missing; give the most tokens to generate")
	}
	b.Output = mulSat(b.Cap, b.Sequences)
	if b.Output == maxInt64 {
		return Bound{}, refuse("%d tokens for each of %d completions are too many; ask for less", b.Cap, b.Sequences)
	}
	open := r.size.open
	if open == "" && r.size.media > 0 && l.MediaTokens <= 0 {
		open = "media in messages"
	}
	b.Open, b.Unseen = open != "", r.size.unseen
	switch {
	case b.Open && l.ContextTokens <= 0:
		return Bound{}, refuse("%s has no bound on its cost for this model; leave it out", open)
	case r.size.repeated:
		b.Input = mulSat(l.ContextTokens, b.Sequences)
	case b.Open:
		b.Input = l.ContextTokens
	default:
		b.Input = addSat(r.size.bytes(), max(0, l.TemplateBase))
		b.Input = addSat(b.Input, mulSat(max(0, l.TemplatePerMessage), r.size.messages))
		b.Input = addSat(b.Input, mulSat(max(0, l.MediaTokens), r.size.media))
		if l.ContextTokens > 0 {
			b.Input = min(b.Input, l.ContextTokens)
		}
	}
	if b.Input == maxInt64 {
		return Bound{}, refuseParam("messages", "the prompt is too long; shorten it")
	}
	return b, nil
}

// For a cap that fits: bytes of text in a token. English has 4 and more, code and
// languages of few examples about 3, and hardly any text less than DenseBytes. Where
// 4 would leave no room for an answer of shortAnswer tokens, more are tried.
var usualBytes = [...]int64{4, 5, 6, 8}

// DenseBytes is how many bytes of text a token has at least, as a rule.
const DenseBytes = 2

const shortAnswer = 64

// Fit is b with a cap that leaves the prompt its place in the context, where the
// client gave no cap: engines refuse a request whose prompt and cap together are
// longer than the context. The length of the prompt is what a tokenizer counted,
// else what its text has as a rule: an engine that finds it longer refuses the cap,
// and says what fits. A cap that the client gave stays.
func (r *Request) Fit(b Bound, l Limits) Bound {
	if r.cap > 0 || l.ContextTokens <= 0 || addSat(b.Input, b.Cap) <= l.ContextTokens {
		return b
	}
	if b.Counted > 0 {
		return b.WithCap(max(l.ContextTokens-b.Input, l.MinCompletion))
	}
	others := addSat(max(0, l.TemplateBase), mulSat(max(0, l.MediaTokens), r.size.media))
	for _, bytes := range usualBytes {
		prompt := min(b.Input, addSat(r.size.text/bytes, others))
		if left := l.ContextTokens - prompt; left >= max(shortAnswer, l.MinCompletion) {
			return b.WithCap(left)
		}
	}
	return b.WithCap(l.MinCompletion)
}

// WithInput is b with a prompt of so many tokens, counted by the backend's own
// tokenizer on a conversation, and what that did not see. A count that raises the
// bound is not believed; of an open prompt, none is.
func (b Bound) WithInput(tokens int64) Bound { return b.withCount(tokens, b.Unseen, 0) }

// WithCount is WithInput for the answer to a question.
func (b Bound) WithCount(q Question, tokens int64) Bound {
	return b.withCount(tokens, q.unseen, q.template)
}

// withCount narrows the prompt to what was counted and what was not seen, of which
// likely tokens are expected.
func (b Bound) withCount(tokens, unseen, likely int64) Bound {
	if tokens > 0 && !b.Open && tokens <= b.Input {
		b.Input = min(b.Input, addSat(tokens, unseen))
		b.Counted = min(b.Input, addSat(tokens, likely))
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
