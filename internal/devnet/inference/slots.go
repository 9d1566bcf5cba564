package inference

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// errQueueFull reports that all slots are taken and the queue is full.
var errQueueFull = errors.New("the queue is full")

// slots is a weighted semaphore with a bounded first-in-first-out queue.
type slots struct {
	mu    sync.Mutex
	total int
	taken int
	limit int       // how many may wait in queue
	queue list.List // of *waiter
}

type waiter struct {
	weight int
	ready  chan struct{}
}

func newSlots(total, limit int) *slots { return &slots{total: total, limit: limit} }

// acquire takes weight slots and waits for them if necessary. It fails at once with errQueueFull
// when the queue is full. It fails with the context's error when the context ends first.
func (s *slots) acquire(ctx context.Context, weight int) error {
	s.mu.Lock()
	if s.queue.Len() == 0 && s.taken+weight <= s.total {
		s.taken += weight
		s.mu.Unlock()
		return nil
	}
	if s.queue.Len() >= s.limit {
		s.mu.Unlock()
		return errQueueFull
	}
	w := &waiter{weight, make(chan struct{})}
	place := s.queue.PushBack(w)
	s.mu.Unlock()

	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-w.ready: // the slots came although the context ended, so they are given back
		s.taken -= weight
	default:
		s.queue.Remove(place)
	}
	s.admit()
	return ctx.Err()
}

func (s *slots) release(weight int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken -= weight
	s.admit()
}

// admit gives slots to the requests at the head of the queue, as long as there are enough slots.
func (s *slots) admit() {
	for first := s.queue.Front(); first != nil; first = s.queue.Front() {
		w := first.Value.(*waiter)
		if s.taken+w.weight > s.total {
			return
		}
		s.taken += w.weight
		s.queue.Remove(first)
		close(w.ready)
	}
}

func (s *slots) load() (running, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken, s.queue.Len()
}
