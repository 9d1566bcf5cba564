package gateway

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering/format"
)

// engines is what is known of each backend: what its owner said, and what it
// was found to be. It is safe for concurrent use.
type engines struct {
	byBackend map[*gpu.Backend]*engine
}

// engine is what is known of one backend.
type engine struct {
	setting  format.Setting
	known    atomic.Pointer[known]
	overruns overrunLog
	heard    atomic.Int64 // when the backend last sent a part of an answer, in Unix nanoseconds
	missing  sync.Map     // path of a tokenizer that the backend does not have → until when it is not asked again
}

// known is a profile and where it comes from.
type known struct {
	profile format.Profile
	source  string
}

// hear notes a sign of life of the backend: a part of an answer. Headers, blank lines
// and comments are none, because servers and proxies send them while a request waits.
func (e *engine) hear() { e.heard.Store(time.Now().UnixNano()) }

// silentSince reports whether the backend has shown nobody a sign of life since t.
func (e *engine) silentSince(t time.Time) bool { return e.heard.Load() < t.UnixNano() }

// newEngines knows what the owner said of the backends that serve the models,
// by the backends' names. It fails on a setting for no backend.
func newEngines(fleet *gpu.Fleet, models []string, settings map[string]format.Setting) (*engines, error) {
	all, found := &engines{byBackend: map[*gpu.Backend]*engine{}}, map[string]bool{}
	for _, model := range models {
		for _, b := range fleet.Pool(model).Backends() {
			if all.byBackend[b] != nil {
				continue
			}
			e := &engine{setting: settings[b.Name()]}
			source := "configuration"
			if e.setting.Engine == "" {
				source = "nothing yet"
			}
			e.set(format.EngineGeneric, source)
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

// set notes that the backend was found to be an engine, and by what.
func (e *engine) set(found format.Engine, source string) {
	e.known.Store(&known{e.setting.Profile(found), source})
}

// profile is what is known of a backend now.
func (g *Gateway) profile(b *gpu.Backend) format.Profile { return g.engine(b).known.Load().profile }

// engine is what is known of a backend that serves a model.
func (g *Gateway) engine(b *gpu.Backend) *engine { return g.engines.byBackend[b] }

// lacks notes that a backend does not have a path.
func (e *engine) lacks(path string, until time.Time) { e.missing.Store(path, until) }

// isMissing says whether a backend was found a short while ago not to have a path.
func (e *engine) isMissing(path string, now time.Time) bool {
	until, ok := e.missing.Load(path)
	return ok && now.Before(until.(time.Time))
}
