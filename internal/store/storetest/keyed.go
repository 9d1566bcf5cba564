package storetest

import (
	"errors"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// repeated returns a keyed request and its repetition, which has another hold id.
func repeated(id l402.TokenID) (first, again metering.Reservation) {
	first = reservation(id, 400)
	first.Idempotency = &metering.Idempotency{Key: newHash()}
	again = first
	again.ID = metering.NewHoldID()
	return first, again
}

// duplicate checks that a repetition is refused.
func (e *env) duplicate(r metering.Reservation, state string) {
	e.Helper()
	r.ID = metering.NewHoldID()
	_, err := e.ledger.Reserve(ctx(e.T), r)
	var dup *metering.DuplicateError
	if !errors.As(err, &dup) || dup.State != state {
		e.Errorf("repeated: %v, want duplicate %s", err, state)
	}
}

// testKeyOfARunningRepetition checks that the end of a request whose hold the store had lost does not take the key away
// from a repetition that is running.
func testKeyOfARunningRepetition(e *env) {
	id := e.account(1000)
	r, again := repeated(id)
	var first *metering.Hold
	e.loseHolds(func() { first = e.reserveOn(e.ledger, r) })
	second := e.reserveOn(e.ledger, again)
	if err := first.Release(ctx(e.T), metering.OutcomeNotTaken); err != nil {
		e.Fatal(err)
	}
	e.duplicate(r, metering.DuplicateRunning)
	e.store.advance(metering.IdempotencyTTL - time.Hour) // the key is kept however long the repetition runs
	e.duplicate(r, metering.DuplicateRunning)
	e.settle(second, 40)
	e.duplicate(r, metering.DuplicateCharged)
	e.balance(id, 960, 0, 40)
}

// testKeyOfASweptHold checks that a late settlement replaces what a sweep charged under its own key, and charges
// nothing if a repetition was charged.
func testKeyOfASweptHold(e *env) {
	for _, swept := range []int64{130, 0} {
		id := e.account(1000)
		r, again := repeated(id)
		l := e.open(metering.Config{})
		h := e.reserveOn(l, r)
		used(h, swept)
		if err := l.Renew(ctx(e.T)); err != nil {
			e.Fatal(err)
		}
		e.stall(l)
		e.sweep(e.ledger, 1)
		if swept > 0 {
			e.duplicate(r, metering.DuplicateCharged)
			if entry := e.settle(h, 300); entry.Charged != 300 {
				e.Errorf("late settlement: %+v", entry)
			}
			e.balance(id, 700, 0, 300)
			continue
		}
		e.settle(e.reserveOn(e.ledger, again), 40) // the sweep charged nothing, so the repetition may run
		if entry := e.settle(h, 300); entry.Charged != 0 || entry.Unbilled != 300 {
			e.Errorf("late settlement after the repetition: %+v", entry)
		}
		e.balance(id, 960, 0, 40)
	}
}

// testBudgetsWithAHistory checks that a budget whose charges were all taken back is kept as long as its list of
// charges, with the budgets that it was delegated from. A budget that never had a charge frees its place.
func testBudgetsWithAHistory(e *env) {
	id, outer, inner := e.account(1000), newBudget(500), newBudget(400)
	l := e.open(metering.Config{MaxBudgetsPerAccount: 2})
	_, h := e.abandoned(id, 300, 130, outer, inner)
	e.sweep(l, 1)
	e.settle(h, 0)
	e.balance(id, 1000, 0, 0)
	if got := e.audit().Budgets; got != 2 {
		e.Errorf("%d budgets, want 2", got)
	}
	list, _, err := e.ledger.Entries(ctx(e.T), metering.EntryQuery{Account: id, Chain: inner.ID})
	if err != nil || len(list) != 1 || list[0].ID != h.ID() {
		e.Errorf("entries: %+v, %v", list, err)
	}
	part := newBudget(100) // a budget that holds something keeps its limit
	running := e.reserve(id, 30, part)
	if err := e.reserve(id, 60, part).Release(ctx(e.T), metering.OutcomeNotTaken); err != nil {
		e.Error(err)
	}
	_, err = e.ledger.Reserve(ctx(e.T), reservation(id, 80, part))
	e.insufficient(err, 70, 80)
	if err := running.Release(ctx(e.T), metering.OutcomeNotTaken); err != nil {
		e.Error(err)
	}
	for range 5 {
		if err := e.reserveOn(l, reservation(id, 10, newBudget(20))).Release(ctx(e.T), metering.OutcomeNotTaken); err != nil {
			e.Error(err)
		}
	}
	e.settle(e.reserveOn(l, reservation(id, 10, outer, inner)), 10)
	e.balance(id, 990, 0, 10)
}
