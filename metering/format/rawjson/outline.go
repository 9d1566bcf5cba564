package rawjson

import (
	"errors"
	"fmt"
	"slices"
)

const (
	// maxOutline bounds what is kept of one element, and of the rest, in bytes.
	maxOutline = 64 << 10
	// OutlineString is where an Outline abridges a string, in bytes.
	OutlineString = 512
)

// ErrUnfinished reports a document whose end is missing.
var ErrUnfinished = errors.New("the JSON document has no end")

// Outline reads one JSON document, an object or a list, piece by piece, in memory that
// does not grow with it. The elements of the lists that were named are handed over one
// by one, and the rest is kept. In both, long strings are abridged to their beginning
// and other lists to their first element. White space is left out. The grammar of what
// is left out is not checked. A named list that comes twice is an error. A list without an object around it is one of those that
// are handed over, under the empty name.
type Outline struct {
	lists []string // members of the object
	each  func(list string, element []byte) error

	rest, element []byte
	stack         []byte // what is open, '{' or '['
	name          string // of the list that is open
	list          int    // its depth; 0: none is open
	opened        uint64 // a bit for each of lists that was opened
	cut           int    // depth of the list of which the first element is over; 0: none
	str           stringState
	renaming      renaming
	ended         bool
	err           error
}

// stringState is where within a string the next byte stands.
type stringState struct {
	open    bool
	escaped bool // the byte before is a backslash
	hex     int  // digits of \u that are missing
	kept    int  // bytes of it that were kept
}

// NewOutline reads a document whose members in lists, at most 64, have elements for each. An
// element is valid until each returns. It need not be JSON, where the document is none.
func NewOutline(lists []string, each func(list string, element []byte) error) *Outline {
	return &Outline{lists: lists, each: each}
}

// Add reads the next piece. Once it failed it fails in the same way.
func (o *Outline) Add(piece []byte) error {
	o.renaming.next(len(piece))
	for i := 0; i < len(piece) && o.err == nil; {
		switch {
		case o.str.open:
			i = o.addString(piece, i)
			o.renaming.passed(i, o.str.open)
		case o.cut > 0 && !isStructure(piece[i]):
			i++
		default:
			o.step(piece[i])
			o.renaming.opened(i)
			i++
		}
	}
	return o.err
}

// isStructure reports whether a byte outside of strings opens or closes something.
func isStructure(c byte) bool { return c == '"' || c|0x20 == '{' || c|0x20 == '}' }

// step reads one byte that is no part of a string.
func (o *Outline) step(c byte) {
	switch {
	case c == ' ' || c == '\n' || c == '\r' || c == '\t':
	case o.ended:
		o.fail("there is data behind it")
	case c == '{' || c == '[':
		o.open(c)
	case len(o.stack) == 0:
		o.fail("it is neither an object nor a list")
	case c == '}' || c == ']':
		o.close(c)
	case c == '"':
		o.str = stringState{open: true}
		o.renaming.open = o.isRenamed()
		o.keep(c)
	case c == ',':
		o.comma()
	default:
		o.keep(c)
	}
}

// open begins an object or a list.
func (o *Outline) open(c byte) {
	if len(o.stack) == MaxDepth {
		o.fail("it is nested too deep")
		return
	}
	o.keep(c)
	o.stack = append(o.stack, c)
	if c == '[' && o.list == 0 && o.isNamed() {
		o.list = len(o.stack)
	}
}

// isNamed reports whether the list that was opened just now has elements for each.
func (o *Outline) isNamed() bool {
	switch {
	case len(o.stack) == 1:
		o.name = ""
		return true
	case len(o.stack) > 2 || o.stack[0] != '{':
		return false
	}
	name, ok := lastName(o.rest[:len(o.rest)-1])
	if i := slices.Index(o.lists, string(name)); ok && i >= 0 {
		if o.opened>>i&1 != 0 { // readers of JSON would forget the first one
			o.fail("it has a list twice")
		}
		o.name, o.opened = o.lists[i], o.opened|1<<i
		return true
	}
	return false
}

// lastName is the name of the member whose value comes next in the object that b begins,
// whatever escapes it is written with; ok is false where no value comes next.
func lastName(b []byte) (name []byte, ok bool) {
	end := len(b) - 1 // behind the name
	if end < 2 || b[end] != ':' || b[end-1] != '"' {
		return nil, false
	}
	for start := end - 2; start > 0; start-- {
		if b[start] != '"' {
			continue
		}
		before := start - 1
		for before > 0 && b[before] == '\\' {
			before--
		}
		if (start-before)%2 == 1 { // no backslash of its own before it
			return Unquote(b[start:end]), b[before] == '{' || b[before] == ','
		}
	}
	return nil, false
}

// close ends an object or a list.
func (o *Outline) close(c byte) {
	depth := len(o.stack)
	if o.stack[depth-1]+2 != c { // ']' and '}' follow their opening by two
		o.fail("its brackets do not match")
		return
	}
	if o.cut == depth {
		o.cut = 0
	}
	if o.list == depth {
		if len(o.element) > 0 {
			o.handOver()
		}
		o.list = 0
	}
	o.stack = o.stack[:depth-1]
	o.keep(c)
	o.ended = depth == 1
}

// comma stands behind an element or a member.
func (o *Outline) comma() {
	switch depth := len(o.stack); {
	case o.cut > 0:
	case o.list == depth:
		o.handOver()
	case o.stack[depth-1] == '[':
		o.cut = depth
	default:
		o.keep(',')
	}
}

// handOver gives an element away.
func (o *Outline) handOver() {
	if err := o.each(o.name, o.element); err != nil && o.err == nil {
		o.err = err
	}
	o.element = o.element[:0]
}

// addString reads on within a string, from piece[i] on.
func (o *Outline) addString(piece []byte, i int) int {
	s := &o.str
	for ; i < len(piece); i++ {
		c := piece[i]
		long := s.kept >= OutlineString
		switch {
		case s.escaped:
			s.escaped, long = false, false
			if c == 'u' {
				s.hex = 4
			}
		case s.hex > 0:
			s.hex--
			long = false
		case c == '"':
			s.open = false
			o.keep(c)
			return i + 1
		case c < ' ':
			o.fail("there is a control character in a string")
			return i
		case c == '\\':
			s.escaped = true
		}
		if long && s.kept < cutString && c&0xc0 != 0x80 { // never within a character
			s.kept = cutString
		}
		if s.kept < cutString {
			s.kept++
			o.keep(c)
		}
	}
	return i
}

// cutString in place of a number of bytes says that no more of a string is kept.
const cutString = 1 << 30

// keep adds a byte to what is kept.
func (o *Outline) keep(c byte) {
	into := &o.rest
	if o.list > 0 {
		into = &o.element
	}
	switch {
	case o.cut > 0:
	case len(*into) == maxOutline:
		o.fail("its outline is too long")
	default:
		*into = append(*into, c)
	}
}

func (o *Outline) fail(why string) {
	if o.err == nil {
		o.err = fmt.Errorf("the JSON document cannot be read: %s", why)
	}
}

// Rest is what is not in the lists, as soon as the document is whole; before it is
// ErrUnfinished.
func (o *Outline) Rest() ([]byte, error) {
	switch {
	case o.err != nil:
		return nil, o.err
	case !o.ended:
		return nil, ErrUnfinished
	}
	return o.rest, nil
}
