package openai

import (
	"bytes"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// maxMembers bounds the top-level members of a request. The OpenAI API knows
// about 35.
const maxMembers = 128

// member is one top-level member as it was received.
type member struct {
	key     string
	kind    kind
	dropped bool   // no backend gets it
	forced  bool   // the owner of the model set it
	raw     []byte // the whole of it, `"key": value`
	value   []byte
}

// saysNothing reports whether a member that templates write is empty. An empty
// object in place of a schema says something: any JSON fits it.
func (m *member) saysNothing() bool {
	switch m.kind {
	case kindTools, kindScalars:
		return isEmpty(m.value)
	case kindRendered:
		return isEmpty(m.value) && m.value[0] != '{'
	}
	return false
}

// Request is one chat completion request. It never changes after Parse and
// may be read from several goroutines.
type Request struct {
	body            []byte
	members         []member
	messages        []byte // the conversation as a backend gets it
	model           string
	stream          bool
	wantsUsage      bool
	wantsContinuous bool
	cap             int64 // the smallest completion cap asked for; 0: none
	floor           int64 // the fewest completion tokens asked for
	sequences       int64
	beams           int64 // sequences that would be generated, thrown away ones included
	size            size
	ids             int64 // tokens of prompts that were sent by their numbers
	prompts         []prompt
	suffix          int64 // the most tokens of the text behind each completion; 0: none
}

// Parse takes a request body apart, for a model whose owner allows nothing
// beyond what is known. See ParseFor.
func Parse(body []byte) (*Request, error) {
	return ParseFor(body, func(string) *format.Policy { return new(format.Policy) })
}

// ParseFor takes a request body apart. policy says what the owner of a model
// allows. ParseFor keeps body, which must not change any more. What it cannot vouch
// for it refuses with a *RequestError that names the field: invalid UTF-8 or
// JSON, data behind it, nesting beyond 128 levels, a field that comes twice or that
// differs from a known one only in case, any field that is not known, and a field
// that decides the cost when it is not of its documented type.
func ParseFor(body []byte, policy func(model string) *format.Policy) (*Request, error) {
	text := rawjson.TrimBOM(body)
	if err := rawjson.CheckDocument(text); err != nil {
		return nil, format.Refuse("the body cannot be read: %v; send one JSON object", err)
	}
	r := &Request{body: body, sequences: 1, members: make([]member, 0, 16)}
	var err error
	if r.members, r.model, err = collect(text[rawjson.SkipSpace(text, 0):], r.members, kindOf); err != nil {
		return nil, err
	}
	p := policy(r.model)
	r.members = impose(r.members, p, kindOf)
	for i := range r.members {
		if err := r.read(&r.members[i], p); err != nil {
			return nil, format.About(r.members[i].key, err)
		}
	}
	if r.size.messages == 0 {
		return nil, format.RefuseParam("messages", "messages is missing or empty; send at least one message")
	}
	return r, r.checkBeams()
}

// collect takes an object apart. It appends the object's members, of the kinds that the
// API knows, to members and finds the model.
func collect(object []byte, members []member, kindOf func(string) kind) (_ []member, model string, err error) {
	for c := rawjson.Members(object); c.More(); {
		start := c.At()
		key, value := c.Member()
		m := member{key: string(key), raw: c.Since(start), value: value}
		if m.kind = kindOf(m.key); m.kind == kindUnknown && foldsToKnown(m.key, kindOf) {
			return nil, "", format.RefuseParam(format.Clip(m.key), "the field %q is not spelt as documented; use lower case", format.Clip(m.key))
		}
		if len(members) == maxMembers {
			return nil, "", format.Refuse("there are more than %d fields; send fewer", maxMembers)
		}
		for i := range members {
			if members[i].key == m.key {
				return nil, "", format.RefuseParam(format.Clip(m.key), "the field %q is given twice; send it once", format.Clip(m.key))
			}
		}
		if m.kind == kindModel {
			if !rawjson.IsString(value) || len(value) == 2 {
				return nil, "", format.RefuseParam("model", "model must be a non-empty string")
			}
			model = string(rawjson.Unquote(value))
		}
		members = append(members, m)
	}
	if model == "" {
		return nil, "", format.RefuseParam("model", "model is missing; name the model to ask")
	}
	return members, model, nil
}

// read decides what becomes of one member and takes from it what decides the
// cost.
func (r *Request) read(m *member, p *format.Policy) (err error) {
	switch m.kind {
	case kindModel:
		return nil
	case kindMessages:
		if m.value[0] != '[' {
			return format.Refuse("messages must be a list of messages")
		}
		if r.messages, err = screenMessages(m.value, p); err == nil {
			r.size.addMessages(r.messages)
		}
		return err
	case kindDropped:
		m.dropped = !m.forced
		return nil
	case kindForbidden, kindRisky, kindUnknown:
		return r.admit(m, p)
	case kindCap, kindFloor, kindSequences, kindBeams:
		m.dropped = true // what is read here is written anew
		return r.readNumber(m)
	}
	if rawjson.IsNull(m.value) {
		return nil // as if it were absent
	}
	if m.saysNothing() {
		m.dropped = true // a template could write it
		return nil
	}
	switch m.kind {
	case kindStream:
		r.stream, err = boolean(m.key, m.value)
	case kindOptions:
		err = r.readOptions(m.value)
	case kindTools:
		err = screenTools(m.key, m.value)
	case kindScalars:
		err = screenArguments(m.key, m.value)
	case kindModalities:
		err = screenModalities(m.value)
	case kindSwitch:
		if !rawjson.IsScalar(m.value) || len(m.value) > maxSwitch {
			return format.Refuse("%s must be a plain value of at most %d bytes", m.key, maxSwitch)
		}
	}
	if err == nil {
		r.size.addField(m)
	}
	return err
}

// admit decides whether a field passes that is not known to be bounded: only if
// the owner allows it. What says nothing is dropped, because SDKs and clients
// write fields that they do not use so.
func (r *Request) admit(m *member, p *format.Policy) error {
	switch {
	case m.forced:
	case isEmpty(m.value), m.kind != kindUnknown && isNeutral(m.value):
		m.dropped = true
		return nil
	case m.key == "prompt":
		return format.Refuse("prompt belongs to /v1/completions; send messages here, or call that path")
	case m.kind == kindForbidden:
		return format.Refuse("the field %q cannot be used here; leave it out", m.key)
	case !p.Allows(m.key):
		return format.Refuse("the field %q is not known here; leave it out", format.Clip(m.key))
	}
	r.size.addField(m)
	return nil
}

// readNumber reads a field that says how much is generated.
func (r *Request) readNumber(m *member) error {
	switch m.kind {
	case kindCap:
		n, err := capOf(m.key, m.value)
		if n > 0 && (r.cap == 0 || n < r.cap) { // the client asks for no more than each of its caps
			r.cap = n
		}
		return err
	case kindFloor:
		n, ok := rawjson.Whole(m.value)
		if !rawjson.IsNull(m.value) && (!ok || n < 0) {
			return format.Refuse("%s must be a whole number; leave it out for none", m.key)
		}
		r.floor = max(r.floor, n)
		return nil
	case kindSequences:
		n, err := countOf(m.key, m.value)
		r.sequences = max(r.sequences, n)
		return err
	}
	if m.key == "use_beam_search" {
		if !isNeutral(m.value) {
			return format.Refuse("beam search generates tokens that nobody counts; leave use_beam_search out, or ask for n completions")
		}
		return nil
	}
	n, err := countOf(m.key, m.value)
	r.beams = max(r.beams, n)
	return err
}

// checkBeams refuses completions that are generated and thrown away: no usage
// counts them.
func (r *Request) checkBeams() error {
	if r.beams > r.sequences {
		return format.RefuseParam("best_of", "best_of above n generates tokens that nobody counts; ask for n completions")
	}
	return nil
}

// readOptions reads stream_options.
func (r *Request) readOptions(v []byte) (err error) {
	if v[0] != '{' {
		return format.Refuse("stream_options must be an object")
	}
	for c := rawjson.Members(v); c.More(); {
		key, value := c.Member()
		switch name := string(key); {
		case foldsToOption(name):
			return format.Refuse("the field %q in stream_options is not spelt as documented; use lower case", format.Clip(name))
		case rawjson.IsNull(value), name == "include_obfuscation":
		case name == "include_usage":
			r.wantsUsage, err = boolean("stream_options.include_usage", value)
		case name == "continuous_usage_stats":
			r.wantsContinuous, err = boolean("stream_options.continuous_usage_stats", value)
		case !isNeutral(value):
			return format.RefuseParam("stream_options."+format.Clip(name),
				"the field %q in stream_options is not known here; leave it out", format.Clip(name))
		}
		if err != nil {
			return format.About("stream_options", err)
		}
	}
	return nil
}

// foldsToOption reports whether name is a known member of stream_options in
// another case.
func foldsToOption(name string) bool {
	for _, known := range [...]string{"include_usage", "continuous_usage_stats"} {
		if name != known && bytes.EqualFold([]byte(name), []byte(known)) {
			return true
		}
	}
	return false
}

// boolean reads true or false.
func boolean(name string, v []byte) (bool, error) {
	if v[0] != 't' && v[0] != 'f' {
		return false, format.Refuse("%s must be true or false", name)
	}
	return v[0] == 't', nil
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

// PromptBytes is the number of bytes of text that the prompt is made of, in UTF-8
// however the client wrote it, a template's overhead included: what a
// bytes-per-token ratio applies to.
func (r *Request) PromptBytes() int64 { return r.size.text }

// Messages is the number of messages; at least 1.
func (r *Request) Messages() int { return int(r.size.messages) }

// Media is the number of pictures, sounds, films and files in the messages.
func (r *Request) Media() int { return int(r.size.media) }

// HasCap reports whether the client said how many tokens it wants at most.
func (r *Request) HasCap() bool { return r.cap > 0 }
