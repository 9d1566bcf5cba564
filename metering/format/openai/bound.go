package openai

import "sluice.example/sluice/metering/format"

// Bound bounds the request from above. The prompt is bounded by its bytes and
// the template's overhead, or by the context length where that is less. Where
// the bytes bound nothing, the context length does; where that is not known
// either, and where the completion has no cap at all, it fails with a
// *RequestError.
func (r *Request) Bound(l format.Limits) (format.Bound, error) {
	b, err := boundOutput(r.cap, r.sequences, l)
	if err != nil {
		return format.Bound{}, err
	}
	open := r.size.open
	if open == "" && r.size.media > 0 && l.MediaTokens <= 0 {
		open = "media in messages"
	}
	b.Open, b.Unseen = open != "", r.size.unseen
	switch {
	case b.Open && l.ContextTokens <= 0:
		return format.Bound{}, format.Refuse("%s has no bound on its cost for this model; leave it out", open)
	case r.size.repeated:
		b.Input = format.MulSat(l.ContextTokens, b.Sequences)
	case b.Open:
		b.Input = l.ContextTokens
	default:
		b.Input = format.AddSat(r.size.bytes(), max(0, l.TemplateBase))
		b.Input = format.AddSat(b.Input, format.MulSat(max(0, l.TemplatePerMessage), r.size.messages))
		b.Input = format.AddSat(b.Input, format.MulSat(max(0, l.MediaTokens), r.size.media))
		if l.ContextTokens > 0 {
			b.Input = min(b.Input, l.ContextTokens)
		}
	}
	if b.Input == format.MaxInt64 {
		return format.Bound{}, format.RefuseParam("messages", "the prompt is too long; shorten it")
	}
	return b, nil
}

// boundOutput bounds what is generated: so many sequences of at most cap tokens, or
// of what the model allows where that is less or cap is 0.
func boundOutput(cap, sequences int64, l format.Limits) (b format.Bound, err error) {
	b.Cap, b.Sequences = cap, sequences
	most := l.MaxCompletion
	if most <= 0 {
		most = l.ContextTokens
	}
	if most > 0 && (b.Cap == 0 || b.Cap > most) {
		b.Cap = most
	}
	if b.Cap == 0 {
		return b, format.RefuseParam(format.CapTokens, "max_tokens is missing; give the most tokens to generate")
	}
	b.Output = format.MulSat(b.Cap, b.Sequences)
	if b.Output == format.MaxInt64 {
		return b, format.Refuse("%d tokens for each of %d completions are too many; ask for less", b.Cap, b.Sequences)
	}
	return b, nil
}

// For a cap that fits: bytes of text in a token. English has 4 and more, code and
// languages of few examples about 3, and hardly any text less than format.DenseBytes. Where
// 4 would leave no room for an answer of shortAnswer tokens, more are tried.
var usualBytes = [...]int64{4, 5, 6, 8}

const shortAnswer = 64

// Fit is b with a cap that leaves the prompt its place in the context, where the
// client gave no cap: engines refuse a request whose prompt and cap together are
// longer than the context. The length of the prompt is what a tokenizer counted,
// else what its text has as a rule: an engine that finds it longer refuses the cap,
// and says what fits. A cap that the client gave stays.
func (r *Request) Fit(b format.Bound, l format.Limits) format.Bound {
	if r.cap > 0 || l.ContextTokens <= 0 || format.AddSat(b.Input, b.Cap) <= l.ContextTokens {
		return b
	}
	if b.Counted > 0 {
		return b.WithCap(max(l.ContextTokens-b.Input, l.MinCompletion))
	}
	others := format.AddSat(max(0, l.TemplateBase), format.MulSat(max(0, l.MediaTokens), r.size.media))
	return fitText(b, l, r.size.text, others, b.Input)
}

// fitText is b with a cap that leaves room for a prompt of so many bytes of text and
// of so many other tokens, which is most tokens at most.
func fitText(b format.Bound, l format.Limits, text, others, most int64) format.Bound {
	for _, bytes := range usualBytes {
		prompt := min(most, format.AddSat(text/bytes, others))
		if left := l.ContextTokens - prompt; left >= max(shortAnswer, l.MinCompletion) {
			return b.WithCap(left)
		}
	}
	return b.WithCap(l.MinCompletion)
}
