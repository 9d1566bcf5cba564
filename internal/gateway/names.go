package gateway

import (
	"fmt"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// nameModels makes each model known under its name and its aliases.
func (s *service) nameModels() error {
	s.named = make(map[string]*model, len(s.models))
	for i := range s.Models {
		m := s.models[s.Models[i].Name]
		m.names = make(map[string][]byte, 1+len(m.Aliases))
		for _, name := range append([]string{m.Name}, m.Aliases...) {
			if name == "" || s.named[name] != nil {
				return fmt.Errorf("model %q: its alias %q is empty, or the name of another model", m.Name, name)
			}
			s.named[name] = m
			m.names[name] = rawjson.Quote(name)
		}
	}
	return nil
}

// public returns the name of the model that the answer carries, as a JSON string. It is the name
// by which the client asked for the model.
func (o *order) public() []byte { return o.model.names[o.asked] }

// words returns an engine's words as the client may see them, with the name by which the client
// asked for the model.
func (o *order) words(text string, b *gpu.Backend) string {
	return publicWords(text, b, o.model.Name, o.asked)
}

// allow returns an error if the token's caveats forbid the model or the kind of call. A caveat
// that allows a model allows it under each of its names.
func (x *exchange) allow(o *order) error {
	err := x.token.AllowModel(o.asked)
	if err != nil && o.asked != o.model.Name && x.token.AllowModel(o.model.Name) == nil {
		err = nil
	}
	if err != nil {
		return err
	}
	return format.Permit(x.token, o.format)
}
