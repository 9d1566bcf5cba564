package format

import "slices"

// Policy is what the owner of a model allows beyond what this package knows to
// be bounded. The zero value allows nothing more.
type Policy struct {
	// AllowFields are top-level members that pass although they are not known,
	// or although they can lengthen a prompt. An unknown one is bounded by its
	// bytes, as if a template wrote it into the prompt once; one that is known to
	// lengthen prompts costs a hold of the whole context length.
	AllowFields []string
	// MediaHosts are the hosts from which a backend may fetch pictures, sounds
	// and films: "cdn.example.com", or "*.example.com" for all below it.
	MediaHosts []string
}

func (p *Policy) Allows(name string) bool { return slices.Contains(p.AllowFields, name) }
