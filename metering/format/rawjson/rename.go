package rawjson

import "slices"

// renaming puts another value in the place of one member of a document's object, where
// its value is a string. It knows where in the last piece that string stands.
type renaming struct {
	name  string // of the member
	value []byte // what is shown; nil: nothing is renamed

	open   bool   // the string is open: it began, and has no end yet
	within bool   // the last of spans has no end yet
	spans  []span // of such strings in the last piece, in order: a document may have the member twice
	size   int    // of the last piece, in bytes
}

// span is a string, or a part of one, in a piece.
type span struct {
	from, to int
	begins   bool // the string begins there
}

// Rename has Renamed show value, a JSON value, in the place of the string that is the
// value of the member name of the document's object. It is called before Add.
func (o *Outline) Rename(name string, value []byte) {
	o.renaming = renaming{name: name, value: value}
}

// Renamed is the piece that was given to Add last, as Rename wants it. It may change
// piece, and is valid as long as piece is.
func (o *Outline) Renamed(piece []byte) []byte {
	r := &o.renaming
	for i := len(r.spans) - 1; i >= 0; i-- {
		if x := r.spans[i]; x.begins {
			piece = slices.Replace(piece, x.from, x.to, r.value...)
		} else {
			piece = slices.Delete(piece, x.from, x.to)
		}
	}
	return piece
}

// Renames reports whether Renamed differs from the piece that was given to Add last.
func (o *Outline) Renames() bool { return len(o.renaming.spans) > 0 }

// isRenamed reports whether the string that begins now is the value to rename.
func (o *Outline) isRenamed() bool {
	if o.renaming.value == nil || len(o.stack) != 1 || o.stack[0] != '{' || o.list > 0 {
		return false
	}
	name, ok := lastName(o.rest)
	return ok && string(name) == o.renaming.name
}

// next begins a piece of n bytes.
func (r *renaming) next(n int) {
	r.spans, r.size, r.within = r.spans[:0], n, r.open
	if r.open {
		r.spans = append(r.spans, span{0, n, false})
	}
}

// opened notes that the string began at i, if it did.
func (r *renaming) opened(i int) {
	if r.open && !r.within {
		r.within, r.spans = true, append(r.spans, span{i, r.size, true})
	}
}

// passed notes that a string was read up to i, and whether it goes on.
func (r *renaming) passed(i int, goesOn bool) {
	if r.open && !goesOn {
		r.open, r.within = false, false
		r.spans[len(r.spans)-1].to = i
	}
}
