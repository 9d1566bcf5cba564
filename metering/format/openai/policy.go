package openai

import (
	"fmt"
	"slices"
)

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

// CheckAllowField says why a field cannot stand in Policy.AllowFields: because
// it is understood without, or because it multiplies the cost, holds an address
// or names state that callers would share.
func CheckAllowField(name string) error {
	switch kindOf(name) {
	case kindUnknown:
		if name == "" || len(name) > 64 || foldsToKnown(name) {
			return fmt.Errorf("%q is not the name of a field", clip(name))
		}
		return nil
	case kindRisky:
		return nil
	case kindForbidden, kindBeams, kindModalities:
		return fmt.Errorf("%q cannot be allowed: it would let a caller multiply the cost, reach other hosts or use what others left behind", name)
	}
	return fmt.Errorf("%q is understood already; leave it out", name)
}

func (p *Policy) allows(name string) bool { return slices.Contains(p.AllowFields, name) }
