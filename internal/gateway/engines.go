package gateway

import (
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering/format"
)

// engines is what is known of each backend: what its owner said, and what it
// was found to be. It is safe for concurrent use.
type engines struct {
	perBackend[*engine]
	settings atomic.Pointer[map[string]format.Setting] // what the owner says, by the backend's name
}

// engine is what is known of one backend.
type engine struct {
	setting  format.Setting
	known    atomic.Pointer[known]
	overruns overrunLog
	heard    atomic.Int64 // when the backend last sent a part of an answer, in Unix nanoseconds
	missing  sync.Map     // path of a tokenizer that the backend does not have → until when it is not asked again
	asking   atomic.Bool  // it is being found out which engine serves, or was
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

// newEngines knows what the owner says of backends, by their names.
func newEngines(settings map[string]format.Setting) *engines {
	all := new(engines)
	all.settings.Store(&settings)
	all.make = func(b *gpu.Backend) *engine {
		e := &engine{setting: (*all.settings.Load())[b.Name()]}
		source := "configuration"
		if e.setting.Engine == "" {
			source = "nothing yet"
		}
		e.set(format.EngineGeneric, source)
		return e
	}
	return all
}

// say takes over what the owner says from now on. What was found out about a backend
// stands, unless the owner says something else of it than before.
func (all *engines) say(settings map[string]format.Setting) {
	all.settings.Store(&settings)
	all.forget(func(b *gpu.Backend, e *engine) bool { return !reflect.DeepEqual(e.setting, settings[b.Name()]) })
}

// set notes that the backend was found to be an engine, and by what.
func (e *engine) set(found format.Engine, source string) {
	e.known.Store(&known{e.setting.Profile(found), source})
}

// profile is what is known of a backend now.
func (g *Gateway) profile(b *gpu.Backend) format.Profile { return g.engine(b).known.Load().profile }

// engine is what is known of a backend that serves a model.
func (g *Gateway) engine(b *gpu.Backend) *engine { return g.engines.of(b) }

// lacks notes that a backend does not have a path.
func (e *engine) lacks(path string, until time.Time) { e.missing.Store(path, until) }

// isMissing says whether a backend was found a short while ago not to have a path.
func (e *engine) isMissing(path string, now time.Time) bool {
	until, ok := e.missing.Load(path)
	return ok && now.Before(until.(time.Time))
}
