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
	retryFirst   = 2 * time.Millisecond // pause after the first failure, doubled after each further failure
	retryMost    = time.Second
	attemptLimit = 5 * time.Second  // for one attempt at a batch
	parkFirst    = time.Millisecond // pause before a locked account is tried again, doubled each time
	parkMost     = time.Second
	probeEvery   = 250 * time.Millisecond // how often to ask a store that did not answer, while no batch asks it
)

// writer is the one goroutine of a process that changes accounts in the store. It keeps the order of arrival of each
// account's operations.
type writer struct {
	ledger *Ledger
	batch  Batch
	// parked holds the tasks of accounts that another process had changed or locked, so that a locked account delays
	// only its own tasks. Only the run goroutine uses parked.
	parked map[l402.TokenID]*parking
	// failedSince is when the store stopped answering, ns since 1970; 0: the store answered the last attempt.
	failedSince atomic.Int64
	// reachedAt is when the store last began to answer again, ns since 1970.
	reachedAt atomic.Int64
	// askedAt is when the running attempt began, ns since 1970; 0: no attempt runs.
	askedAt atomic.Int64

	mu       sync.Mutex
	inFlight []*task // the tasks of the running attempt, or of the last one
}

type parking struct {
	tasks []*task // in order of arrival
	due   time.Time
}

// failing reports whether the last attempt got no answer from the store.
func (w *writer) failing() bool { return w.failedSince.Load() != 0 }

// away reports whether the store has not answered for Config.Patience. Impatient operations are then refused at once.
func (w *writer) away(now time.Time) bool {
	longAgo := now.Add(-w.ledger.cfg.Patience).UnixNano()
	failed, asked := w.failedSince.Load(), w.askedAt.Load()
	return failed != 0 && failed < longAgo || asked != 0 && asked < longAgo
}

// watchLoop refuses the impatient tasks that wait for a store that hangs. It runs in a goroutine of its own, because
// the writer hangs as well.
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

// run commits tasks until the queue is closed and empty, or ctx ends.
func (w *writer) run(ctx context.Context) {
	var tasks []*task
	for ctx.Err() == nil {
		// Give other goroutines that are about to submit a task the chance to run first. Without this, on a busy
		// machine the first such goroutine would wake the writer for its one task, and small batches spend most of
		// their time in the commit. On an idle machine Gosched returns at once.
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

// sleep waits for a task, for the time at which a parked task is due, or for the time to probe the store.
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

// probe sends an empty batch to a store that did not answer. While the store is away, all impatient operations are
// refused, so without probe no operation would find out that the store is back.
func (w *writer) probe(ctx context.Context) {
	if w.failing() && w.ledger.queue.len() == 0 && w.attempt(ctx, nil) == nil {
		w.reached()
	}
}

// divert moves the tasks of parked accounts behind the tasks already parked, and returns the other tasks.
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

// due takes the tasks of parked accounts whose time has come. The tasks of an account stay together and in order.
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

// park puts a task aside. If another process changed the task's account, the task is in the next batch. If another
// process has the account locked, the task waits for a pause.
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

// commit tries to commit a batch until the store answers, and then answers the batch's tasks.
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

// split runs a batch that conflicted or was rejected as a whole in two halves. It parks a single task that conflicted,
// and refuses a single task that was rejected.
func (w *writer) split(ctx context.Context, tasks []*task, err error) {
	if n := len(tasks) / 2; n > 0 {
		// The first half may have parked an account of which the second half has later tasks. Those tasks must stay
		// behind the parked tasks.
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

// live drops the tasks whose caller does not wait any more, and refuses the impatient tasks that have waited too long.
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

// answer gives each task of a committed batch its result, and parks the tasks whose accounts the store left out.
func (w *writer) answer(tasks []*task) {
	w.ledger.stats.batch(len(tasks))
	for _, t := range tasks {
		if locked, missed := w.batch.missed[t.account()]; missed {
			w.park(t, locked)
			continue
		}
		w.ledger.committed(t)
		if !t.finish(t.outcome) && t.outcome == nil {
			t.uncertain = true // the operation was committed, and its caller has left
			w.undo(t)
		}
	}
}

// fail answers tasks that were not decided with an error.
func (w *writer) fail(tasks []*task, err error) {
	for _, t := range tasks {
		t.finish(err)
		w.undo(t)
	}
}

// undo releases a hold that an uncertain reservation may have made for a caller who has left.
func (w *writer) undo(t *task) {
	if op, ok := t.operation.(*reserveOp); ok && t.uncertain {
		w.ledger.releaseUnowned(op)
	}
}

// unanswered notes that the store gave no answer, and refuses the queued impatient tasks that have waited for
// Config.Patience.
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

// abort answers all remaining tasks with ErrClosed when the run ends before the queue is empty.
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

// pauseFor waits for d. It returns false when ctx ends first.
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
