package metering

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// task is one operation on its way through the queue. The writer owns the
// operation until done is closed; then the goroutine that submitted it
// does.
type task struct {
	operation
	name    string // for errors
	since   time.Time
	patient bool          // stays until the store has answered; others give up after Config.Patience
	fate    atomic.Uint32 // waiting, abandoned or done
	done    chan struct{}
	err     error // valid once done is closed
	// Owned by the writer:
	outcome   error         // what the last attempt decided
	uncertain bool          // an attempt ended without an answer
	parked    bool          // someone else had its rows locked
	pause     time.Duration // before the next attempt, while its account is locked
}

const (
	waiting uint32 = iota
	abandoned
	finished
)

// finish answers the task's caller and reports false when nobody waits any more.
func (t *task) finish(err error) bool {
	if !t.fate.CompareAndSwap(waiting, finished) {
		return false
	}
	t.err = err
	close(t.done)
	return true
}

// queue holds the tasks between their callers and the writer, first in, first
// out. Safe for concurrent use.
type queue struct {
	mu     sync.Mutex
	tasks  []*task
	limit  int
	closed bool
	wake   chan struct{} // one token: something changed
}

func newQueue(limit int) *queue { return &queue{limit: limit, wake: make(chan struct{}, 1)} }

// push adds a task. Impatient tasks are refused with ErrBusy when the queue is
// full; patient ones are bounded by the holds that are open.
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

// pop moves up to n tasks into the slice given.
func (q *queue) pop(into []*task, n int) []*task {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.tasks))
	into = append(into, q.tasks[:n]...)
	clear(q.tasks[:n])
	if q.tasks = q.tasks[n:]; len(q.tasks) == 0 {
		q.tasks = nil // let a long queue's memory go
	}
	return into
}

// close refuses what comes from now on.
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

// expire takes out the impatient tasks submitted before a moment.
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

// submit queues an operation.
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

// do queues an operation and waits for its answer. When ctx ends first, the
// operation may still take place.
func (l *Ledger) do(ctx context.Context, name string, op operation, patient bool) error {
	t, err := l.submit(name, op, patient)
	if err != nil {
		return err
	}
	return l.wait(ctx, t)
}

// wait waits for the answer to a task. An impatient task is given up when ctx
// ends; a patient one goes on and can be waited for again.
func (l *Ledger) wait(ctx context.Context, t *task) error {
	select {
	case <-t.done:
		return t.err
	case <-ctx.Done():
	}
	if t.patient || t.fate.CompareAndSwap(waiting, abandoned) {
		select {
		case <-t.done: // both at once: the answer counts
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
