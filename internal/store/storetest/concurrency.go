package storetest

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// contest lets 200 callers ask for 10 msat each on an account that has 500 msat, and settle all of it. Exactly 50 must
// pass.
func (e *env) contest(ledgers ...*metering.Ledger) {
	e.Helper()
	id := e.account(500)
	var passed, short atomic.Int64
	parallel(200, func(i int) {
		h, err := ledgers[i%len(ledgers)].Reserve(ctx(e.T), reservation(id, 10))
		var refused *metering.InsufficientError
		switch {
		case errors.As(err, &refused):
			short.Add(1)
		case err != nil:
			e.Error(err)
		default:
			passed.Add(1)
			e.settle(h, 10)
		}
	})
	if passed.Load() != 50 || short.Load() != 150 {
		e.Errorf("%d passed, %d were refused", passed.Load(), short.Load())
	}
	e.balance(id, 0, 0, 500)
}

func testFiftyOf200(e *env) {
	for range 5 {
		e.contest(e.ledger)
	}
}

func testThreeReplicas(e *env) {
	second, third := e.open(metering.Config{}), e.open(metering.Config{})
	for range 5 {
		e.contest(e.ledger, second, third)
	}
	// One new account and one payment, from all three gateways at once.
	id, h := l402.NewTokenID(), newHash()
	parallel(60, func(i int) {
		r := reservation(id, 10)
		r.Deposit = &metering.Deposit{Hash: h, Account: id, Amount: 300}
		hold, err := []*metering.Ledger{e.ledger, second, third}[i%3].Reserve(ctx(e.T), r)
		var refused *metering.InsufficientError
		if err == nil {
			e.settle(hold, 10)
		} else if !errors.As(err, &refused) {
			e.Error(err)
		}
	})
	e.balance(id, 0, 0, 300)
}

func testBudgetsUnderConcurrency(e *env) {
	ledgers := []*metering.Ledger{e.ledger, e.open(metering.Config{})}
	id := e.account(1_000_000)
	top, middle, leaf := newBudget(3000), newBudget(2000), newBudget(1000)
	chains := [][]l402.Budget{{top}, {top, middle}, {top, middle, leaf}}
	parallel(300, func(i int) {
		h, err := ledgers[i%2].Reserve(ctx(e.T), reservation(id, 50, chains[i%3]...))
		var refused *metering.InsufficientError
		switch {
		case err == nil:
			e.settle(h, l402.Msat(1+rand.IntN(60)))
		case !errors.As(err, &refused):
			e.Error(err)
		}
		for _, chain := range chains {
			b, err := ledgers[i%2].Balance(ctx(e.T), id, chain)
			if err != nil || b.Available < 0 {
				e.Errorf("balance: %+v, %v", b, err)
			}
		}
	})
	e.audit()
}

func testClose(e *env) {
	l := e.open(metering.Config{})
	id := e.account(1000)
	holds := make([]*metering.Hold, 50)
	for i := range holds {
		holds[i] = e.reserveOn(l, reservation(id, 10))
	}
	results := make(chan error, len(holds))
	release := make(chan struct{})
	entered := make(chan struct{}, 1000)
	e.store.gate(entered, release)
	for _, h := range holds {
		go func() {
			_, err := h.Settle(ctx(e.T), calls(7))
			results <- err
		}()
	}
	e.eventually("settlements in the queue", func() bool {
		return l.Stats().Queue+len(entered) > 0 && l.Stats().Open == 0
	})
	close(release)
	if err := l.Close(ctx(e.T)); err != nil { // finishes the queued operations
		e.Error(err)
	}
	for range holds {
		if err := <-results; err != nil {
			e.Error(err)
		}
	}
	e.store.heal()
	_, err := l.Reserve(ctx(e.T), reservation(id, 1))
	e.refused(err, metering.ErrClosed)
	e.balance(id, 650, 0, 350)
}
