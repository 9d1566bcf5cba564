package config

import (
	"slices"
	"strconv"
	"strings"
)

// isModelName says whether clients can ask for a model by this name. A name with a comma is not
// allowed, because caveats list models separated by commas.
func isModelName(name string) bool {
	return name != "" && len(name) <= 128 && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' || r == '"' })
}

// checkAliases checks the other names of a model. No two models of all services may share a name,
// because tokens and quotes identify models by name.
func (c *checker) checkAliases(m *Model, at string) {
	for i, alias := range m.Aliases {
		at := at + ".aliases[" + strconv.Itoa(i) + "]"
		switch {
		case !isModelName(alias):
			c.failAt(at, "want 1 to 128 printable ASCII characters without spaces, commas and quotes, got %q", clip(alias))
		case alias == m.Name || slices.Contains(m.Aliases[:i], alias):
			c.failAt(at, "the model has the name %q already", alias)
		case c.isTaken(alias, m):
			c.failAt(at, "another model has the name %q", alias)
		}
	}
}

// isTaken says whether a model other than m has the name, as its own name or as an alias.
func (c *checker) isTaken(name string, m *Model) bool {
	for i := range c.cfg.Services {
		for j := range c.cfg.Services[i].Models {
			other := &c.cfg.Services[i].Models[j]
			if other != m && (other.Name == name || slices.Contains(other.Aliases, name)) {
				return true
			}
		}
	}
	return false
}
