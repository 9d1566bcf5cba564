package pricing

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// Board holds the epoch in force for each model. Reads take no lock and
// allocate nothing, so every request may read it; writes copy. The zero Board
// is empty and ready for use. It must not be copied after its first use.
type Board struct {
	mu     sync.Mutex // serialises writers
	epochs atomic.Pointer[map[string]Epoch]
}

// Set puts e in force for its model and reports whether it took effect: an
// epoch older than the one in force changes nothing, so that prices read from
// a store in any order end at the newest.
func (b *Board) Set(e Epoch) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := map[string]Epoch{}
	if old := b.epochs.Load(); old != nil {
		if cur, ok := (*old)[e.Model]; ok && cur.ID > e.ID {
			return false
		}
		next = maps.Clone(*old)
	}
	next[e.Model] = e
	b.epochs.Store(&next)
	return true
}

// Current is the epoch in force for the model; false when none was set.
func (b *Board) Current(model string) (Epoch, bool) {
	epochs := b.epochs.Load()
	if epochs == nil {
		return Epoch{}, false
	}
	e, ok := (*epochs)[model]
	return e, ok
}

// Models lists the models that have a price, sorted.
func (b *Board) Models() []string {
	epochs := b.epochs.Load()
	if epochs == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(*epochs))
}
