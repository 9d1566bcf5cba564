package format

import "sluice.example/sluice/pricing"

// Limits is what a model allows, in tokens. Zero means not known or none.
type Limits struct {
	ContextTokens      int64 // the context length: prompt and completion together
	MaxCompletion      int64 // the most completion tokens per sequence, and the cap where the client gave none
	MinCompletion      int64 // the shortest answer worth giving; Bound does not use it
	TemplateBase       int64 // what the chat template adds to a conversation
	TemplatePerMessage int64 // what the chat template adds to each message, or text to embed, or pair to score
	MediaTokens        int64 // the most prompt tokens of one picture, sound, film or file; 0: not known
	MaxItems           int64 // the most texts to embed, or documents to rank, in one request; 0: as the API has it
}

// Bound is how much a request can cost at most, in tokens.
type Bound struct {
	Input     int64 // prompt
	Cap       int64 // completion, per sequence
	Sequences int64 // at least 1
	Output    int64 // completion: Cap × Sequences
	Open      bool  // the bytes do not bound the prompt, nor does a tokenizer that is shown only its text
	Unseen    int64 // the part of Input that POST /tokenize is not shown, such as response_format
	Counted   int64 // prompt tokens where they are known: sent as tokens, or counted by the backend's tokenizer; 0: they are not
	Each      int64 // prompt tokens of one text of several, at most; 0: not known, or there is one prompt
	Searches  int64 // queries over at most 100 documents: exact
	Documents int64 // documents ranked or scored: exact
}

// Units is the bound as what it may consume.
func (b Bound) Units() pricing.Units {
	return pricing.Units{pricing.InputTokens: b.Input, pricing.OutputTokens: b.Output, pricing.Calls: 1,
		pricing.Searches: b.Searches, pricing.Documents: b.Documents}
}

// WithInput is b with a prompt of so many tokens, counted by the backend's own
// tokenizer on a conversation, and what that did not see. A count that raises the
// bound is not believed; of an open prompt, none is.
func (b Bound) WithInput(tokens int64) Bound { return b.withCount(tokens, b.Unseen, 0) }

// WithCount is WithInput for the answer to a question.
func (b Bound) WithCount(q Question, tokens int64) Bound {
	return b.withCount(tokens, q.Unseen, q.Template)
}

// withCount narrows the prompt to what was counted and what was not seen, of which
// likely tokens are expected.
func (b Bound) withCount(tokens, unseen, likely int64) Bound {
	if tokens > 0 && !b.Open && tokens <= b.Input {
		b.Input = min(b.Input, AddSat(tokens, unseen))
		b.Counted = min(b.Input, AddSat(tokens, likely))
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
