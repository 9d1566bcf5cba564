package openai

import (
	"fmt"

	"sluice.example/sluice/metering/format"
)

// CheckAllowField says why a field cannot stand in Policy.AllowFields: because
// it is understood without, or because it multiplies the cost, holds an address
// or names state that callers would share.
func CheckAllowField(name string) error {
	switch kindOf(name) {
	case kindUnknown:
		if name == "" || len(name) > 64 || foldsToKnown(name, kindOf) {
			return fmt.Errorf("%q is not the name of a field", format.Clip(name))
		}
		return nil
	case kindRisky:
		return nil
	case kindForbidden, kindBeams, kindModalities:
		return fmt.Errorf("%q cannot be allowed: it would let a caller multiply the cost, reach other hosts or use what others left behind", name)
	}
	return fmt.Errorf("%q is understood already; leave it out", name)
}
