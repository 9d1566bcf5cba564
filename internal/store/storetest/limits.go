package storetest

import (
	"crypto/rand"
	"errors"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

func testBudgets(e *env) {
	id := e.account(10_000)
	outer, inner := newBudget(1000), newBudget(600)
	sibling := newBudget(800)

	e.settle(e.reserve(id, 500, outer, inner), 400) // inner has 200 left, outer 600
	_, err := e.ledger.Reserve(ctx(e.T), reservation(id, 201, outer, inner))
	e.insufficient(err, 200, 201)
	h := e.reserve(id, 500, outer, sibling) // outer has 100 left
	_, err = e.ledger.Reserve(ctx(e.T), reservation(id, 150, outer, inner))
	e.insufficient(err, 100, 150) // the outer budget has less than the inner
	b, err := e.ledger.Balance(ctx(e.T), id, []l402.Budget{outer, inner})
	if err != nil || b.Available != 100 || len(b.Budgets) != 2 || b.Budgets[0].Available != 100 || b.Budgets[1].Available != 200 {
		e.Errorf("balance: %+v, %v", b, err)
	}
	e.settle(h, 0)
	_, err = e.ledger.Reserve(ctx(e.T), reservation(id, 601, outer, sibling))
	e.insufficient(err, 600, 601)
	e.settle(e.reserve(id, 600, outer, sibling), 600)
	e.balance(id, 9000, 0, 1000) // exactly the outer limit
	_, err = e.ledger.Reserve(ctx(e.T), reservation(id, 1, outer, inner))
	e.insufficient(err, 0, 1)

	// The account bounds its budgets as well. A larger limit for the same budget id does not count.
	_, err = e.ledger.Reserve(ctx(e.T), reservation(id, 9001, newBudget(20_000)))
	e.insufficient(err, 9000, 9001)
	widened := inner
	widened.Limit = 5000
	_, err = e.ledger.Reserve(ctx(e.T), reservation(id, 300, widened))
	e.insufficient(err, 200, 300)
	_, err = e.ledger.Reserve(ctx(e.T), reservation(e.account(50), 1, inner)) // a budget of another account
	e.refused(err, metering.ErrArgument)
}

func testBudgetRowsStayBounded(e *env) {
	id := e.account(1000)
	parallel(300, func(int) {
		h := e.reserve(id, 1, newBudget(10))
		if err := h.Release(ctx(e.T), metering.OutcomeBackendError); err != nil {
			e.Error(err)
		}
	})
	if r := e.audit(); r.Budgets != 0 {
		e.Errorf("%d budgets left behind", r.Budgets)
	}
	e.balance(id, 1000, 0, 0)
}

// testTooManyBudgets checks that live budgets are counted at the account or budget that delegated them.
func testTooManyBudgets(e *env) {
	l := e.open(metering.Config{MaxBudgetsPerAccount: 2, MaxBudgetsPerBudget: 3})
	id := e.account(1000)
	first, second := newBudget(100), newBudget(10)
	try := func(amount l402.Msat, chain ...l402.Budget) error {
		_, err := l.Reserve(ctx(e.T), reservation(id, amount, chain...))
		return err
	}
	good := func(err error) {
		e.Helper()
		if err != nil {
			e.Error(err)
		}
	}
	h := e.reserveOn(l, reservation(id, 5, first))
	good(try(5, second))
	e.refused(try(5, newBudget(10)), metering.ErrTooManyBudgets)
	good(try(5)) // a request without a budget is not limited
	for range 3 {
		good(try(5, first, newBudget(10)))
	}
	e.refused(try(5, first, newBudget(10)), metering.ErrTooManyBudgets)
	e.refused(try(5, second, newBudget(10), newBudget(10)), nil) // second has places of its own
	good(try(5, first))                                          // budgets in use can still be used
	if err := h.Release(ctx(e.T), metering.OutcomeNotTaken); err != nil {
		e.Fatal(err)
	}
	e.audit()
}

// testDelegateCannotUseUpPlaces lets a delegate hand on its budget to itself in parts of 1 msat, and spend all of them.
// It checks that the owner's places stay free. The delegate's places become free again, because a budget that is spent
// completely does not count.
func testDelegateCannotUseUpPlaces(e *env) {
	l := e.open(metering.Config{MaxBudgetsPerAccount: 5, MaxBudgetsPerBudget: 10})
	id, delegate := e.account(10_000), newBudget(1000)
	for range 300 {
		part := newBudget(1)
		h := e.reserveOn(l, reservation(id, 1, delegate, part))
		e.settle(h, 1)
		_, err := l.Reserve(ctx(e.T), reservation(id, 1, delegate, part))
		e.insufficient(err, 0, 1) // a budget that is spent completely stays so
	}
	for range 20 { // the same for the owner itself
		e.settle(e.reserveOn(l, reservation(id, 3, newBudget(3))), 3)
	}
	for range 4 {
		e.reserveOn(l, reservation(id, 1, newBudget(10)))
	}
	_, err := l.Reserve(ctx(e.T), reservation(id, 1, newBudget(10)))
	e.refused(err, metering.ErrTooManyBudgets)
	e.audit()
}

// testBudgetsEnd checks that a budget whose tokens have expired is removed, and that its lines are kept.
func testBudgetsEnd(e *env) {
	id, now := e.account(10_000), time.Now()
	old, late := newBudget(100), newBudget(100)
	old.ValidUntil, late.ValidUntil = now.Add(-72*time.Hour).Unix(), now.Add(72*time.Hour).Unix()
	inner, lately := newBudget(50), newBudget(100)
	inner.ValidUntil, lately.ValidUntil = old.ValidUntil, now.Add(-time.Hour).Unix() // a settlement may still come
	e.settle(e.reserve(id, 30, old, inner), 20)
	e.settle(e.reserve(id, 30, late), 30)
	e.settle(e.reserve(id, 30, lately), 30)
	h := e.reserve(id, 10, old)
	before := e.audit().Budgets
	e.ledger.Tidy(ctx(e.T)) // by the store's clock, which is behind, the budgets are still valid
	if got := e.audit().Budgets; got != before {
		e.Errorf("%d budgets, want %d while the clocks disagree", got, before)
	}
	e.store.advance(-past)
	e.ledger.Tidy(ctx(e.T))
	if got := e.audit().Budgets; got != before-1 { // the outer budget still holds something
		e.Errorf("%d budgets, want %d", got, before-1)
	}
	e.settle(h, 10)
	e.ledger.Tidy(ctx(e.T))
	if got := e.audit().Budgets; got != 2 {
		e.Errorf("%d budgets, want 2", got)
	}
	if got := e.ledger.Stats().Closed; got != 2 {
		e.Errorf("%d budgets closed, want 2", got)
	}
	e.balance(id, 9910, 0, 90)
}

func testRateLimit(e *env) {
	id := e.account(1000)
	var wide, narrow l402.RateLimit
	rand.Read(wide.ID[:])
	rand.Read(narrow.ID[:])
	wide.PerMinute, narrow.PerMinute = 5, 3
	request := func(amount l402.Msat, limits ...l402.RateLimit) error {
		r := reservation(id, amount)
		r.RateLimits = limits
		_, err := e.ledger.Reserve(ctx(e.T), r)
		return err
	}
	limited := func(err error) {
		e.Helper()
		var rate *metering.RateLimitedError
		if !errors.As(err, &rate) || rate.RetryAfter < time.Second || rate.RetryAfter > 2*time.Minute {
			e.Errorf("got %v, want a rate limit", err)
		}
	}
	for range 3 {
		e.insufficient(request(5000, wide, narrow), 1000, 5000) // refused for money, so counted on no limit
	}
	for range 3 {
		if err := request(0, wide, narrow); err != nil {
			e.Fatal(err)
		}
	}
	limited(request(0, wide, narrow)) // a request that one limit refuses is counted on no limit
	for range 2 {
		if err := request(0, wide); err != nil {
			e.Fatal(err)
		}
	}
	limited(request(0, wide))
	e.store.advance(3 * time.Minute)
	if err := request(0, wide, narrow); err != nil {
		e.Errorf("after a pause: %v", err)
	}
	limited(request(0, l402.RateLimit{ID: [32]byte{1}})) // a limit of 0

	// On three gateways at once.
	var shared l402.RateLimit
	rand.Read(shared.ID[:])
	shared.PerMinute = 10
	ledgers := []*metering.Ledger{e.ledger, e.open(metering.Config{}), e.open(metering.Config{})}
	passed := make(chan bool, 60)
	parallel(cap(passed), func(i int) {
		r := reservation(id, 0)
		r.RateLimits = []l402.RateLimit{shared}
		_, err := ledgers[i%3].Reserve(ctx(e.T), r)
		passed <- err == nil
	})
	close(passed)
	n := 0
	for ok := range passed {
		if ok {
			n++
		}
	}
	if n != 10 {
		e.Errorf("%d of 60 requests passed a limit of 10", n)
	}
}

func testIdempotency(e *env) {
	id := e.account(1000)
	request := func(key, body byte) (*metering.Hold, error) {
		r := reservation(id, 100)
		r.Idempotency = &metering.Idempotency{Key: [32]byte{key}, Body: [32]byte{body}}
		return e.ledger.Reserve(ctx(e.T), r)
	}
	duplicate := func(err error, state string) *metering.DuplicateError {
		e.Helper()
		var dup *metering.DuplicateError
		if !errors.As(err, &dup) || dup.State != state {
			e.Fatalf("got %v, want duplicate %s", err, state)
		}
		return dup
	}
	must := func(h *metering.Hold, err error) *metering.Hold {
		e.Helper()
		if err != nil {
			e.Fatal(err)
		}
		return h
	}
	first := must(request(1, 1))
	_, err := request(1, 1)
	duplicate(err, metering.DuplicateRunning)
	_, err = request(1, 2)
	duplicate(err, metering.DuplicateMismatch)
	must(request(2, 2)) // another key

	if err := first.Release(ctx(e.T), metering.OutcomeBackendError); err != nil {
		e.Fatal(err)
	}
	second := must(request(1, 7)) // the first ended with charge 0, which frees the key for any body
	charged := e.settle(second, 40)
	_, err = request(1, 7)
	if dup := duplicate(err, metering.DuplicateCharged); dup.Entry == nil || dup.Entry.ID != charged.ID || dup.Entry.Charged != 40 {
		e.Errorf("entry: %+v", dup.Entry)
	}
	_, err = request(1, 8)
	duplicate(err, metering.DuplicateMismatch)

	// Another account may use the same key.
	r := reservation(e.account(100), 100)
	r.Idempotency = &metering.Idempotency{Key: [32]byte{1}, Body: [32]byte{9}}
	e.reserveOn(e.ledger, r)

	e.store.advance(25 * time.Hour)
	e.settle(must(request(1, 8)), 40)
	// Of many at once, only one passes.
	won := make(chan bool, 30)
	parallel(cap(won), func(int) {
		_, err := request(5, 5)
		won <- err == nil
	})
	close(won)
	n := 0
	for ok := range won {
		if ok {
			n++
		}
	}
	if n != 1 {
		e.Errorf("%d of 30 duplicates ran", n)
	}
}

// testKeyOfAHoldMadeAnew checks that a hold which the store lost is charged nothing when it is made anew after the
// repetition of its request was charged.
func testKeyOfAHoldMadeAnew(e *env) {
	for name, anew := range map[string]func(*metering.Hold) error{
		"renewed":  func(*metering.Hold) error { return e.ledger.Renew(ctx(e.T)) },
		"extended": func(h *metering.Hold) error { return h.Extend(ctx(e.T), 120) },
	} {
		id, lost := e.account(1000), e.ledger.Stats().Lost
		r := reservation(id, 100)
		r.Idempotency = &metering.Idempotency{Key: newHash()}
		var first *metering.Hold
		e.loseHolds(func() { first = e.reserveOn(e.ledger, r) })
		again := r
		again.ID = metering.NewHoldID()
		second := e.settle(e.reserveOn(e.ledger, again), 40)
		if err := anew(first); err != nil {
			e.Fatalf("%s: %v", name, err)
		}
		e.eventually("the hold to be made anew", func() bool { return e.ledger.Stats().Lost == lost+1 })
		if entry := e.settle(first, 40); entry.Charged != 0 || entry.Unbilled != 40 {
			e.Errorf("%s: %+v", name, entry)
		}
		e.balance(id, 960, 0, 40)
		again.ID = metering.NewHoldID()
		_, err := e.ledger.Reserve(ctx(e.T), again)
		var dup *metering.DuplicateError
		if !errors.As(err, &dup) || dup.State != metering.DuplicateCharged || dup.Entry == nil || dup.Entry.ID != second.ID {
			e.Errorf("%s: third: %v", name, err)
		}
	}
}
