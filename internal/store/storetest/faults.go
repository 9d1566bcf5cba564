package storetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// errCut is the error of a cut connection. The caller cannot know what was committed.
var errCut = errors.New("connection cut")

// fault is what happens to one write.
type fault int

const (
	none      fault = iota
	early           // the connection is cut before the store sees the batch
	lost            // decided, then rolled back, without an answer
	kept            // committed, but the answer is lost
	forgotten       // decided and answered, then rolled back, as in a crash after an asynchronous commit
	locked          // another process has a row locked
	refused         // the store's guards refuse a row
	forgottenUnlessDurable
	overtaken // another process has changed every account of the batch meanwhile
	taken     // another process has every account of the batch locked
)

// faulty wraps a store with faults, and with a clock that tests can move. The clock begins long ago, so that tests can
// move it forward.
type faulty struct {
	metering.Store

	mu      sync.Mutex
	faults  []fault       // the faults of the next writes, in order
	away    fault         // the fault of all writes until heal
	offset  time.Duration // how far the clock was moved
	writes  int
	hook    func(*metering.Batch) fault // chooses the fault of each batch; nil: faults and away apply
	fence   func() error                // called before each fence, which fails when fence fails
	era     uint64                      // number of failovers so far
	deaf    bool                        // Owners gets no answer
	ghosts  []metering.HoldRow          // further abandoned holds, in order of ids
	batches []bool                      // for each batch, whether it wrote durably
}

const past = -20_000 * time.Hour

// inject queues faults for the next writes.
func (f *faulty) inject(next ...fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, next...)
}

// breakdown makes every write fail until heal.
func (f *faulty) breakdown(how fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = how
}

func (f *faulty) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away, f.faults, f.hook, f.fence = none, nil, nil, nil
}

// onWrite makes fn choose the fault of each batch.
func (f *faulty) onWrite(fn func(*metering.Batch) fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = fn
}

// advance moves the store's clock. No lease depends on this clock.
func (f *faulty) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offset += d
}

// forget makes the store forget the write that makes a hold, once. It cannot just choose the next write, because a
// ledger whose heartbeat missed another hold makes that hold anew in the background.
func (f *faulty) forget(hold metering.HoldID) {
	f.onWrite(func(b *metering.Batch) fault {
		for id := range b.Holds.Keys {
			if id == hold {
				f.onWrite(nil)
				return forgotten
			}
		}
		return none
	})
}

// gate stops every write until release is closed. Each write first sends to entered. A nil entered removes the gate.
func (f *faulty) gate(entered chan<- struct{}, release <-chan struct{}) {
	if entered == nil {
		f.onWrite(nil)
		return
	}
	f.onWrite(func(*metering.Batch) fault {
		entered <- struct{}{}
		<-release
		return none
	})
}

func (f *faulty) skew() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return (past + f.offset).Microseconds()
}

func (f *faulty) next(b *metering.Batch) fault {
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook != nil {
		return hook(b)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	if f.away != none || len(f.faults) == 0 {
		return f.away
	}
	how := f.faults[0]
	f.faults = f.faults[1:]
	return how
}

// Apply runs a batch, or makes it fail. A crash comes before or after the batch, never during it. If the server
// continued a transaction after its client died, what a test sees next would be a matter of luck. (Other tests kill
// servers and clients.)
func (f *faulty) Apply(ctx context.Context, b *metering.Batch, decide func()) error {
	ctx = context.WithoutCancel(ctx)
	how := f.next(b)
	shifted := func() {
		b.Now += f.skew()
		decide()
	}
	defer func() {
		f.mu.Lock()
		f.batches = append(f.batches, b.Durable && b.Changed())
		f.mu.Unlock()
	}()
	switch how {
	case early:
		return errCut
	case overtaken, taken:
		return f.leaveOut(ctx, b, shifted, how == taken)
	case locked:
		return metering.ErrConflict
	case refused:
		return metering.ErrRejected
	case lost, forgotten, forgottenUnlessDurable:
		whole := *b
		kept := false
		err := f.Store.Apply(ctx, b, func() {
			shifted()
			if kept = how == forgottenUnlessDurable && b.Durable; !kept {
				whole, *b = *b, metering.Batch{} // decided, but nothing is written
			}
		})
		if !kept {
			*b = whole
		}
		if how != lost {
			return err
		}
		return errors.Join(errCut, err)
	}
	err := f.Store.Apply(ctx, b, shifted)
	if how == kept {
		return errors.Join(errCut, err)
	}
	return err
}

// leaveOut decides a batch and writes nothing, like a store that finds all accounts changed or locked by another
// process.
func (f *faulty) leaveOut(ctx context.Context, b *metering.Batch, decide func(), locked bool) error {
	whole := *b
	err := f.Store.Apply(ctx, b, func() {
		decide()
		whole, *b = *b, metering.Batch{}
	})
	*b = whole
	b.Accounts.Keys(func(id l402.TokenID) bool { b.Miss(id, locked); return true })
	return err
}

// failOver raises the store's generation, as a failover to another server does.
func (f *faulty) failOver() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.era++
}

func (f *faulty) Generation() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Store.Generation() + f.era
}

// Owners fails while deaf is set.
func (f *faulty) Owners(ctx context.Context) ([]metering.OwnerRow, error) {
	f.mu.Lock()
	deaf := f.deaf
	f.mu.Unlock()
	if deaf {
		return nil, errCut
	}
	return f.Store.Owners(ctx)
}

// Abandoned lists the ghosts as well as the store's own holds.
func (f *faulty) Abandoned(ctx context.Context, after metering.HoldID, limit int) ([]metering.HoldRow, error) {
	rows, err := f.Store.Abandoned(ctx, after, limit)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.ghosts {
		if bytes.Compare(g.ID[:], after[:]) > 0 {
			rows = append(rows, g)
		}
	}
	slices.SortFunc(rows, func(a, b metering.HoldRow) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return rows[:min(limit, len(rows))], err
}

// durable returns, for each batch since the last call, whether the batch wrote durably.
func (f *faulty) durable() []bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := f.batches
	f.batches = nil
	return list
}

// Beat fails while the store is away.
func (f *faulty) Beat(ctx context.Context, owner metering.OwnerID, beat int64, progress []metering.Progress) (int64, []metering.HoldID, bool, error) {
	f.mu.Lock()
	away := f.away != none
	f.mu.Unlock()
	if away {
		return 0, nil, false, errCut
	}
	return f.Store.Beat(ctx, owner, beat, progress)
}

// onFence runs fn before each fence. If fn fails, the fence does not happen.
func (f *faulty) onFence(fn func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fence = fn
}

func (f *faulty) Fence(ctx context.Context, owner metering.OwnerID, beat int64) (bool, error) {
	f.mu.Lock()
	before := f.fence
	f.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return false, err
		}
	}
	return f.Store.Fence(ctx, owner, beat)
}

// Clean does nothing. The store's Clean uses the store's own clock, and would delete the rows of the tests, whose clock
// is in the past.
func (f *faulty) Clean(context.Context, int) (int, error) { return 0, nil }

// pending returns how many injected faults have not happened yet.
func (f *faulty) pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.faults)
}
