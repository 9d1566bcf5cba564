package format

import "sluice.example/sluice/l402"

// Kindred is a Format that belongs to another API: a token that is limited to the
// capability of that one may make its calls too.
type Kindred interface {
	Format
	// Capability is the name of the other API in s_capabilities.
	Capability() string
}

// Permit fails with an *l402.CaveatError where a token is limited to other APIs than f.
func Permit(t *l402.Token, f Format) error {
	err := t.AllowCapability(f.Name())
	if err == nil {
		return nil
	}
	if k, ok := f.(Kindred); ok && t.AllowCapability(k.Capability()) == nil {
		return nil
	}
	return err
}
