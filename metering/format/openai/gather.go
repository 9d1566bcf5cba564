package openai

import (
	"bytes"
	"strconv"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// Gathered reports whether a request for one document may be asked of a backend
// as a stream and put together again, so that the gateway knows at each moment what
// was generated. The backend must stream what it would have answered, and nothing
// in the request may be possible in a document only.
func (r *Request) Gathered(p format.Profile) bool {
	if r.stream || !p.Streams || !p.IncludeUsage {
		return false
	}
	for i := range r.members {
		m := &r.members[i]
		if m.dropped || saysNothing(m.value) {
			continue
		}
		switch m.kind {
		case kindTools:
			if !p.StreamsTools {
				return false
			}
		case kindUnknown, kindForbidden, kindRisky, kindBeams, kindModalities:
			return false
		case kindRendered:
			if m.key == "functions" && !p.StreamsTools {
				return false
			}
		}
	}
	return true
}

// Gathering puts the chunks of a stream together to the document that the backend
// would have sent. What is known to come in pieces is joined in its order: texts,
// arguments, sound, lists of parts and of tokens. Of everything else, members that
// are not known among them, the last value that says something counts.
type Gathering struct {
	top     node
	choices []gathered
	usage   []byte
	alone   bool  // usage came in a chunk of its own
	finals  int64 // such chunks
	total   usage // of all of them
	size    int
}

// gathered is one choice.
type gathered struct {
	index   int64
	choice  node // without its message
	message node
	calls   []call
}

// call is one tool call.
type call struct {
	index int64
	id    []byte // of its last piece that has one; nil: none
	node  node
}

// Add takes the data of one event: an object that Meter.Event has read. It
// reports how many bytes were taken in all.
func (g *Gathering) Add(data []byte) int {
	alone := true
	var raw, beside []byte
	for w := rawjson.Members(data[rawjson.SkipSpace(data, 0):]); w.More(); {
		key, value := w.Member()
		switch string(key) {
		case "choices":
			if value[0] == '{' {
				g.addChoice(value)
				alone = false
			}
			for e := rawjson.Elements(value); e.More(); alone = false {
				g.addChoice(e.Value())
			}
		case "usage":
			raw = value
		case "object":
		case "delta", "message":
			if beside = value; value[0] != '{' {
				g.addTop(key, value)
			}
		default:
			g.addTop(key, value)
		}
	}
	if alone && beside != nil && beside[0] == '{' { // the choice without its list
		g.choice(0).addMessage(beside)
	}
	if raw != nil && !rawjson.IsNull(raw) && (alone || !g.alone) {
		g.usage, g.alone = append(g.usage[:0], raw...), alone
		if u, ok := readUsage(raw); alone && ok {
			g.finals++
			g.total.prompt, g.total.completion = max(g.total.prompt, u.prompt), format.AddSat(g.total.completion, max(0, u.tokens()))
		}
	}
	g.size += len(data)
	return g.size
}

// addTop adds a member that stands beside the choices: one that is known to hold text of
// a model comes in pieces.
func (g *Gathering) addTop(key, value []byte) {
	if isSpeech(key) {
		g.top.field(key).join(content, value)
		return
	}
	g.top.field(key).replace(value)
}

var content = []byte("content")

// name puts the public name of the model in place of the backend's; nil: it stays.
func (g *Gathering) name(public []byte) {
	if n := g.top.find(format.MemberModel); n != nil && public != nil {
		n.replace(public)
	}
}

func (g *Gathering) addChoice(v []byte) {
	if v[0] != '{' {
		if hasText(v) {
			g.choice(0).addMessage(v)
		}
		return
	}
	var index int64
	var delta, message []byte
	for w := rawjson.Members(v); w.More(); {
		switch key, value := w.Member(); string(key) {
		case "index":
			index, _ = number(value)
		case "delta":
			delta = unlessNothing(value)
		case "message":
			message = unlessNothing(value)
		}
	}
	c := g.choice(index)
	if delta == nil { // else the message has all deltas until now
		delta = message
	}
	if delta != nil {
		c.addMessage(delta)
	}
	for w := rawjson.Members(v); w.More(); {
		key, value := w.Member()
		switch string(key) {
		case "index", "delta", "message":
		case "finish_reason":
			switch why := reason(value); {
			case why == "":
			case rawjson.IsString(value):
				c.choice.field(key).replace(value)
			default: // an object: clients know words only
				c.choice.field(key).replace(rawjson.Quote(why))
			}
		default:
			c.choice.field(key).join(key, value)
		}
	}
}

// choice is the choice with an index, made when it is new.
func (g *Gathering) choice(index int64) *gathered {
	at := 0
	for ; at < len(g.choices); at++ {
		if g.choices[at].index == index {
			return &g.choices[at]
		}
		if g.choices[at].index > index {
			break
		}
	}
	if len(g.choices) == maxChoices {
		return &g.choices[maxChoices-1]
	}
	g.choices = append(g.choices, gathered{})
	copy(g.choices[at+1:], g.choices[at:])
	g.choices[at] = gathered{index: index}
	return &g.choices[at]
}

func (c *gathered) addMessage(v []byte) {
	if v[0] != '{' { // the content without a name
		c.message.field([]byte("content")).lengthen(v)
		return
	}
	for w := rawjson.Members(v); w.More(); {
		key, value := w.Member()
		if string(key) != "tool_calls" || rawjson.IsScalar(value) {
			c.message.field(key).join(key, value)
			continue
		}
		if value[0] == '{' {
			c.addCall(value)
		}
		for e := rawjson.Elements(value); e.More(); {
			c.addCall(e.Value())
		}
	}
}

// addCall adds a piece of a tool call: to the one that it goes on with, else as
// another one.
func (c *gathered) addCall(v []byte) {
	p := readPiece(v)
	at := c.callOf(&p)
	if at < 0 {
		if !p.indexed {
			p.index = int64(len(c.calls))
		}
		c.calls = append(c.calls, call{index: p.index})
		at = len(c.calls) - 1
	}
	if p.id != nil {
		c.calls[at].id = append(c.calls[at].id[:0], p.id...)
	}
	for w := rawjson.Members(v); w.More(); {
		if key, value := w.Member(); string(key) != "index" {
			c.calls[at].node.field(key).join(key, value)
		}
	}
}

// callPiece is what tells to which call a piece belongs.
type callPiece struct {
	index   int64
	indexed bool
	id      []byte // nil: none
	whole   bool   // it has a name, and arguments from their beginning
}

func readPiece(v []byte) (p callPiece) {
	for w := rawjson.Members(v); w.More(); {
		switch key, value := w.Member(); string(key) {
		case "index":
			p.index, p.indexed = number(value)
		case "id":
			p.id = unlessNothing(value)
		case "function":
			named, begins := false, false
			for f := rawjson.Members(value); f.More(); {
				switch key, value := f.Member(); string(key) {
				case "name":
					named = !saysNothing(value)
				case "arguments":
					begins = bytes.HasPrefix(bytes.TrimSpace(rawjson.UnquoteAny(value)), []byte("{"))
				}
			}
			p.whole = named && begins
		}
	}
	return p
}

// callOf is the call that a piece goes on with: the one with its index, or its id;
// without either, the last one; -1 where it is another call. Some engines give each
// call the index 0: there another id, or a name with arguments, begins another call,
// unless the arguments until now are half an object. Others give each piece another id.
func (c *gathered) callOf(p *callPiece) int {
	at := len(c.calls) - 1
	if !p.indexed && p.id == nil {
		return at
	}
	for ; at >= 0; at-- {
		if p.indexed && c.calls[at].index == p.index || !p.indexed && bytes.Equal(c.calls[at].id, p.id) {
			break
		}
	}
	if at < 0 || !p.indexed {
		return at
	}
	arguments := c.calls[at].node.find("function").find("arguments")
	other := p.id != nil && c.calls[at].id != nil && !bytes.Equal(c.calls[at].id, p.id)
	if (other || p.whole && p.id == nil && !arguments.empty()) && !arguments.open() {
		return -1
	}
	return at
}

// Document is the answer. perSequence says that each completion had a usage of its
// own, so that the answer has their sum. capped says that the answer was cut at the
// cap, which the backend did not keep to: completions without an end end there.
func (g *Gathering) Document(perSequence, capped bool) []byte {
	out := make([]byte, 0, g.size+256)
	out = append(g.top.appendFields(append(out, '{')), ',')
	if len(g.top.fields) == 0 {
		out = out[:1]
	}
	out = append(out, `"object":"chat.completion","choices":[`...)
	for i := range g.choices {
		out = g.choices[i].append(rawjson.Next(out), capped)
	}
	out = append(out, ']')
	switch {
	case perSequence && g.finals > 1:
		out = append(out, `,"usage":{"prompt_tokens":`...)
		out = strconv.AppendInt(out, g.total.prompt, 10)
		out = append(out, `,"completion_tokens":`...)
		out = strconv.AppendInt(out, g.total.completion, 10)
		out = append(out, `,"total_tokens":`...)
		out = append(strconv.AppendInt(out, format.AddSat(g.total.prompt, g.total.completion), 10), '}')
	case g.usage != nil:
		out = append(append(out, `,"usage":`...), g.usage...)
	}
	return append(out, '}')
}

func (c *gathered) append(out []byte, capped bool) []byte {
	out = append(out, `{"index":`...)
	out = append(strconv.AppendInt(out, c.index, 10), `,"message":{`...)
	if role := c.message.field([]byte("role")); role.kind != '"' {
		role.replace([]byte(`"assistant"`))
	}
	if content := c.message.field([]byte("content")); content.kind == '"' && len(content.raw) == 0 && len(c.calls) > 0 {
		*content = node{} // engines answer null beside a call
	}
	out = c.message.appendFields(out)
	if len(c.calls) > 0 {
		out = append(out, `,"tool_calls":[`...)
		for i := range c.calls {
			out = c.calls[i].node.append(rawjson.Next(out))
		}
		out = append(out, ']')
	}
	reason := c.choice.field([]byte("finish_reason"))
	if reason.kind == 0 && capped {
		reason.replace([]byte(`"length"`))
	}
	return append(c.choice.appendFields(append(out, '}')), '}')
}
