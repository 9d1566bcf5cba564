package pricing

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// Board holds the epoch in force for each model, and why it is. Reads take no
// lock and allocate nothing, so every request may read it; writes copy. The zero
// Board is empty and ready for use. It must not be copied after its first use.
type Board struct {
	mu    sync.Mutex // serialises writers
	state atomic.Pointer[boardState]
}

// keptEpochs is how many epochs are found by their id, the newest. At one per
// second that is a quarter of an hour, longer than quotes are locked; others are
// in the store.
const keptEpochs = 1024

type boardState struct {
	epochs    map[string]Epoch
	standings map[string]Standing
	recent    []Epoch // of all models, as they were set
}

// change replaces the state by what fn makes of a copy.
func (b *Board) change(fn func(*boardState)) {
	next := &boardState{epochs: map[string]Epoch{}, standings: map[string]Standing{}}
	if old := b.state.Load(); old != nil {
		next.epochs, next.standings, next.recent = maps.Clone(old.epochs), maps.Clone(old.standings), old.recent
	}
	fn(next)
	b.state.Store(next)
}

// Set puts e in force for its model and reports whether it took effect: an
// epoch older than the one in force changes nothing, so that prices read from
// a store in any order end at the newest.
func (b *Board) Set(e Epoch) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if cur, ok := b.Current(e.Model); ok && cur.ID > e.ID {
		return false
	}
	b.change(func(s *boardState) {
		s.epochs[e.Model] = e
		s.remember(e)
	})
	return true
}

// Remember makes an epoch of the past known by its id.
func (b *Board) Remember(e Epoch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.change(func(s *boardState) { s.remember(e) })
}

func (s *boardState) remember(e Epoch) {
	first := max(0, len(s.recent)+1-keptEpochs)
	s.recent = append(slices.Clone(s.recent[first:]), e)
}

// SetStanding records why the price of a model is what it is.
func (b *Board) SetStanding(s Standing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.change(func(state *boardState) { state.standings[s.Model] = s })
}

// Current is the epoch in force for the model; false when none was set.
func (b *Board) Current(model string) (Epoch, bool) {
	s := b.state.Load()
	if s == nil {
		return Epoch{}, false
	}
	e, ok := s.epochs[model]
	return e, ok
}

// Live is the epoch in force with the newest signal and reason, as far as they
// belong to it.
func (b *Board) Live(model string) (Epoch, bool) {
	e, ok := b.Current(model)
	if s, known := b.Standing(model); known && s.Epoch == e.ID {
		e.Signal, e.BoundBy = s.Signal, s.BoundBy
	}
	return e, ok
}

// Standing is what was last recorded about the model's price.
func (b *Board) Standing(model string) (Standing, bool) {
	s := b.state.Load()
	if s == nil {
		return Standing{}, false
	}
	st, ok := s.standings[model]
	return st, ok
}

// Epoch finds one of the newest epochs by its id.
func (b *Board) Epoch(id int64) (Epoch, bool) {
	s := b.state.Load()
	if s == nil {
		return Epoch{}, false
	}
	for i := len(s.recent) - 1; i >= 0; i-- {
		if s.recent[i].ID == id {
			return s.recent[i], true
		}
	}
	return Epoch{}, false
}

// Models lists the models that have a price, sorted.
func (b *Board) Models() []string {
	s := b.state.Load()
	if s == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(s.epochs))
}
