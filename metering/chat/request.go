package chat

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
)

// RequestError says why a request is refused and what to do about it. It is
// the client's fault and meant for the client's eyes.
type RequestError struct {
	Reason string
	Param  string // the field that is refused; empty: none in particular
}

func (e *RequestError) Error() string { return "invalid request: " + e.Reason }

func refuse(format string, args ...any) error {
	return &RequestError{Reason: fmt.Sprintf(format, args...)}
}

// about names the field that a refusal is about, unless it is named already.
func about(field string, err error) error {
	if e, ok := err.(*RequestError); ok && e.Param == "" {
		e.Param = clip(field)
	}
	return err
}

// maxMembers bounds the top-level members of a request. The OpenAI API knows
// about 35.
const maxMembers = 128

// member is one top-level member as it was received.
type member struct {
	key   string
	kind  kind
	raw   []byte // the whole of it, `"key": value`
	value []byte
}

// Request is one chat completion request. It never changes after Parse and
// may be read from several goroutines.
type Request struct {
	body            []byte
	members         []member
	model           string
	stream          bool
	wantsUsage      bool
	wantsContinuous bool
	cap             int64 // the smallest completion cap asked for; 0: none
	sequences       int64
	size            size
}

// Parse takes a request body apart. It keeps body, which must not change any
// more. What it cannot vouch for it refuses with a *RequestError: invalid
// UTF-8 or JSON, data behind it, nesting beyond 128 levels, a field that
// comes twice or that differs from a known one only in case, and any of the
// fields that decide the cost when it is not of its documented type.
func Parse(body []byte) (*Request, error) {
	if err := checkDocument(body); err != nil {
		return nil, refuse("the body cannot be read: %v; send one JSON object", err)
	}
	r := &Request{body: body, sequences: 1, members: make([]member, 0, 16)}
	for c := members(body[skipSpace(body, 0):]); c.more(); {
		start := c.i
		key, value := c.member()
		m := member{key: string(key), raw: c.b[start:c.i], value: value}
		if err := r.add(m); err != nil {
			return nil, about(m.key, err)
		}
	}
	if r.model == "" {
		return nil, about("model", refuse("model is missing; name the model to ask"))
	}
	if r.size.messages == 0 {
		return nil, about("messages", refuse("messages is missing or empty; send at least one message"))
	}
	return r, nil
}

// add checks one member and takes from it what decides the cost.
func (r *Request) add(m member) error {
	m.kind = kindOf(m.key)
	if m.kind == kindUnknown && foldsToKnown(m.key) {
		return refuse("the field %q is not spelt as documented; use lower case", clip(m.key))
	}
	if len(r.members) == maxMembers {
		return refuse("there are more than %d fields; send fewer", maxMembers)
	}
	for i := range r.members {
		if r.members[i].key == m.key {
			return refuse("the field %q is given twice; send it once", clip(m.key))
		}
	}
	r.members = append(r.members, m)
	if isNull(m.value) && m.kind != kindModel && m.kind != kindMessages {
		return nil // as if it were absent
	}
	return r.read(m)
}

// read interprets one member that is not null.
func (r *Request) read(m member) (err error) {
	switch m.kind {
	case kindModel:
		if !isString(m.value) || len(m.value) == 2 {
			return refuse("model must be a non-empty string")
		}
		r.model = string(unquote(m.value))
	case kindMessages:
		return r.size.addMessages(m.value)
	case kindStream:
		r.stream, err = boolean(m.key, m.value)
	case kindOptions:
		return r.readOptions(m.value)
	case kindCap:
		var n int64
		if n, err = positive(m.key, m.value); err != nil {
			return refuse("%v; give the most tokens to generate, or leave it out", err)
		}
		if r.cap == 0 || n < r.cap { // the client asks for no more than each of its caps
			r.cap = n
		}
	case kindSequences:
		var n int64
		if n, err = positive(m.key, m.value); err != nil {
			return refuse("%v; leave it out for one", err)
		}
		r.sequences = max(r.sequences, n)
	case kindRefused:
		return refuse("the field %q hides parameters; send them as fields of their own", m.key)
	case kindBeam:
		var on bool
		if on, err = boolean(m.key, m.value); on {
			r.size.heavy(m.key)
		}
	default:
		r.size.addField(m)
	}
	return err
}

// readOptions reads stream_options.
func (r *Request) readOptions(v []byte) (err error) {
	if v[0] != '{' {
		return refuse("stream_options must be an object")
	}
	for c := members(v); c.more(); {
		key, value := c.member()
		switch name := string(key); {
		case isNull(value):
		case name == "include_usage":
			r.wantsUsage, err = boolean("stream_options.include_usage", value)
		case name == "continuous_usage_stats":
			r.wantsContinuous, err = boolean("stream_options.continuous_usage_stats", value)
		case foldsToOption(name):
			err = refuse("the field %q in stream_options is not spelt as documented; use lower case", clip(name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// foldsToOption reports whether name is a known member of stream_options in
// another case.
func foldsToOption(name string) bool {
	return bytes.EqualFold([]byte(name), []byte("include_usage")) || bytes.EqualFold([]byte(name), []byte("continuous_usage_stats"))
}

// boolean reads true or false.
func boolean(name string, v []byte) (bool, error) {
	if v[0] != 't' && v[0] != 'f' {
		return false, refuse("%s must be true or false", name)
	}
	return v[0] == 't', nil
}

// positive reads a whole number from 1 on; one beyond an int64 is the largest
// int64. 1.0 and 1e3 are refused: backends disagree about them.
func positive(name string, v []byte) (int64, error) {
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%s must be a whole number from 1 on, written in digits", name)
		}
		if n > (math.MaxInt64-9)/10 {
			return math.MaxInt64, nil
		}
		n = n*10 + int64(c-'0')
	}
	if n == 0 {
		return 0, fmt.Errorf("%s must be a whole number from 1 on, written in digits", name)
	}
	return n, nil
}

// Model is the name of the model as the client gave it; never empty.
func (r *Request) Model() string { return r.model }

// Stream reports whether the client asked for a stream of events.
func (r *Request) Stream() bool { return r.stream }

// WantsUsage reports whether the client asked for the usage chunk of a stream
// (stream_options.include_usage).
func (r *Request) WantsUsage() bool { return r.wantsUsage }

// WantsContinuousUsage reports whether the client asked for a usage in every
// chunk (stream_options.continuous_usage_stats).
func (r *Request) WantsContinuousUsage() bool { return r.wantsContinuous }

// PromptBytes is the number of bytes of text that the prompt is made of, as
// received, a template's overhead included: what a bytes-per-token ratio
// applies to.
func (r *Request) PromptBytes() int64 { return r.size.text }

// Messages is the number of messages; at least 1.
func (r *Request) Messages() int { return int(r.size.messages) }

// BodyHash is the SHA-256 of the body as received.
func (r *Request) BodyHash() [32]byte { return sha256.Sum256(r.body) }

// clip shortens hostile input before it goes into an error.
func clip(s string) string {
	if r := []rune(s); len(r) > 32 {
		return string(r[:32]) + "…"
	}
	return s
}
