package openai

import (
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// Embeddings is POST /v1/embeddings.
var Embeddings format.Format = embeddings{}

type embeddings struct{}

// embeddingsAPI: the API takes at most 2,048 texts at once. Engines put a token before
// and one behind a text, and a mark for its beginning may be one more on either side.
var embeddingsAPI = inputAPI{kindOf: embeddingKind, strict: strictEmbedding, items: "input", most: 2048, special: 4, likely: 2}

// Name implements format.Format.
func (embeddings) Name() string { return "embeddings" }

// Paths implements format.Format.
func (embeddings) Paths() []string { return []string{"/v1/embeddings"} }

// Smallest implements format.Format: one word.
func (embeddings) Smallest() (path, body string) {
	return "/v1/embeddings", `{"model":"-","input":"Hi"}`
}

// Parse implements format.Format.
func (embeddings) Parse(_ string, body []byte, policy func(model string) *format.Policy) (format.Request, error) {
	r := &embeddingRequest{inputs: inputs{api: &embeddingsAPI}}
	if err := r.parse(body, policy, r.readInput); err != nil {
		return nil, err
	}
	if len(r.texts)+len(r.ids) == 0 {
		return nil, format.RefuseParam("input", "input is missing or empty; send a text, a list of texts, or token ids")
	}
	for i := range r.members {
		m := &r.members[i]
		r.packed = r.packed || m.kind == kindEncoding && !m.dropped && string(m.value) == `"base64"`
	}
	return r, nil
}

// embeddingKind is the kind of a member of a request: those of the OpenAI API, and of
// the servers that speak it.
func embeddingKind(key string) kind {
	switch key {
	case "model":
		return kindModel
	case "input":
		return kindText
	case "encoding_format":
		return kindEncoding
	case "dimensions":
		return kindCount
	case "stream":
		return kindNoStream
	case "input_type", "task":
		return kindSwitch
	case "user", "safety_identifier", "truncate_prompt_tokens", "truncation_side", "truncation_direction", "truncate", "truncation",
		"add_special_tokens", "normalize", "normalized", "embd_normalize", "activation", "use_activation", "embed_dtype", "endianness",
		"cache_salt":
		return kindHarmless
	case "messages", "content", "inputs", "text", "texts", "images", "image", "chat_template", "chat_template_kwargs",
		"mm_processor_kwargs", "media_io_kwargs":
		return kindForbidden
	}
	return otherKind(key)
}

// otherKind is the kind of a member that means the same in a chat.
func otherKind(key string) kind {
	switch {
	case isDropped(key):
		return kindDropped
	case isForbidden(key):
		return kindForbidden
	}
	return kindUnknown
}

func strictEmbedding(key string) bool {
	switch key {
	case "model", "input", "encoding_format", "dimensions", "user":
		return true
	}
	return false
}

// embeddingRequest is one request for embeddings.
type embeddingRequest struct {
	inputs
	packed bool // the vectors may come in base64
}

// readInput reads a text, a list of texts, a list of token ids, or a list of those.
func (r *embeddingRequest) readInput(m *member) error {
	r.sides[0] = m.value
	switch m.value[0] {
	case '"':
		return r.addText(sizeOf(m.value))
	case '[':
	default:
		return errInput()
	}
	first := byte(0) // of the first element: they are all of one kind
	for c := rawjson.Elements(m.value); c.More(); {
		v := c.Value()
		kind := v[0]
		if kind >= '0' && kind <= '9' {
			kind = '0'
		}
		if first == 0 {
			first = kind
		}
		if kind != first {
			return format.Refuse("the elements of input must be all texts, all token ids, or all lists of token ids")
		}
		switch kind {
		case '"':
			if err := r.addText(sizeOf(v)); err != nil {
				return err
			}
		case '[':
			n, err := idsIn(v)
			if err != nil {
				return err
			}
			if len(r.ids) == hardItems {
				return format.Refuse("input has more than %d elements; send fewer at once", hardItems)
			}
			r.ids = append(r.ids, n)
		case '0':
			n, err := idsIn(m.value)
			r.ids = []int64{n}
			return err
		default:
			return errInput()
		}
	}
	return nil
}

func errInput() error {
	return format.Refuse("input must be a text, a list of texts, a list of token ids, or a list of such lists")
}

// idsIn counts the token ids of a list.
func idsIn(list []byte) (n int64, err error) {
	for c := rawjson.Elements(list); c.More(); n++ {
		if id, ok := rawjson.Whole(c.Value()); !ok || id < 0 {
			return 0, format.Refuse("a list of token ids must hold whole numbers only")
		}
	}
	if n == 0 {
		return 0, format.Refuse("a list of token ids is empty")
	}
	return n, nil
}

// CountPrompt implements format.Request.
func (r *embeddingRequest) CountPrompt(p format.Profile, model string, l format.Limits) []format.Question {
	if p.Counting == format.CountNone || !r.Countable() { // before the texts are joined
		return nil
	}
	q, ok := format.CountText(p, model, joined(r.sides[0]))
	if !ok {
		return nil
	}
	return []format.Question{r.counting(q, l)}
}

// joined is a text, or the texts of a list, each on a line of its own.
func joined(v []byte) string {
	if rawjson.IsString(v) {
		return string(rawjson.Unquote(v))
	}
	var all []byte
	for c := rawjson.Elements(v); c.More(); {
		if text := textOf(c.Value()); text != nil {
			if all != nil {
				all = append(all, '\n')
			}
			all = append(all, rawjson.Unquote(text)...)
		}
	}
	return string(all)
}

// Meter implements format.Request.
func (r *embeddingRequest) Meter(b format.Bound, cal *format.Calibration, o format.MeterOptions) format.Meter {
	return newInputMeter(&r.inputs, &results{lists: []string{"data"}, want: int64(len(r.texts) + len(r.ids)), read: r.readVector}, b, cal, o)
}
