package gateway

import (
	"fmt"
	"strings"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/apis"
)

// formats are the APIs that can be sold; apis has the table.
var formats = apis.All()

// formatsNamed are the formats of a model; without a name, the first of the table.
func formatsNamed(names []string) ([]format.Format, error) {
	if len(names) == 0 {
		return formats[:1], nil
	}
	sold := make([]format.Format, 0, len(names))
	for _, name := range names {
		before := len(sold)
		for _, f := range formats {
			if f.Name() == name {
				sold = append(sold, f)
			}
		}
		if len(sold) == before {
			return nil, fmt.Errorf("there is no API %q; there are %s", name, strings.Join(apis.Names(), ", "))
		}
	}
	return sold, nil
}

// isPaid says whether a path is that of a paid POST route.
func isPaid(path string) bool {
	for _, f := range formats {
		for _, p := range f.Paths() {
			if p == path {
				return true
			}
		}
	}
	return false
}

// apiNames are the names of the APIs that a model is sold through.
func (m *model) apiNames() []string {
	names := make([]string, len(m.formats))
	for i, f := range m.formats {
		names[i] = f.Name()
	}
	return names
}

// sells says whether a model is sold through an API.
func (m *model) sells(f format.Format) bool {
	for _, sold := range m.formats {
		if sold == f {
			return true
		}
	}
	return false
}

// otherAPI refuses a model that is sold through other APIs only.
func otherAPI(m *model) error {
	names := make([]string, len(m.formats))
	for i, f := range m.formats {
		names[i] = strings.Join(f.Paths(), " and ")
	}
	p := unknownModel()
	p.Detail = fmt.Sprintf("the model %q is not sold here; call it at %s", m.Name, strings.Join(names, " or "))
	return p
}
