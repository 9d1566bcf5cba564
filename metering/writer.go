package metering

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"sluice.example/sluice/l402"
)

// How the writer behaves when the store does not answer.
const (
	retryFirst   = 2 * time.Millisecond // back-off after the first failure, doubled each time
	retryMost    = time.Second
	attemptLimit = 5 * time.Second  // for one attempt at a batch
	parkFirst    = time.Millisecond // before a locked account is tried again, doubled each time
	parkMost     = time.Second
	probeEvery   = 250 * time.Millisecond // whether the store is back, while nothing else asks it
)

// writer is the one goroutine of a process that changes the store. It keeps the
// order of arrival per account.
type writer struct {
	ledger *Ledger
	batch  Batch
	// parked holds the tasks of accounts that someone else had changed or locked, so
	// that one locked account stalls only itself. Owned by the run goroutine.
	parked map[l402.TokenID]*parking
	// failedSince is when the store stopped answering, ns since 1970; 0: it does.
	failedSince atomic.Int64
	// reachedAt is when the store began to answer, ns since 1970.
	reachedAt atomic.Int64
	// askedAt is when the attempt that runs began, ns since 1970; 0: none runs.
	askedAt atomic.Int64

	mu       sync.Mutex
	inFlight []*task // in the attempt that runs
}

type parking struct {
	tasks []*task // in order of arrival
	due   time.Time
}

// failing reports whether the last attempt got no answer from the store.
func (w *writer) failing() bool { return w.failedSince.Load() != 0 }

// away reports whether the store has not answered for so long that impatient
// operations are refused at once.
func (w *writer) away(now time.Time) bool {
	longAgo := now.Add(-w.ledger.cfg.Patience).UnixNano()
	failed, asked := w.failedSince.Load(), w.askedAt.Load()
	return failed != 0 && failed < longAgo || asked != 0 && asked < longAgo
}

// watchLoop refuses the impatient tasks that wait for a store that hangs. It
// runs beside the writer, which hangs with it.
func (w *writer) watchLoop(ctx context.Context) {
	every(ctx, w.ledger.cfg.Patience/4, func() {
		now := time.Now()
		if !w.away(now) {
			return
		}
		before := now.Add(-w.ledger.cfg.Patience)
		late := w.ledger.queue.expire(before)
		w.mu.Lock()
		for _, t := range w.inFlight {
			if !t.patient && t.since.Before(before) {
				late = append(late, t)
			}
		}
		w.mu.Unlock()
		for _, t := range late {
			t.finish(fmt.Errorf("%s: %w", t.name, ErrUnavailable))
		}
	})
}

// run works until the queue is closed and empty, or ctx ends.
func (w *writer) run(ctx context.Context) {
	var tasks []*task
	for ctx.Err() == nil {
		// Let those run first who are about to add something. On a busy machine the
		// first of them would else wake this goroutine for itself alone, and small
		// batches spend most of their time in the commit. On an idle one this returns
		// at once.
		runtime.Gosched()
		tasks = w.due(tasks[:0])
		old := len(tasks)
		tasks = w.ledger.queue.pop(tasks, max(0, w.ledger.cfg.MaxBatch-old))
		tasks = append(tasks[:old], w.divert(tasks[old:])...)
		if len(tasks) > 0 {
			w.commit(ctx, tasks)
			continue
		}
		if len(w.parked) == 0 && w.ledger.queue.drained() {
			return
		}
		w.sleep(ctx)
		w.probe(ctx)
	}
	w.abort()
}

// sleep waits for a task, or until a parked one is due, or until it is time to
// see whether the store is back.
func (w *writer) sleep(ctx context.Context) {
	var due <-chan time.Time
	if len(w.parked) > 0 || w.failing() {
		next := time.Now().Add(probeEvery)
		for _, p := range w.parked {
			if p.due.Before(next) {
				next = p.due
			}
		}
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-w.ledger.queue.wake:
	case <-due:
	case <-ctx.Done():
	}
}

// probe asks a store that did not answer for nothing at all: while it is away,
// everybody who might find it back is refused.
func (w *writer) probe(ctx context.Context) {
	if w.failing() && w.ledger.queue.len() == 0 && w.attempt(ctx, nil) == nil {
		w.reached()
	}
}

// divert moves the tasks of parked accounts behind those already parked, and
// returns the others.
func (w *writer) divert(tasks []*task) []*task {
	if len(w.parked) == 0 {
		return tasks
	}
	kept := tasks[:0]
	for _, t := range tasks {
		if p := w.parked[t.account()]; p != nil {
			p.tasks = append(p.tasks, t)
		} else {
			kept = append(kept, t)
		}
	}
	return kept
}

// due takes the tasks of parked accounts that are to be tried again. An
// account's tasks stay together, in their order.
func (w *writer) due(tasks []*task) []*task {
	if len(w.parked) == 0 {
		return tasks
	}
	now := time.Now()
	for account, p := range w.parked {
		if len(tasks) >= w.ledger.cfg.MaxBatch {
			break
		}
		if !now.Before(p.due) {
			tasks = append(tasks, p.tasks...)
			delete(w.parked, account)
		}
	}
	return tasks
}

// park puts a task aside: for the next batch when somebody else changed its
// account, or until the process that has the account locked may be done.
func (w *writer) park(t *task, locked bool) {
	p := w.parked[t.account()]
	if p == nil {
		p = &parking{due: time.Now()}
		w.parked[t.account()] = p
	}
	p.tasks = append(p.tasks, t)
	t.parked = locked
	if locked {
		t.pause = min(max(2*t.pause, parkFirst), parkMost)
		p.due = time.Now().Add(t.pause)
	} else {
		t.pause = 0
	}
	w.ledger.stats.conflicts.Add(1)
}

// commit brings a batch into the store, however often that takes, and answers
// its tasks.
func (w *writer) commit(ctx context.Context, tasks []*task) {
	pause := retryFirst
	for {
		if tasks = w.live(tasks); len(tasks) == 0 {
			return
		}
		err := w.attempt(ctx, tasks)
		switch {
		case err == nil:
			w.reached()
			w.answer(tasks)
			return
		case errors.Is(err, ErrConflict), errors.Is(err, ErrRejected):
			w.reached()
			w.split(ctx, tasks, err)
			return
		case ctx.Err() != nil:
			w.fail(tasks, ErrClosed)
			return
		}
		w.unanswered(tasks, err)
		if !pauseFor(ctx, pause) {
			w.fail(tasks, ErrClosed)
			return
		}
		pause = min(2*pause, retryMost)
	}
}

// attempt runs one transaction.
func (w *writer) attempt(ctx context.Context, tasks []*task) error {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	w.mu.Lock()
	w.inFlight = append(w.inFlight[:0], tasks...)
	w.mu.Unlock()
	w.askedAt.Store(time.Now().UnixNano())
	defer w.askedAt.Store(0)
	b := &w.batch
	b.reset()
	for _, t := range tasks {
		t.need(b, t.uncertain)
		b.repeated = b.repeated || t.uncertain
	}
	b.rules = w.ledger.rules()
	return w.ledger.store.Apply(ctx, b, func() {
		b.begin()
		for _, t := range tasks {
			t.outcome = t.apply(b)
			if t.uncertain {
				b.confirm(t.account())
			}
		}
		b.end()
	})
}

// split tries a batch that lost against a concurrent one as a whole, or has a row
// that the store refuses, in halves; a single task is parked or refused.
func (w *writer) split(ctx context.Context, tasks []*task, err error) {
	if n := len(tasks) / 2; n > 0 {
		// The second half may hold later tasks of an account that the first half
		// parked: they must stay behind it.
		w.commit(ctx, tasks[:n])
		if rest := w.divert(tasks[n:]); len(rest) > 0 {
			w.commit(ctx, rest)
		}
		return
	}
	if errors.Is(err, ErrConflict) {
		w.park(tasks[0], true)
		return
	}
	w.ledger.log.Error("the store's guards refused an operation", "operation", tasks[0].name,
		"account", tasks[0].account().String(), "error", err)
	w.ledger.stats.rejected.Add(1)
	w.fail(tasks, fmt.Errorf("%s: %w", tasks[0].name, err))
}

// live drops the tasks that nobody waits for any more.
func (w *writer) live(tasks []*task) []*task {
	impatience := time.Now().Add(-w.ledger.cfg.Patience)
	kept := tasks[:0]
	for _, t := range tasks {
		switch {
		case t.fate.Load() != waiting: // its caller has left, or was refused
			w.undo(t)
		case !t.patient && (w.failing() || t.parked) && t.since.Before(impatience):
			w.fail([]*task{t}, fmt.Errorf("%s: %w", t.name, ErrUnavailable))
		default:
			kept = append(kept, t)
		}
	}
	return kept
}

// answer gives each task of a committed batch its result, and puts aside those
// whose accounts the store had to leave out.
func (w *writer) answer(tasks []*task) {
	w.ledger.stats.batch(len(tasks))
	for _, t := range tasks {
		if locked, missed := w.batch.missed[t.account()]; missed {
			w.park(t, locked)
			continue
		}
		w.ledger.committed(t)
		if !t.finish(t.outcome) && t.outcome == nil {
			t.uncertain = true // it took place, and its caller is gone
			w.undo(t)
		}
	}
}

// fail answers tasks that were not decided.
func (w *writer) fail(tasks []*task, err error) {
	for _, t := range tasks {
		t.finish(err)
		w.undo(t)
	}
}

// undo releases a hold that may have been made for a caller who is gone.
func (w *writer) undo(t *task) {
	if op, ok := t.operation.(*reserveOp); ok && t.uncertain {
		w.ledger.releaseUnowned(op)
	}
}

// unanswered notes that the store gave no answer, and refuses those in the queue
// that have waited long enough.
func (w *writer) unanswered(tasks []*task, err error) {
	now := time.Now()
	if w.failedSince.CompareAndSwap(0, now.UnixNano()) {
		w.ledger.log.Warn("ledger store does not answer; trying again", "operations", len(tasks), "error", err)
	}
	w.ledger.stats.retries.Add(1)
	for _, t := range tasks {
		t.uncertain = true
	}
	for _, t := range w.ledger.queue.expire(now.Add(-w.ledger.cfg.Patience)) {
		t.finish(fmt.Errorf("%s: %w", t.name, ErrUnavailable))
	}
}

// reached notes that the store answered.
func (w *writer) reached() {
	since := w.failedSince.Swap(0)
	if since == 0 {
		return
	}
	now := time.Now().UnixNano()
	w.reachedAt.Store(now)
	w.ledger.log.Info("ledger store answers again", "away", time.Duration(now-since).Round(time.Millisecond))
}

// abort answers everything that is left when the ledger is closed in a hurry.
func (w *writer) abort() {
	w.ledger.queue.close()
	for _, p := range w.parked {
		w.fail(p.tasks, ErrClosed)
	}
	for {
		tasks := w.ledger.queue.pop(nil, w.ledger.cfg.MaxBatch)
		if len(tasks) == 0 {
			return
		}
		w.fail(tasks, ErrClosed)
	}
}

// pauseFor reports false when ctx ended meanwhile.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
