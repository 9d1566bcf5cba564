package gateway

import (
	"fmt"
	"sync/atomic"

	"sluice/backends/gpu"
	"sluice/metering/chat"
)

// engines is what is known of each backend: what its owner said, and what it
// was found to be. It is safe for concurrent use.
type engines struct {
	byBackend map[*gpu.Backend]*engine
}

// engine is what is known of one backend.
type engine struct {
	setting chat.Setting
	profile atomic.Pointer[chat.Profile]
}

// newEngines knows what the owner said of the backends that serve the models,
// by the backends' names. It fails on a setting for no backend.
func newEngines(fleet *gpu.Fleet, models []string, settings map[string]chat.Setting) (*engines, error) {
	all, found := &engines{byBackend: map[*gpu.Backend]*engine{}}, map[string]bool{}
	for _, model := range models {
		for _, b := range fleet.Pool(model).Backends() {
			if all.byBackend[b] != nil {
				continue
			}
			e := &engine{setting: settings[b.Name()]}
			e.set(chat.EngineGeneric)
			all.byBackend[b], found[b.Name()] = e, true
		}
	}
	for name := range settings {
		if !found[name] {
			return nil, fmt.Errorf("there is a profile of the backend %q, which serves no model", name)
		}
	}
	return all, nil
}

// set notes that the backend was found to be an engine.
func (e *engine) set(found chat.Engine) {
	p := e.setting.Profile(found)
	e.profile.Store(&p)
}

// profile is what is known of a backend now.
func (g *Gateway) profile(b *gpu.Backend) chat.Profile {
	if e := g.engines.byBackend[b]; e != nil {
		return *e.profile.Load()
	}
	return chat.ProfileOf(chat.EngineGeneric)
}
