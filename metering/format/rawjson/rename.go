package rawjson

import (
	"bytes"
	"slices"
)

// renaming puts another value in the place of one member of a document's object, where
// its value is a string. It knows where in the last piece that string stands.
type renaming struct {
	member []byte // the member as it is written, "name":; nil: none is renamed
	value  []byte // what is shown

	open     bool // the string is open: it began, and has no end yet
	begins   bool // it began within the last piece
	from, to int  // of the string in the last piece; from -1: no part of it is there
}

// Rename has Renamed show value, a JSON value, in the place of the string that is the
// value of the member name of the document's object. It is called before Add.
func (o *Outline) Rename(name string, value []byte) {
	o.renaming = renaming{member: append(Quote(name), ':'), value: value, from: -1}
}

// Renamed is the piece that was given to Add last, as Rename wants it. It may change
// piece, and is valid as long as piece is.
func (o *Outline) Renamed(piece []byte) []byte {
	r := &o.renaming
	switch {
	case !o.Renames():
		return piece
	case r.begins:
		return slices.Replace(piece, r.from, r.to, r.value...)
	}
	return slices.Delete(piece, r.from, r.to)
}

// Renames reports whether Renamed differs from the piece that was given to Add last.
func (o *Outline) Renames() bool { return o.renaming.member != nil && o.renaming.from >= 0 }

// isRenamed reports whether the string that begins now is the value to rename.
func (o *Outline) isRenamed() bool {
	if o.renaming.member == nil || len(o.stack) != 1 || o.stack[0] != '{' || o.list > 0 {
		return false
	}
	before, ok := bytes.CutSuffix(o.rest, o.renaming.member)
	if !ok || len(before) == 0 {
		return false
	}
	c := before[len(before)-1] // else the key only ends so
	return c == '{' || c == ','
}

// next begins a piece of n bytes.
func (r *renaming) next(n int) {
	r.from, r.to, r.begins = -1, n, false
	if r.open {
		r.from = 0
	}
}

// opened notes that the string began at i, if it did.
func (r *renaming) opened(i int) {
	if r.open && r.from < 0 {
		r.from, r.begins = i, true
	}
}

// passed notes that a string was read up to i, and whether it goes on.
func (r *renaming) passed(i int, goesOn bool) {
	if r.open && !goesOn {
		r.open, r.to = false, i
	}
}
