package lightning_test

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
)

// ledger is a Sink in memory. Credit and cursor change together, and the cursor only grows unless
// Restart replaces it.
type ledger struct {
	mu       sync.Mutex
	born     time.Time
	cursors  map[string]lightning.Cursor
	taken    map[l402.PaymentHash]lightning.SettledInvoice
	calls    int
	restarts []lightning.Cursor
	fail     int // number of calls of Settled that fail
	stuck    int // number of calls of Restart that fail
	changed  chan struct{}
}

var _ lightning.Sink = (*ledger)(nil)

func newLedger() *ledger {
	return &ledger{
		born: time.Now(), cursors: map[string]lightning.Cursor{}, taken: map[l402.PaymentHash]lightning.SettledInvoice{},
		changed: make(chan struct{}, 1),
	}
}

func (l *ledger) Cursor(_ context.Context, node string) (lightning.Cursor, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, known := l.cursors[node]
	return c, known, nil
}

func (l *ledger) Restart(_ context.Context, node string, c lightning.Cursor) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stuck > 0 {
		l.stuck--
		return errors.New("the store is away")
	}
	l.cursors[node] = c
	l.restarts = append(l.restarts, c)
	return nil
}

func (l *ledger) Born(context.Context) (time.Time, error) { return l.born, nil }

func (l *ledger) Settled(_ context.Context, inv lightning.SettledInvoice) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.fail > 0 {
		l.fail--
		return errors.New("the store is away")
	}
	l.taken[inv.Hash] = inv
	if inv.Cursor.Index > l.cursors[inv.Node].Index {
		l.cursors[inv.Node] = inv.Cursor
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
	return nil
}

// reset clears the list of invoices that the ledger got.
func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.taken)
}

// has waits until the ledger has all the hashes.
func (l *ledger) has(t *testing.T, hashes ...l402.PaymentHash) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		l.mu.Lock()
		missing := slices.ContainsFunc(hashes, func(h l402.PaymentHash) bool { _, ok := l.taken[h]; return !ok })
		n := len(l.taken)
		l.mu.Unlock()
		if !missing {
			return
		}
		select {
		case <-l.changed:
		case <-timeout:
			t.Fatalf("the ledger has %d invoices, but not all of the %d expected", n, len(hashes))
		}
	}
}

func (l *ledger) get(h l402.PaymentHash) lightning.SettledInvoice {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken[h]
}

func (l *ledger) cursor(node string) lightning.Cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cursors[node]
}

// all returns the invoices that the ledger got, in the order of settlement.
func (l *ledger) all() []lightning.SettledInvoice {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.taken), func(a, b lightning.SettledInvoice) int {
		return cmp.Compare(a.SettleIndex, b.SettleIndex)
	})
}

// watch runs Watch until the test ends or stop is called.
func watch(t *testing.T, c *lightning.Client, sink lightning.Sink) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Watch(ctx, sink) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Watch ended with %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// eventually polls until ok returns true, because the event happens in another process.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within twenty seconds: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// live returns a function that returns the first result of Watching.
func live(c *lightning.Client) func() bool {
	return func() bool { ok, _ := c.Watching(); return ok }
}
