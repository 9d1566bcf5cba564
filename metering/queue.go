package metering

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// task is one operation on its way through the queue. The writer owns the operation until done is closed. After that
// the goroutine that submitted the task owns it.
type task struct {
	operation
	name    string // name of the operation, for errors
	since   time.Time
	patient bool          // waits until the store has answered; other tasks fail after Config.Patience
	fate    atomic.Uint32 // waiting, abandoned or finished
	done    chan struct{}
	err     error // valid once done is closed
	// The writer owns these fields:
	outcome   error         // what the last attempt decided
	uncertain bool          // an attempt got no answer and may have been committed
	parked    bool          // another process had the account locked
	pause     time.Duration // before the next attempt, while the account is locked
}

const (
	waiting uint32 = iota
	abandoned
	finished
)

// finish answers the task's caller. It returns false when the caller does not wait any more.
func (t *task) finish(err error) bool {
	if !t.fate.CompareAndSwap(waiting, finished) {
		return false
	}
	t.err = err
	close(t.done)
	return true
}

// queue holds the tasks between their callers and the writer, first in, first out. Safe for concurrent use.
type queue struct {
	mu     sync.Mutex
	tasks  []*task
	limit  int
	closed bool
	wake   chan struct{} // has one token when something has changed
}

func newQueue(limit int) *queue { return &queue{limit: limit, wake: make(chan struct{}, 1)} }

// push adds a task. When the queue is full, it refuses impatient tasks with ErrBusy. It takes patient tasks, whose
// number is bounded by the open holds.
func (q *queue) push(t *task) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	if !t.patient && len(q.tasks) >= q.limit {
		return ErrBusy
	}
	q.tasks = append(q.tasks, t)
	q.signal()
	return nil
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// pop moves up to n tasks from the queue to the end of into.
func (q *queue) pop(into []*task, n int) []*task {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.tasks))
	into = append(into, q.tasks[:n]...)
	clear(q.tasks[:n])
	if q.tasks = q.tasks[n:]; len(q.tasks) == 0 {
		q.tasks = nil // free the memory of a long queue
	}
	return into
}

// close makes push refuse all further tasks.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// drained reports whether the queue is closed and empty.
func (q *queue) drained() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed && len(q.tasks) == 0
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.tasks)
}

// expire removes and returns the impatient tasks that were submitted before a moment.
func (q *queue) expire(before time.Time) (old []*task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := q.tasks[:0]
	for _, t := range q.tasks {
		if !t.patient && t.since.Before(before) {
			old = append(old, t)
		} else {
			kept = append(kept, t)
		}
	}
	clear(q.tasks[len(kept):])
	q.tasks = kept
	return old
}

// submit queues an operation. It refuses an impatient operation when the store is away.
func (l *Ledger) submit(name string, op operation, patient bool) (*task, error) {
	t := &task{operation: op, name: name, patient: patient, since: time.Now(), done: make(chan struct{})}
	if !patient && l.writer.away(t.since) {
		return nil, fmt.Errorf("%s: %w", name, ErrUnavailable)
	}
	if err := l.queue.push(t); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

// do queues an operation and waits for its answer. When ctx ends first, the operation may still take place.
func (l *Ledger) do(ctx context.Context, name string, op operation, patient bool) error {
	t, err := l.submit(name, op, patient)
	if err != nil {
		return err
	}
	return l.wait(ctx, t)
}

// wait waits for the answer to a task. When ctx ends, an impatient task is abandoned. A patient task continues, and the
// caller may wait for it again.
func (l *Ledger) wait(ctx context.Context, t *task) error {
	select {
	case <-t.done:
		return t.err
	case <-ctx.Done():
	}
	if t.patient || t.fate.CompareAndSwap(waiting, abandoned) {
		select {
		case <-t.done: // ctx ended and the answer came at the same time: the answer counts
			return t.err
		default:
		}
		if l.writer.failing() {
			return fmt.Errorf("%s: %w: %w", t.name, ErrUnavailable, ctx.Err())
		}
		return fmt.Errorf("%s: %w", t.name, ctx.Err())
	}
	<-t.done
	return t.err
}
