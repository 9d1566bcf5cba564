package format

import (
	"bytes"
	"slices"

	"sluice.example/sluice/metering/format/rawjson"
)

// Policy is what the owner of a model allows beyond what this package knows to
// be bounded. The zero value allows nothing more.
type Policy struct {
	// AllowFields are top-level members that pass although they are not known,
	// or although they can lengthen a prompt. An unknown one is bounded by its
	// bytes, as if a template wrote it into the prompt once; one that is known to
	// lengthen prompts costs a hold of the whole context length.
	AllowFields []string
	// Set are members that each request has in place of what its client sent under their
	// names. They are bounded as if the client had sent them.
	Set []Field
	// Remove are members of the client's that count as if they were absent.
	Remove []string
	// MediaHosts are the hosts from which a backend may fetch pictures, sounds
	// and films: "cdn.example.com", or "*.example.com" for all below it.
	MediaHosts []string
}

// Field is a member of a request that the owner of a model sets.
type Field struct {
	Name  string
	Value []byte // one JSON value
	Raw   []byte // the whole member: "name": value
}

// NewField is a member with a JSON value.
func NewField(name string, value []byte) Field {
	raw := append(append(rawjson.Quote(name), ':'), value...)
	return Field{Name: name, Value: raw[len(raw)-len(value):], Raw: raw}
}

// Ruled is a Format in whose requests the owner of a model can set and remove members.
type Ruled interface {
	Format
	// CheckSet says why the owner cannot set a member to a JSON value. used is false
	// where the API does not know the member and another one does: then it is left out
	// of this API's requests.
	CheckSet(name string, value []byte) (used bool, err error)
	// CheckRemove says the same of a member that is to be removed.
	CheckRemove(name string) (used bool, err error)
}

// Equal reports whether two policies make the same of every request.
func (p *Policy) Equal(other *Policy) bool {
	same := func(a, b Field) bool { return a.Name == b.Name && bytes.Equal(a.Raw, b.Raw) }
	return slices.Equal(p.AllowFields, other.AllowFields) && slices.EqualFunc(p.Set, other.Set, same) &&
		slices.Equal(p.Remove, other.Remove) && slices.Equal(p.MediaHosts, other.MediaHosts)
}

func (p *Policy) Allows(name string) bool { return slices.Contains(p.AllowFields, name) }
