package openai

import (
	"bytes"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// node is a JSON value that grows.
type node struct {
	kind   byte   // the first byte of the value; 0: none yet
	raw    []byte // of strings and arrays what is between their ends, else the value
	tail   *node  // of an array the last element, while it may go on; raw has those before it
	fields []field
}

type field struct {
	name string
	node node
}

// comesInPieces reports whether servers send a member with this name bit by bit.
// Every other one is whole whenever it comes.
func comesInPieces(key []byte) bool {
	switch string(key) {
	case "content", "text", "refusal", "reasoning", "reasoning_content", "reasoning_text", "thinking", "summary",
		"arguments", "input", "partial_json", "data", "transcript",
		"reasoning_details", "thinking_blocks", "annotations", "images",
		"tokens", "token_logprobs", "top_logprobs", "text_offset", "token_ids", "output_ids", "output_token_ids":
		return true
	}
	return false
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

// replace sets a value. What says nothing replaces nothing.
func (n *node) replace(v []byte) {
	if n.kind != 0 && (rawjson.IsNull(v) || n.kind != 'n' && rawjson.IsString(v) && len(v) == 2) {
		return
	}
	*n = node{kind: v[0], raw: n.raw[:0]}
	switch v[0] {
	case '"':
		n.raw = append(n.raw, v[1:len(v)-1]...)
	case '[':
		n.extend(v)
	case '{':
		n.merge(v)
	default:
		n.raw = append(n.raw, v...)
	}
}

// merge gives an object the members of another one.
func (n *node) merge(v []byte) {
	n.kind = '{'
	for w := rawjson.Members(v); w.More(); {
		key, value := w.Member()
		n.field(key).join(key, value)
	}
}

// join adds the value of the member key to what is there: what comes in pieces
// becomes longer, objects have the members of both, and anything else is replaced.
func (n *node) join(key, v []byte) {
	switch {
	case n.kind == 0, n.kind == 'n', rawjson.IsNull(v):
		n.replace(v)
	case v[0] == '{' && n.kind == '{':
		n.merge(v)
	case comesInPieces(key):
		n.lengthen(v)
	default:
		n.replace(v)
	}
}

// lengthen adds a piece. Where texts and lists of parts follow one another, as
// reasoning and the answer to it do, the texts become parts.
func (n *node) lengthen(v []byte) {
	switch {
	case n.kind == '"' && v[0] == '"':
		n.raw = append(n.raw, v[1:len(v)-1]...)
	case n.kind == '[' && v[0] == '[':
		n.extend(v)
	case rawjson.IsScalar(v) && v[0] != '"', n.kind == '"' && len(n.raw) == 0, n.kind != '"' && n.kind != '[' && n.kind != '{':
		n.replace(v)
	case v[0] == '"' && len(v) == 2, v[0] == '[' && saysNothing(v):
	default:
		if n.kind != '[' {
			before := n.append(nil)
			*n = node{kind: '['}
			n.extend(asParts(before))
		}
		n.extend(asParts(v))
	}
}

// asParts is a content as a list of parts.
func asParts(v []byte) []byte {
	switch v[0] {
	case '"':
		return append(append([]byte(`[{"type":"text","text":`), v...), "}]"...)
	case '{':
		return append(append([]byte{'['}, v...), ']')
	}
	return v
}

// extend adds the elements of an array. The first one may go on with the last one
// that is there.
func (n *node) extend(v []byte) {
	first := true
	for e := rawjson.Elements(v); e.More(); first = false {
		value := e.Value()
		grows := canGrow(value)
		if first && grows && n.tail != nil && n.tail.goesOn(value) {
			n.tail.merge(value)
			continue
		}
		if n.tail != nil {
			n.raw, n.tail = n.tail.append(separateElement(n.raw)), nil
		}
		if grows {
			n.tail = new(node)
			n.tail.merge(value)
		} else {
			n.raw = append(separateElement(n.raw), value...)
		}
	}
}

func separateElement(raw []byte) []byte {
	if len(raw) == 0 {
		return raw
	}
	return append(raw, ',')
}

// canGrow reports whether an element of a list is a part with something in it that
// comes in pieces.
func canGrow(v []byte) bool {
	typed, pieces := false, false
	for w := rawjson.Members(v); w.More(); {
		key, value := w.Member()
		typed = typed || string(key) == "type" && rawjson.IsString(value)
		pieces = pieces || comesInPieces(key)
	}
	return typed && pieces
}

// goesOn reports whether an element belongs to the part n: its type and index are
// the same, and it has no other id.
func (n *node) goesOn(v []byte) bool {
	var kind, index, id []byte
	for w := rawjson.Members(v); w.More(); {
		switch key, value := w.Member(); string(key) {
		case "type":
			kind = value
		case "index":
			index = value
		case "id":
			id = unlessNothing(value)
		}
	}
	return bytes.Equal(n.value("type"), kind) && bytes.Equal(n.value("index"), index) &&
		(id == nil || n.value("id") == nil || bytes.Equal(n.value("id"), id))
}

// find is the member with a name; nil: there is none.
func (n *node) find(name string) *node {
	if n == nil {
		return nil
	}
	for i := range n.fields {
		if n.fields[i].name == name {
			return &n.fields[i].node
		}
	}
	return nil
}

// value is a member as it would be written; nil: there is none.
func (n *node) value(name string) []byte {
	if m := n.find(name); m != nil {
		return m.append(nil)
	}
	return nil
}

// empty reports whether a text is empty.
func (n *node) empty() bool { return n == nil || len(n.raw) == 0 && len(n.fields) == 0 }

// open reports whether a text is the beginning of a JSON object, without its end.
func (n *node) open() bool {
	if n.empty() || n.kind != '"' {
		return false
	}
	text := bytes.TrimSpace(rawjson.Unquote(n.append(nil)))
	return len(text) > 0 && text[0] == '{' && format.CheckObject(text) != nil
}

// append writes the value.
func (n *node) append(out []byte) []byte {
	switch n.kind {
	case 0:
		return append(out, "null"...)
	case '"':
		return append(append(append(out, '"'), n.raw...), '"')
	case '[':
		out = append(append(out, '['), n.raw...)
		if n.tail != nil {
			out = n.tail.append(rawjson.Next(out))
		}
		return append(out, ']')
	case '{':
		return append(n.appendFields(append(out, '{')), '}')
	}
	return append(out, n.raw...)
}

// appendFields writes the members of an object, into an object that is open.
func (n *node) appendFields(out []byte) []byte {
	for i := range n.fields {
		out = append(rawjson.Next(out), rawjson.Quote(n.fields[i].name)...)
		out = n.fields[i].node.append(append(out, ':'))
	}
	return out
}
