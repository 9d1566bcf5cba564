package chat

import (
	"bytes"
	"strconv"
)

// Gathered reports whether a request for one document may be asked of a backend
// as a stream and put together again, so that the gateway knows at each moment what
// was generated. The backend must stream what it would have answered, and nothing
// in the request may be possible in a document only.
func (r *Request) Gathered(p Profile) bool {
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
// would have sent. Texts and lists within a choice are joined in their order,
// members that are not known among them; of everything else the last value that is
// not null counts.
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
	node  node
}

// node is a JSON value that grows.
type node struct {
	kind   byte   // the first byte of the value; 0: none yet
	raw    []byte // of strings and arrays what is between their ends, else the value
	fields []field
}

type field struct {
	name string
	node node
}

// Add takes the data of one event: an object that Meter.Event has read. It
// reports how many bytes were taken in all.
func (g *Gathering) Add(data []byte) int {
	alone := true
	var raw []byte
	for w := members(data[skipSpace(data, 0):]); w.more(); {
		key, value := w.member()
		switch string(key) {
		case "choices":
			for e := elements(value); e.more(); alone = false {
				g.addChoice(e.value())
			}
		case "usage":
			raw = value
		case "object":
		default:
			g.top.field(key).replace(value)
		}
	}
	if raw != nil && !isNull(raw) && (alone || !g.alone) {
		g.usage, g.alone = append(g.usage[:0], raw...), alone
		if u, ok := readUsage(raw); alone && ok {
			g.finals++
			g.total.prompt, g.total.completion = max(g.total.prompt, u.prompt), addSat(g.total.completion, max(0, u.tokens()))
		}
	}
	g.size += len(data)
	return g.size
}

func (g *Gathering) addChoice(v []byte) {
	if v[0] != '{' {
		return
	}
	var index int64
	for w := members(v); w.more(); {
		if key, value := w.member(); string(key) == "index" {
			index, _ = number(value)
		}
	}
	c := g.choice(index)
	for w := members(v); w.more(); {
		key, value := w.member()
		switch string(key) {
		case "index":
		case "delta", "message":
			c.addMessage(value)
		case "finish_reason":
			switch why := reason(value); {
			case why == "":
			case isString(value):
				c.choice.field(key).replace(value)
			default: // an object: clients know words only
				c.choice.field(key).replace(quote(why))
			}
		case "stop_reason", "matched_stop":
			c.choice.field(key).replace(value)
		default:
			c.choice.field(key).merge(value)
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
	for w := members(v); w.more(); {
		key, value := w.member()
		switch string(key) {
		case "role":
			c.message.field(key).replace(value)
		case "tool_calls":
			for e := elements(value); e.more(); {
				c.addCall(e.value())
			}
		default:
			c.message.field(key).merge(value)
		}
	}
}

// addCall adds a piece of a tool call: to the one with its index, or to the last
// one. A piece without an index that has an id begins another call.
func (c *gathered) addCall(v []byte) {
	index, indexed, named := int64(0), false, false
	for w := members(v); w.more(); {
		switch key, value := w.member(); string(key) {
		case "index":
			index, indexed = number(value)
		case "id":
			named = !saysNothing(value)
		}
	}
	at := len(c.calls) - 1
	if indexed {
		for at >= 0 && c.calls[at].index != index {
			at--
		}
	} else if named {
		at, index = -1, int64(len(c.calls))
	}
	if at < 0 {
		c.calls = append(c.calls, call{index: index})
		at = len(c.calls) - 1
	}
	for w := members(v); w.more(); {
		if key, value := w.member(); string(key) != "index" {
			c.calls[at].node.field(key).merge(value)
		}
	}
}

// field is the member of a node with a name, made when it is new.
func (n *node) field(name []byte) *node {
	n.kind = '{'
	for i := range n.fields {
		if n.fields[i].name == string(name) {
			return &n.fields[i].node
		}
	}
	n.fields = append(n.fields, field{name: string(name)})
	return &n.fields[len(n.fields)-1].node
}

// replace sets a value; null replaces nothing.
func (n *node) replace(v []byte) {
	if isNull(v) && n.kind != 0 {
		return
	}
	n.kind, n.fields, n.raw = v[0], n.fields[:0], append(n.raw[:0], v...)
	if v[0] == '"' || v[0] == '[' {
		n.raw = append(n.raw[:0], v[1:len(v)-1]...)
	} else if v[0] == '{' {
		n.kind, n.raw = 0, n.raw[:0]
		n.merge(v)
	}
}

// merge joins a value to what is there: texts and lists are longer then, objects
// have the members of both.
func (n *node) merge(v []byte) {
	switch {
	case isNull(v) && n.kind != 0:
	case v[0] == '{':
		if n.kind != '{' {
			*n = node{kind: '{'}
		}
		for w := members(v); w.more(); {
			key, value := w.member()
			switch string(key) {
			case "id", "type", "role", "name", "index":
				n.field(key).replace(value)
			default:
				n.field(key).merge(value)
			}
		}
	case v[0] == '[' && n.kind == '[':
		if inner := bytes.TrimSpace(v[1 : len(v)-1]); len(inner) > 0 {
			if len(bytes.TrimSpace(n.raw)) > 0 {
				n.raw = append(n.raw, ',')
			}
			n.raw = append(n.raw, inner...)
		}
	case v[0] == '"' && n.kind == '"':
		n.raw = append(n.raw, v[1:len(v)-1]...)
	default:
		n.replace(v)
	}
}

// append writes the value.
func (n *node) append(out []byte) []byte {
	switch n.kind {
	case 0:
		return append(out, "null"...)
	case '"':
		return append(append(append(out, '"'), n.raw...), '"')
	case '[':
		return append(append(append(out, '['), n.raw...), ']')
	case '{':
		return append(n.appendFields(append(out, '{')), '}')
	}
	return append(out, n.raw...)
}

// appendFields writes the members of an object, into an object that is open.
func (n *node) appendFields(out []byte) []byte {
	for i := range n.fields {
		out = append(next(out), quote(n.fields[i].name)...)
		out = n.fields[i].node.append(append(out, ':'))
	}
	return out
}

// next adds the comma before the next member of an object or element of a list.
func next(out []byte) []byte {
	if c := out[len(out)-1]; c == '{' || c == '[' {
		return out
	}
	return append(out, ',')
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
		out = g.choices[i].append(next(out), capped)
	}
	out = append(out, ']')
	switch {
	case perSequence && g.finals > 1:
		out = append(out, `,"usage":{"prompt_tokens":`...)
		out = strconv.AppendInt(out, g.total.prompt, 10)
		out = append(out, `,"completion_tokens":`...)
		out = strconv.AppendInt(out, g.total.completion, 10)
		out = append(out, `,"total_tokens":`...)
		out = append(strconv.AppendInt(out, addSat(g.total.prompt, g.total.completion), 10), '}')
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
			out = c.calls[i].node.append(next(out))
		}
		out = append(out, ']')
	}
	reason := c.choice.field([]byte("finish_reason"))
	if reason.kind == 0 && capped {
		reason.replace([]byte(`"length"`))
	}
	return append(c.choice.appendFields(append(out, '}')), '}')
}
