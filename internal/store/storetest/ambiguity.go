package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// testAmbiguity combines every kind of write with every way to fail. It checks that each outcome is that of a write
// that did not fail.
func testAmbiguity(e *env) {
	for _, write := range []struct {
		name string
		// do runs one write on an account with 1000 msat. It calls arm to inject the fault.
		do                       func(id l402.TokenID, arm func())
		available, held, charged l402.Msat
	}{
		{"reserve", func(id l402.TokenID, arm func()) {
			arm()
			if h := e.reserve(id, 400, newBudget(900)); h.Available() != 500 {
				e.Errorf("available %d", h.Available())
			}
		}, 600, 400, 0},
		{"reserve with deposit", func(id l402.TokenID, arm func()) {
			r := reservation(id, 1400)
			r.Deposit = &metering.Deposit{Hash: newHash(), Account: id, Amount: 700}
			arm()
			e.reserveOn(e.ledger, r)
		}, 300, 1400, 0},
		{"reserve with limits", func(id l402.TokenID, arm func()) {
			r := reservation(id, 400)
			r.RateLimits = []l402.RateLimit{{ID: newHash(), PerMinute: 1}}
			r.Idempotency = &metering.Idempotency{Key: newHash()}
			arm()
			e.reserveOn(e.ledger, r)
		}, 600, 400, 0},
		{"refused reserve with deposit", func(id l402.TokenID, arm func()) {
			r := reservation(id, 5000)
			r.Deposit = &metering.Deposit{Hash: newHash(), Account: id, Amount: 700}
			arm()
			_, err := e.ledger.Reserve(ctx(e.T), r)
			e.insufficient(err, 1700, 5000)
		}, 1700, 0, 0},
		{"extend", func(id l402.TokenID, arm func()) {
			h := e.reserve(id, 400)
			arm()
			if err := h.Extend(ctx(e.T), 700); err != nil {
				e.Error(err)
			}
		}, 300, 700, 0},
		{"settle", func(id l402.TokenID, arm func()) {
			h := e.reserve(id, 400, newBudget(900))
			arm()
			if entry := e.settle(h, 250); entry.Charged != 250 || entry.Unbilled != 0 {
				e.Errorf("entry: %+v", entry)
			}
		}, 750, 0, 250},
		{"settle a lost hold", func(id l402.TokenID, arm func()) {
			var h *metering.Hold
			e.loseHolds(func() { h = e.reserve(id, 400) })
			arm()
			e.settle(h, 250)
		}, 750, 0, 250},
		{"release", func(id l402.TokenID, arm func()) {
			h := e.reserve(id, 400, newBudget(900))
			arm()
			if err := h.Release(ctx(e.T), metering.OutcomeNotTaken); err != nil {
				e.Error(err)
			}
		}, 1000, 0, 0},
		{"sweep", func(id l402.TokenID, arm func()) {
			e.abandoned(id, 400, 130)
			arm()
			e.sweep(e.ledger, 1)
		}, 870, 0, 130},
		{"late settle", func(id l402.TokenID, arm func()) {
			_, h := e.abandoned(id, 400, 130, newBudget(400))
			e.sweep(e.ledger, 1)
			arm()
			e.settle(h, 300)
		}, 700, 0, 300},
		{"deposit", func(id l402.TokenID, arm func()) {
			arm()
			e.deposit(id, 500)
		}, 1500, 0, 0},
		{"credit from the settle stream", func(id l402.TokenID, arm func()) {
			arm()
			if _, err := e.settled(newHash(), id, 500, 4); err != nil {
				e.Error(err)
			}
		}, 1500, 0, 0},
		{"adjust", func(id l402.TokenID, arm func()) {
			arm()
			if err := e.ledger.Adjust(ctx(e.T), metering.NewHoldID(), id, -300, "x"); err != nil {
				e.Error(err)
			}
		}, 700, 0, 0},
		{"set status", func(id l402.TokenID, arm func()) {
			arm()
			if err := e.ledger.SetStatus(ctx(e.T), id, metering.StatusFrozen); err != nil {
				e.Error(err)
			}
		}, 1000, 0, 0},
	} {
		for how, faults := range map[string][]fault{
			"early": {early}, "lost": {lost}, "kept": {kept}, "lost twice, then kept": {lost, lost, kept},
			"kept twice": {kept, kept}, "locked": {locked, locked},
		} {
			id := e.account(1000)
			write.do(id, func() { e.store.inject(faults...) })
			name := fmt.Sprintf("%s: %s", write.name, how)
			if n := e.store.pending(); n != 0 {
				e.Errorf("%s: %d faults did not happen", name, n)
			}
			e.store.heal()
			b, err := e.ledger.Balance(ctx(e.T), id, nil)
			if err != nil {
				e.Fatal(err)
			}
			if b.Available != write.available || b.Held != write.held || b.Charged != write.charged {
				e.Errorf("%s: available %d, held %d, charged %d; want %d, %d, %d", name,
					b.Available, b.Held, b.Charged, write.available, write.held, write.charged)
			}
			e.release(id)
		}
		e.audit()
	}
}

// release drops the ledger, and sweeps the holds that the case left open, so that the next case does not sweep them.
func (e *env) release(l402.TokenID) {
	e.kill(e.ledger)
	e.ledger = e.open(metering.Config{})
	if _, err := e.watch(e.ledger); err != nil {
		e.Error(err)
	}
}

// testStoreAway checks what happens while the store does not answer for some time and holds are open.
func testStoreAway(e *env) {
	l := e.open(metering.Config{Patience: 50 * time.Millisecond})
	id := e.account(1000)
	h, gone := e.reserveOn(l, reservation(id, 300)), e.reserveOn(l, reservation(id, 100))
	for _, how := range []fault{early, lost, kept} {
		e.store.breakdown(how)
		_, err := l.Reserve(ctx(e.T), reservation(id, 50))
		e.refused(err, metering.ErrUnavailable)
		_, err = l.Reserve(ctx(e.T), reservation(id, 50)) // refused at once: the store is known to be away
		e.refused(err, metering.ErrUnavailable)
		_, err = l.Deposit(ctx(e.T), metering.Deposit{Hash: newHash(), Account: id, Amount: 0})
		e.refused(err, metering.ErrUnavailable)
		e.refused(l.Ready(ctx(e.T)), metering.ErrUnavailable)
		e.store.heal()
		e.eventually("recovery", func() bool {
			_, err := l.Deposit(ctx(e.T), metering.Deposit{Hash: newHash(), Account: id, Amount: 0})
			return err == nil
		})
		// The ledger releases by itself a hold that was committed although its caller was told of a failure.
		e.eventually("release", func() bool {
			b, err := e.ledger.Balance(ctx(e.T), id, nil)
			return err == nil && b.Held == 400
		})
	}
	// When no caller asks, the ledger finds out by itself that the store is back.
	e.store.breakdown(early)
	_, err := l.Deposit(ctx(e.T), metering.Deposit{Hash: newHash(), Account: id, Amount: 0})
	e.refused(err, metering.ErrUnavailable)
	e.store.heal()
	e.eventually("recovery", func() bool { return !l.Stats().Failing })

	// A settlement continues after its caller has given up, and while the store is away.
	e.store.breakdown(early)
	brief, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = h.Settle(brief, calls(120))
	if err == nil || !errors.Is(err, context.DeadlineExceeded) {
		e.Errorf("settle without a store: %v", err)
	}
	_, err = gone.Settle(brief, calls(10)) // its caller does not ask again
	if err == nil {
		e.Error("settled without a store")
	}
	e.store.heal()
	if entry := e.settle(h, 120); entry.Charged != 120 {
		e.Errorf("entry: %+v", entry)
	}
	e.eventually("settlement", func() bool {
		b, err := e.ledger.Balance(ctx(e.T), id, nil)
		return err == nil && b.Charged == 130
	})
	e.balance(id, 870, 0, 130)
	if err := l.Ready(ctx(e.T)); err != nil {
		e.Error(err)
	}
}

// testStoreHangs checks what happens while the store neither answers nor fails.
func testStoreHangs(e *env) {
	l := e.open(metering.Config{Patience: 100 * time.Millisecond})
	id := e.account(1000)
	release, entered := make(chan struct{}), make(chan struct{}, 100)
	e.store.gate(entered, release)
	errs := make(chan error, 10)
	for range cap(errs) { // one is in the store, the others wait behind it
		go func() {
			_, err := l.Reserve(ctx(e.T), reservation(id, 10))
			errs <- err
		}()
	}
	for range cap(errs) {
		e.refused(<-errs, metering.ErrUnavailable)
	}
	began := time.Now()
	_, err := l.Reserve(ctx(e.T), reservation(id, 10))
	e.refused(err, metering.ErrUnavailable)
	if took := time.Since(began); took > time.Second {
		e.Errorf("refused after %s", took)
	}
	close(release)
	e.store.gate(nil, nil)
	e.eventually("recovery", func() bool {
		h, err := l.Reserve(ctx(e.T), reservation(id, 10))
		if err == nil {
			e.settle(h, 10)
		}
		return err == nil
	})
	e.eventually("release", func() bool {
		b, err := e.ledger.Balance(ctx(e.T), id, nil)
		return err == nil && b.Held == 0
	})
	e.balance(id, 990, 0, 10)
}

// testCallerGone checks that the ledger releases a hold that it made for a caller who has left.
func testCallerGone(e *env) {
	id := e.account(1000)
	for range 20 {
		release := make(chan struct{})
		entered := make(chan struct{}, 100)
		e.store.gate(entered, release)
		leaving, leave := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			_, err := e.ledger.Reserve(leaving, reservation(id, 100))
			done <- err
		}()
		<-entered
		leave()
		if err := <-done; !errors.Is(err, context.Canceled) {
			e.Errorf("reserve: %v", err)
		}
		close(release)
		e.store.gate(nil, nil)
	}
	e.eventually("release", func() bool {
		b, err := e.ledger.Balance(ctx(e.T), id, nil)
		return err == nil && b.Held == 0
	})
	e.balance(id, 1000, 0, 0)
}

func testFullQueue(e *env) {
	l := e.open(metering.Config{QueueLimit: 4, MaxBatch: 1})
	id := e.account(1000)
	h := e.reserveOn(l, reservation(id, 100))
	release := make(chan struct{})
	entered := make(chan struct{}, 100)
	e.store.gate(entered, release)
	results := make(chan error, 20)
	reserve := func() {
		_, err := l.Reserve(ctx(e.T), reservation(id, 1))
		results <- err
	}
	go reserve()
	<-entered
	for range cap(results) - 1 {
		go reserve()
	}
	for range cap(results) - 5 { // one is in the store, four wait
		e.refused(<-results, metering.ErrBusy)
	}
	settled := make(chan error, 1)
	go func() { // a settlement is taken although the queue is full
		_, err := h.Settle(ctx(e.T), calls(5))
		settled <- err
	}()
	close(release)
	e.store.gate(nil, nil)
	for range 5 {
		if err := <-results; err != nil {
			e.Error(err)
		}
	}
	if err := <-settled; err != nil {
		e.Error(err)
	}
	e.balance(id, 990, 5, 5)
}

// testLockedRow checks that an account which another process has locked delays only its own operations, and that these
// keep their order.
func testLockedRow(e *env) {
	stuck, poison := e.account(1000), e.account(1000)
	h := e.reserve(stuck, 100)
	e.store.onWrite(func(b *metering.Batch) (how fault) {
		b.Accounts.Keys(func(id l402.TokenID) bool {
			if id == stuck {
				how = locked
			} else if id == poison && how == none {
				how = refused
			}
			return true
		})
		return how
	})
	first := make(chan error, 1)
	go func() { first <- h.Extend(ctx(e.T), 300) }()
	e.eventually("conflict", func() bool { return e.ledger.Stats().Conflicts > 0 })
	parallel(100, func(i int) {
		if i%10 == 0 {
			_, err := e.ledger.Reserve(ctx(e.T), reservation(poison, 10))
			e.refused(err, metering.ErrRejected)
			return
		}
		id := e.account(100)
		e.settle(e.reserve(id, 10), 10)
	})
	select {
	case err := <-first:
		e.Errorf("an operation on a locked row was answered: %v", err)
	default:
	}
	e.eventually("longer pauses", func() bool { return e.ledger.Stats().Conflicts > 5 })
	e.store.heal()
	// An operation that arrives now waits behind the waiting operations. If the settlement came before the extension,
	// it would find a hold of only 100 msat.
	e.settle(h, 250)
	if err := <-first; err != nil {
		e.Error(err)
	}
	e.balance(stuck, 750, 0, 250)
	e.balance(poison, 1000, 0, 0)
}
