package storetest

import (
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// testAnswersAreDurable lists every kind of write, and checks which writes are durable: those whose answer depends on
// the commit are, and those that may be lost in a crash are not.
func testAnswersAreDurable(e *env) {
	good := func(err error) {
		e.Helper()
		if err != nil {
			e.Error(err)
		}
	}
	check := func(name string, want bool, do func()) {
		e.Helper()
		e.store.durable()
		do()
		list := e.store.durable()
		if len(list) == 0 {
			e.Errorf("%s: nothing was written", name)
			return
		}
		for _, got := range list {
			if got != want {
				e.Errorf("%s: durable %v, want %v", name, list, want)
			}
		}
	}
	present := func(amount l402.Msat) metering.Deposit {
		return metering.Deposit{Hash: newHash(), Account: l402.NewTokenID(), Amount: amount}
	}
	id := e.account(10_000)
	open := e.reserve(id, 100)
	check("reserve", false, func() { e.reserve(id, 10, newBudget(100)) })
	check("extend", false, func() { good(open.Extend(ctx(e.T), 200)) })
	check("keyed reserve", true, func() {
		r := reservation(id, 10)
		r.Idempotency = &metering.Idempotency{Key: newHash()}
		e.reserveOn(e.ledger, r)
	})
	check("settle", true, func() { e.settle(open, 150) })
	open = e.reserve(id, 100)
	check("release", true, func() { good(open.Release(ctx(e.T), metering.OutcomeNotTaken)) })
	e.loseHolds(func() { open = e.reserve(id, 100) })
	check("settle a lost hold", true, func() { e.settle(open, 50) })

	check("deposit", true, func() { e.deposit(id, 500) })
	check("deposit with a reserve", true, func() {
		d := present(500)
		r := reservation(d.Account, 10)
		r.Deposit = &d
		e.reserveOn(e.ledger, r)
	})
	check("deposit with a refused reserve", true, func() {
		d := present(500)
		r := reservation(d.Account, 5000)
		r.Deposit = &d
		_, err := e.ledger.Reserve(ctx(e.T), r)
		e.insufficient(err, 500, 5000)
	})
	check("credit from the settle stream", true, func() {
		_, err := e.settled(newHash(), id, 500, 4)
		good(err)
	})
	check("surplus taken back", true, func() {
		d := present(500)
		_, err := e.ledger.Deposit(ctx(e.T), d)
		good(err)
		_, err = e.settled(d.Hash, d.Account, 200, 5)
		good(err)
	})
	for name, spent := range map[string]l402.Msat{"doubt": 0, "doubt of what is spent": 500} {
		d := present(500)
		_, err := e.ledger.Deposit(ctx(e.T), d)
		good(err)
		e.settle(e.reserve(d.Account, spent), spent)
		check(name, true, func() {
			good(e.ledger.Doubt(ctx(e.T), metering.DepositRow{Hash: d.Hash, Account: d.Account}))
		})
	}
	check("adjust", true, func() { good(e.ledger.Adjust(ctx(e.T), metering.NewHoldID(), id, -30, "x")) })
	check("set status", true, func() { good(e.ledger.SetStatus(ctx(e.T), e.account(0), metering.StatusRevoked)) })

	_, late := e.abandoned(id, 400, 130)
	check("sweep", true, func() { e.sweep(e.ledger, 1) })
	check("late settle", true, func() { e.settle(late, 300) })
}

// testLockedAccountIsRefusedInTime checks that a caller is refused after the ledger's patience when another process
// keeps the account locked. An account that another process changes again and again is tried again at once each time.
func testLockedAccountIsRefusedInTime(e *env) {
	l := e.open(metering.Config{Patience: 100 * time.Millisecond})
	id := e.account(1000)
	e.store.onWrite(func(b *metering.Batch) fault {
		if b.Holds.Len() > 0 {
			return taken
		}
		return none
	})
	_, err := l.Reserve(ctx(e.T), reservation(id, 10))
	e.refused(err, metering.ErrUnavailable)
	if n := l.Stats().Conflicts; n == 0 || n > 100 {
		e.Errorf("a locked account was tried %d times", n)
	}
	changes := 0
	e.store.onWrite(func(b *metering.Batch) fault {
		if changes++; changes < 50 {
			return overtaken
		}
		return none
	})
	h, err := l.Reserve(ctx(e.T), reservation(id, 10))
	if err != nil {
		e.Fatalf("on an account that others change: %v", err)
	}
	e.store.heal()
	e.settle(h, 10)
	e.balance(id, 990, 0, 10)
}

// testUnheardCommitIsConfirmed checks that an operation which finds its earlier attempt committed is answered only
// after another durable commit, because the first commit may be visible without being safe.
func testUnheardCommitIsConfirmed(e *env) {
	id := e.account(1000)
	h := e.reserve(id, 100)
	d := metering.Deposit{Hash: newHash(), Account: id, Amount: 50}
	for name, do := range map[string]func() error{
		"settle": func() error { _, err := h.Settle(ctx(e.T), calls(40)); return err },
		"deposit": func() error {
			got, err := e.ledger.Deposit(ctx(e.T), d)
			if got != 50 {
				e.Errorf("credited %d, want 50", got)
			}
			return err
		},
		"adjust": func() error { return e.ledger.Adjust(ctx(e.T), metering.NewHoldID(), id, 5, "x") },
		"freeze": func() error { return e.ledger.SetStatus(ctx(e.T), id, metering.StatusFrozen) },
	} {
		e.store.durable()
		e.store.inject(kept)
		if err := do(); err != nil {
			e.Errorf("%s: %v", name, err)
		}
		if list := e.store.durable(); len(list) < 2 || !list[len(list)-1] {
			e.Errorf("%s: answered after attempts that wrote durably: %v", name, list)
		}
	}
	e.balance(id, 1015, 0, 40)
}
