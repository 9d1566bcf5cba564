package gateway

import (
	"fmt"
	"strings"

	"sluice.example/sluice/metering/format"
)

// formatsNamed returns the formats with these names; without names, the first of all.
func formatsNamed(all []format.Format, names []string) ([]format.Format, error) {
	if len(names) == 0 {
		return all[:1], nil
	}
	sold := make([]format.Format, 0, len(names))
	for _, name := range names {
		before := len(sold)
		for _, f := range all {
			if f.Name() == name {
				sold = append(sold, f)
			}
		}
		if len(sold) == before {
			return nil, fmt.Errorf("there is no API %q; there are %s", name, strings.Join(namesOf(all), ", "))
		}
	}
	return sold, nil
}

// isPaid reports whether a path is that of a paid POST route.
func (g *Gateway) isPaid(path string) bool {
	for _, f := range g.cfg.APIs {
		for _, p := range f.Paths() {
			if p == path {
				return true
			}
		}
	}
	return false
}

// namesOf returns the names of formats.
func namesOf(list []format.Format) []string {
	names := make([]string, len(list))
	for i, f := range list {
		names[i] = f.Name()
	}
	return names
}

// sells reports whether the model is sold through the API f.
func (m *model) sells(f format.Format) bool {
	for _, sold := range m.formats {
		if sold == f {
			return true
		}
	}
	return false
}

// otherAPI returns the problem for a model that is sold only through other APIs than the path's.
func otherAPI(m *model) error {
	names := make([]string, len(m.formats))
	for i, f := range m.formats {
		names[i] = strings.Join(f.Paths(), " and ")
	}
	p := unknownModel()
	p.Detail = fmt.Sprintf("the model %q is not sold here; call it at %s", m.Name, strings.Join(names, " or "))
	return p
}
