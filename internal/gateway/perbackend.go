package gateway

import (
	"maps"
	"sync"
	"sync/atomic"

	"sluice.example/sluice/backends/gpu"
)

// perBackend keeps one value for each backend. A value is made when it is asked for
// first: a request that began with an older catalog may meet a backend that joined
// since. Look-ups take no lock and allocate nothing. It is safe for concurrent use.
type perBackend[V any] struct {
	make func(*gpu.Backend) V
	all  atomic.Pointer[map[*gpu.Backend]V] // never changed; nil: empty
	mu   sync.Mutex                         // serialises those who put another map in place
}

// of is the value of a backend.
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

// list is every value there is. It must not be changed.
func (t *perBackend[V]) list() map[*gpu.Backend]V {
	if m := t.all.Load(); m != nil {
		return *m
	}
	return nil
}

// forget drops the values for which gone says so.
func (t *perBackend[V]) forget(gone func(*gpu.Backend, V) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := maps.Clone(t.list())
	maps.DeleteFunc(next, gone)
	t.all.Store(&next)
}
