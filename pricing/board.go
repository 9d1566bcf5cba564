package pricing

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// Board holds, for each model, the epoch in force and why its price is what it is. Reads take no lock
// and allocate nothing, so every request may read the Board. Writes copy the Board's state. The zero
// Board is empty and ready for use. A Board must not be copied after its first use.
type Board struct {
	mu    sync.Mutex // lets one writer in at a time
	state atomic.Pointer[boardState]
}

// keptEpochs is how many epochs Board.Epoch can find by their id, the newest. At one epoch per second
// these cover a quarter of an hour, which is longer than quotes are locked. Older epochs are in the
// store.
const keptEpochs = 1024

type boardState struct {
	epochs    map[string]Epoch
	standings map[string]Standing
	recent    []Epoch // of all models, in the order in which they were set
}

// change gives fn a copy of the state, which fn changes, and then makes the copy the state.
func (b *Board) change(fn func(*boardState)) {
	next := &boardState{epochs: map[string]Epoch{}, standings: map[string]Standing{}}
	if old := b.state.Load(); old != nil {
		next.epochs, next.standings, next.recent = maps.Clone(old.epochs), maps.Clone(old.standings), old.recent
	}
	fn(next)
	b.state.Store(next)
}

// Set puts e in force for its model, and says whether e took effect. An epoch older than the epoch in
// force changes nothing. So prices that a process reads from a store in any order end at the newest.
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

// Remember makes a past epoch known to Board.Epoch.
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

// Current returns the epoch in force for the model. It returns false if no epoch was set.
func (b *Board) Current(model string) (Epoch, bool) {
	s := b.state.Load()
	if s == nil {
		return Epoch{}, false
	}
	e, ok := s.epochs[model]
	return e, ok
}

// Live returns the epoch in force. If the model's Standing is about that epoch, the result has the
// Standing's newer Signal and BoundBy.
func (b *Board) Live(model string) (Epoch, bool) {
	e, ok := b.Current(model)
	if s, known := b.Standing(model); known && s.Epoch == e.ID {
		e.Signal, e.BoundBy = s.Signal, s.BoundBy
	}
	return e, ok
}

// Standing returns what was last recorded about the model's price, or false if nothing was.
func (b *Board) Standing(model string) (Standing, bool) {
	s := b.state.Load()
	if s == nil {
		return Standing{}, false
	}
	st, ok := s.standings[model]
	return st, ok
}

// Epoch returns the epoch with this id, or false if it is not among the newest keptEpochs.
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

// Models returns the sorted names of the models that have a price.
func (b *Board) Models() []string {
	s := b.state.Load()
	if s == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(s.epochs))
}
