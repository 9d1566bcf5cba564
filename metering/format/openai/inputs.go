package openai

import (
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// The kinds of members that only requests without a completion have.
const (
	kindText     kind = 64 + iota // texts to read
	kindEncoding                  // float or base64
	kindCount                     // a whole number that costs nothing
	kindNoStream                  // stream: only false
	kindLabels                    // token ids whose likelihoods are the scores
)

const (
	// prefixTokens is the most that a word such as input_type makes a model's
	// template write before each text, beside the word.
	prefixTokens = 32
	// hardItems bounds what is taken of one request whatever a model's owner allows.
	hardItems = 1 << 16
)

// inputAPI is what differs between the APIs that have a model read texts and generate
// nothing.
type inputAPI struct {
	kindOf  func(key string) kind
	strict  func(key string) bool // members that an engine takes which refuses what it does not know
	items   string                // the member that has the most texts
	most    int64                 // of them, where the owner of a model says nothing
	special int64                 // tokens that engines put around a text, or a pair of texts, at most
	likely  int64                 // and usually
}

// inputs is a request to read texts. The requests of the APIs embed it. It never
// changes once it was parsed.
type inputs struct {
	api     *inputAPI
	members []member
	size    int // bytes of the body
	model   string
	texts   []textSize // of each text, or pair of texts, as often as it is read
	ids     []int64    // lengths of the lists of token ids, which no engine adds to
	sides   [2][]byte  // the texts as they came; of pairs, either side: a text, or a list of texts
	added   int64      // tokens that other members may add to each text

	searches, documents int64
}

// parse takes a body apart. read takes the members with texts.
func (r *inputs) parse(body []byte, policy func(model string) *format.Policy, read func(m *member) error) error {
	text := rawjson.TrimBOM(body)
	if err := rawjson.CheckDocument(text); err != nil {
		return format.Refuse("the body cannot be read: %v; send one JSON object", err)
	}
	r.size = len(body)
	var err error
	if r.members, r.model, err = collect(text[rawjson.SkipSpace(text, 0):], make([]member, 0, 8), r.api.kindOf); err != nil {
		return err
	}
	p := policy(r.model)
	r.members = impose(r.members, p, r.api.kindOf)
	for i := range r.members {
		m := &r.members[i]
		var err error
		if m.kind == kindText {
			err = read(m)
		} else {
			err = r.read(m, p)
		}
		if err != nil {
			return format.About(m.key, err)
		}
	}
	return nil
}

// read decides what becomes of a member that has no texts.
func (r *inputs) read(m *member, p *format.Policy) error {
	switch {
	case m.kind == kindModel:
	case m.kind == kindDropped:
		m.dropped = !m.forced
	case isEmpty(m.value) && !m.forced:
		m.dropped = true
	case m.kind == kindNoStream:
		if m.dropped = true; !isNeutral(m.value) {
			return format.Refuse("there is no stream of events here; leave stream out")
		}
	case m.kind == kindEncoding:
		if v := string(m.value); v != `"float"` && v != `"base64"` {
			return format.Refuse(`%s must be "float" or "base64"`, m.key)
		}
	case m.kind == kindCount:
		if n, ok := rawjson.Whole(m.value); !ok || n < 0 {
			return format.Refuse("%s must be a whole number; leave it out for none", m.key)
		}
	case m.kind == kindHarmless:
		if !rawjson.IsScalar(m.value) {
			return format.Refuse("%s must be a plain value", m.key)
		}
	case m.kind == kindLabels:
		if m.value[0] != '[' {
			return format.Refuse("%s must be a list of token ids", m.key)
		}
		_, err := idsIn(m.value)
		return err
	case m.kind == kindSwitch:
		if !rawjson.IsScalar(m.value) || len(m.value) > maxSwitch {
			return format.Refuse("%s must be a plain value of at most %d bytes", m.key, maxSwitch)
		}
		r.added += prefixTokens + int64(len(m.value))
		if rawjson.IsString(m.value) {
			r.added += grows(rawjson.Unquote(m.value))
		}
	case m.kind == kindRendered:
		if !rawjson.IsString(m.value) {
			return format.Refuse("%s must be a text", m.key)
		}
		r.added += sizeOf(m.value).most
	case m.kind == kindForbidden:
		if m.dropped = isNeutral(m.value); !m.dropped {
			return format.Refuse("the field %q cannot be used here; leave it out", m.key)
		}
	case !m.forced && !p.Allows(m.key):
		return format.Refuse("the field %q is not known here; leave it out", format.Clip(m.key))
	default:
		r.added += int64(len(m.raw))
	}
	return nil
}

// addText takes a text of this size.
func (r *inputs) addText(size textSize) error {
	if len(r.texts) == hardItems {
		return format.Refuse("%s has more than %d elements; send fewer at once", r.api.items, hardItems)
	}
	r.texts = append(r.texts, size)
	return nil
}

// Model implements format.Request.
func (r *inputs) Model() string { return r.model }

// Stream implements format.Request: there is none.
func (r *inputs) Stream() bool { return false }

// HasCap implements format.Request: nothing is generated, so nothing has a cap that
// could be lowered.
func (r *inputs) HasCap() bool { return true }

// PromptBytes implements format.Request.
func (r *inputs) PromptBytes() (bytes int64) {
	for i := range r.texts {
		bytes = format.AddSat(bytes, r.texts[i].bytes)
	}
	return bytes
}

// idTokens is how many of the tokens that the client counted itself are read, where a
// model reads at most so many of each list; 0: all.
func (r *inputs) idTokens(most int64) (tokens int64) {
	for _, n := range r.ids {
		if most > 0 {
			n = min(n, most)
		}
		tokens += n
	}
	return tokens
}

// within is a count of all texts, without what it has of each of them above the most that
// a model reads of one; 0: that is not known. Of the count, each text has its share by
// its bytes and what is usually around it.
func (r *inputs) within(tokens, most int64) int64 {
	if most <= 0 || tokens <= most {
		return tokens
	}
	marks := format.DefaultBytesPerToken * float64(r.api.likely)
	share := float64(tokens) / (float64(r.PromptBytes()) + marks*float64(len(r.texts)))
	read := tokens
	for i := range r.texts {
		read -= max(0, int64(share*(float64(r.texts[i].bytes)+marks))-most)
	}
	return read
}

// around is the most that is put around each text, in tokens.
func (r *inputs) around(l format.Limits) int64 {
	return format.AddSat(r.api.special+r.added, max(0, l.TemplatePerMessage))
}

// Bound implements format.Request. A text has at most as many tokens as bytes, after a
// tokenizer has normalised it, and what is put around it, a list of token ids exactly its length, and either at most the
// context length, because no model reads more of it. There is no completion.
func (r *inputs) Bound(l format.Limits) (format.Bound, error) {
	most := r.api.most
	if l.MaxItems > 0 {
		most = l.MaxItems
	}
	if n := int64(len(r.texts) + len(r.ids)); n > most {
		return format.Bound{}, format.RefuseParam(r.api.items, "%s has %d elements; send at most %d at once", r.api.items, n, most)
	}
	b := format.Bound{Sequences: 1, Input: max(0, l.TemplateBase), Each: max(0, l.ContextTokens), Searches: r.searches, Documents: r.documents}
	add := func(tokens int64) {
		if l.ContextTokens > 0 {
			tokens = min(tokens, l.ContextTokens)
		}
		b.Input = format.AddSat(b.Input, tokens)
	}
	around := r.around(l)
	for i := range r.texts {
		add(format.AddSat(r.texts[i].most, around))
	}
	for _, tokens := range r.ids {
		add(tokens)
	}
	if b.Input == format.MaxInt64 {
		return format.Bound{}, format.RefuseParam(r.api.items, "the texts are too long; shorten them")
	}
	return b, nil
}

// Fit implements format.Request: there is no cap to fit.
func (r *inputs) Fit(b format.Bound, _ format.Limits) format.Bound { return b }

// Countable implements format.Request: token ids are counted already.
func (r *inputs) Countable() bool { return len(r.texts) > 0 }

// Gathered implements format.Request.
func (r *inputs) Gathered(format.Profile) bool { return false }

// counting completes the call that counts all texts as one: what is around each of
// them it is not shown, and where two of them meet they may be a token less.
func (r *inputs) counting(q format.Question, l format.Limits) format.Question {
	n := int64(len(r.texts))
	q.Unseen = format.AddSat(format.MulSat(n, r.around(l)+1), max(0, l.TemplateBase))
	q.Template = n * r.api.likely
	return q
}

// Rewrite implements format.Request: the known members as they came, under the
// backend's name of the model.
func (r *inputs) Rewrite(w format.Rewrite) []byte {
	strict := w.Profile.Engine == format.EngineOpenAI || w.Profile.Engine == format.EngineTRTLLM
	out := make([]byte, 0, r.size+len(w.Model)+16)
	for i := range r.members {
		m := &r.members[i]
		switch {
		case m.dropped, strict && !m.forced && m.kind != kindUnknown && !r.api.strict(m.key):
		case m.kind == kindModel && w.Model != "":
			out = rawjson.AppendMember(out, m.key, rawjson.Quote(w.Model))
		default:
			out = append(rawjson.Separate(out), m.raw...)
		}
	}
	return append(out, '}')
}
