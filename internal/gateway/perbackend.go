package gateway

import (
	"maps"
	"sync"
	"sync/atomic"

	"sluice.example/sluice/backends/gpu"
)

// perBackend keeps one value for each backend. It makes a value when the value is first asked for,
// because a request that began with an older catalog may meet a backend that joined later. Look-ups
// take no lock and allocate nothing. It is safe for concurrent use.
type perBackend[V any] struct {
	make func(*gpu.Backend) V
	all  atomic.Pointer[map[*gpu.Backend]V] // a map is never changed, only replaced; nil: empty
	mu   sync.Mutex                         // serialises the replacing of the map
}

// of returns the value of a backend, and makes it if there is none.
func (t *perBackend[V]) of(b *gpu.Backend) V {
	if v, ok := t.list()[b]; ok {
		return v
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if v, ok := t.list()[b]; ok {
		return v
	}
	v := t.make(b)
	next := maps.Clone(t.list())
	if next == nil {
		next = map[*gpu.Backend]V{}
	}
	next[b] = v
	t.all.Store(&next)
	return v
}

// list returns all values. The caller must not change the map.
func (t *perBackend[V]) list() map[*gpu.Backend]V {
	if m := t.all.Load(); m != nil {
		return *m
	}
	return nil
}

// forget drops each value for which gone returns true.
func (t *perBackend[V]) forget(gone func(*gpu.Backend, V) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := maps.Clone(t.list())
	maps.DeleteFunc(next, gone)
	t.all.Store(&next)
}
