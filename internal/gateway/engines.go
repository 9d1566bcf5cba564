package gateway

import (
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering/format"
)

// engines is what the gateway knows of each backend: what its owner said, and which engine was
// found. It is safe for concurrent use.
type engines struct {
	perBackend[*engine]
	settings atomic.Pointer[map[string]format.Setting] // what the owner says, by the backend's name
}

// engine is what the gateway knows of one backend.
type engine struct {
	setting  format.Setting
	known    atomic.Pointer[known]
	overruns overrunLog
	heard    atomic.Int64 // when the backend last sent a part of an answer, in Unix nanoseconds
	missing  sync.Map     // the paths that the backend lacks; each value is until when it is not asked
	asking   atomic.Bool  // Probe is finding out which engine serves, or has found it out
}

// known is a profile, and where the gateway has it from.
type known struct {
	profile format.Profile
	source  string
}

// hear notes that the backend sent a part of an answer. Headers, blank lines and comments do not count,
// because servers and proxies send them while a request waits.
func (e *engine) hear() { e.heard.Store(time.Now().UnixNano()) }

// silentSince reports whether the backend has sent no part of any answer since t.
func (e *engine) silentSince(t time.Time) bool { return e.heard.Load() < t.UnixNano() }

// newEngines returns engines that know what the owner says of backends. settings has the backends'
// names as keys.
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

// say replaces what the owner says of backends. The gateway keeps what it found out about a backend,
// unless the owner now says something else of that backend.
func (all *engines) say(settings map[string]format.Setting) {
	all.settings.Store(&settings)
	all.forget(func(b *gpu.Backend, e *engine) bool { return !reflect.DeepEqual(e.setting, settings[b.Name()]) })
}

// set notes which engine the backend was found to be, and how that was found.
func (e *engine) set(found format.Engine, source string) {
	e.known.Store(&known{e.setting.Profile(found), source})
}

// profile returns what the gateway knows of a backend now.
func (g *Gateway) profile(b *gpu.Backend) format.Profile { return g.engine(b).known.Load().profile }

// engine returns what the gateway knows of a backend that serves a model.
func (g *Gateway) engine(b *gpu.Backend) *engine { return g.engines.of(b) }

// lacks notes that the backend does not have a path, and until when it is not asked again.
func (e *engine) lacks(path string, until time.Time) { e.missing.Store(path, until) }

// isMissing reports whether the backend was found less than missingFor ago not to have a path.
func (e *engine) isMissing(path string, now time.Time) bool {
	until, ok := e.missing.Load(path)
	return ok && now.Before(until.(time.Time))
}
