package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/apis"
)

// checkOwned checks what a model's owner sets and removes in requests to backends.
func (c *checker) checkOwned(m *Model, at string) {
	for _, name := range slices.Sorted(maps.Keys(m.SetFields)) {
		c.checkField(m, at+".set_fields."+name, func(f format.Ruled) (bool, error) { return f.CheckSet(name, m.SetFields[name]) })
	}
	for i, name := range m.RemoveFields {
		at := at + ".remove_fields[" + strconv.Itoa(i) + "]"
		switch {
		case m.SetFields[name] != nil:
			c.failAt(at, "%q is in set_fields as well; what a client sends there never counts", clip(name))
		case slices.Contains(m.RemoveFields[:i], name):
			c.failAt(at, "%q is listed twice", clip(name))
		default:
			c.checkField(m, at, func(f format.Ruled) (bool, error) { return f.CheckRemove(name) })
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.SetHeaders)) {
		at := at + ".set_headers." + name
		switch lower := strings.ToLower(name); {
		case !isHeader(lower):
			c.failAt(at, "want the name of a header such as X-My-Tenant")
		case slices.Contains(writtenHeaders, lower), strings.HasPrefix(lower, "l402-"):
			c.failAt(at, "the gateway writes this header itself")
		case slices.Contains(keyHeaders, lower):
			c.failAt(at, "give the backend's key as api_key there, and its header as key_header")
		case strings.ContainsFunc(m.SetHeaders[name].Reveal(), func(r rune) bool { return r < ' ' || r > '~' }):
			c.failAt(at, "holds a character that cannot stand in a header")
		}
	}
}

// keyHeaders are the headers in which servers expect keys.
var keyHeaders = []string{"authorization", "x-api-key", "api-key", "proxy-authorization", "cookie"}

// checkField lets each API through which the model is sold check a field.
func (c *checker) checkField(m *Model, at string, check func(format.Ruled) (used bool, err error)) {
	anywhere := false
	for _, f := range apis.All() {
		ruled, ok := f.(format.Ruled)
		if !ok || !slices.Contains(m.APIs, f.Name()) {
			continue
		}
		used, err := check(ruled)
		if err != nil {
			c.failAt(at, "%v", err)
			return
		}
		anywhere = anywhere || used
	}
	if !anywhere {
		c.failAt(at, "no API that the model is sold through knows this field; there are %s", strings.Join(m.APIs, ", "))
	}
}
