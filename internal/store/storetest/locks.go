package storetest

import (
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// dear is the price in force after perCall was locked.
var dear = pricing.Rates{pricing.Calls: 3}

// quoted returns a reservation for n calls. A call costs 1 msat as long as the payment's lock, up to limit, covers the
// calls, and otherwise 3 msat.
func quoted(id l402.TokenID, payment l402.PaymentHash, limit, n l402.Msat, budgets ...l402.Budget) metering.Reservation {
	r := reservation(id, 3*n, budgets...)
	r.Rates, r.Epoch = dear, 8
	r.Lock = &metering.RateLock{Hash: payment, Limit: limit, Amount: n, Rates: perCall, Epoch: 5}
	return r
}

// paid makes an account with one payment.
func (e *env) paid(amount l402.Msat) (l402.TokenID, l402.PaymentHash) {
	e.Helper()
	id := l402.NewTokenID()
	return id, e.deposit(id, amount)
}

// at checks at which rates and for which amount a hold was made.
func (e *env) at(h *metering.Hold, isLocked bool, amount l402.Msat) {
	e.Helper()
	rates, epoch := dear, int64(8)
	if isLocked {
		rates, epoch = perCall, 5
	}
	if h.Locked() != isLocked || h.Rates() != rates || h.Epoch() != epoch || h.Amount() != amount {
		e.Errorf("hold: locked %v, %+v of epoch %d, amount %d; want %v, %+v of %d, %d",
			h.Locked(), h.Rates(), h.Epoch(), h.Amount(), isLocked, rates, epoch, amount)
	}
}

func (e *env) coveredBy(payment l402.PaymentHash) l402.Msat {
	e.Helper()
	d, found, err := e.ledger.LookupDeposit(ctx(e.T), payment)
	if err != nil || !found {
		e.Fatalf("deposit: %v, %v", found, err)
	}
	return d.Covered
}

func (e *env) covered(payment l402.PaymentHash, want l402.Msat) {
	e.Helper()
	if got := e.coveredBy(payment); got != want {
		e.Errorf("covered %d, want %d", got, want)
	}
}

func testLock(e *env) {
	id, payment := e.paid(10_000)
	first := e.reserveOn(e.ledger, quoted(id, payment, 1000, 600))
	e.at(first, true, 600)
	e.balance(id, 9400, 600, 0)
	over := e.reserveOn(e.ledger, quoted(id, payment, 1000, 401)) // would end above the limit
	e.at(over, false, 1203)
	e.covered(payment, 600)
	exact := e.reserveOn(e.ledger, quoted(id, payment, 1000, 400))
	e.at(exact, true, 400)
	e.covered(payment, 1000)
	nothing := e.reserveOn(e.ledger, quoted(id, payment, 1000, 0)) // not covered either, because it may grow
	e.at(nothing, false, 0)

	// What a hold gives back can be covered again.
	entry := e.settle(first, 250)
	if entry.Charged != 250 || entry.Rates != perCall || entry.Epoch != 5 {
		e.Errorf("entry: %+v", entry)
	}
	e.covered(payment, 650)
	if err := exact.Release(ctx(e.T), metering.OutcomeBackendError); err != nil {
		e.Fatal(err)
	}
	e.covered(payment, 250)
	again := e.reserveOn(e.ledger, quoted(id, payment, 1000, 750))
	e.at(again, true, 750)
	entry = e.settle(again, 800) // more than its hold
	if entry.Charged != 750 || entry.Unbilled != 50 {
		e.Errorf("entry: %+v", entry)
	}
	entry = e.settle(over, 100)
	if entry.Charged != 300 || entry.Rates != dear || entry.Epoch != 8 {
		e.Errorf("entry: %+v", entry)
	}
	e.covered(payment, 1000)
	e.at(e.reserveOn(e.ledger, quoted(id, payment, 1000, 1)), false, 3)
	e.balance(id, 8697, 3, 1300)
	if c, found, err := e.store.Charge(ctx(e.T), again.ID()); err != nil || !found || c.Lock != payment {
		e.Errorf("charge: %+v, %v, %v", c, found, err)
	}
}

// testLockIsItsOwn checks that only a credited payment of the account locks rates, up to the amount that the payment
// credited.
func testLockIsItsOwn(e *env) {
	id, payment := e.paid(1000)
	_, theirs := e.paid(5000)
	e.at(e.reserveOn(e.ledger, quoted(id, theirs, 5000, 10)), false, 30)
	e.at(e.reserveOn(e.ledger, quoted(id, newHash(), 5000, 10)), false, 30)
	empty := e.deposit(id, 0)
	e.at(e.reserveOn(e.ledger, quoted(id, empty, 5000, 10)), false, 30)
	e.deposit(id, 9000)
	e.at(e.reserveOn(e.ledger, quoted(id, payment, 5000, 1001)), false, 3003)
	e.at(e.reserveOn(e.ledger, quoted(id, payment, 5000, 1000)), true, 1000)
	for _, h := range []l402.PaymentHash{theirs, empty} {
		e.covered(h, 0)
	}

	// The payment may come with the reservation, and also counts when the ledger remembers it.
	r := quoted(l402.NewTokenID(), newHash(), 700, 500)
	r.Deposit = &metering.Deposit{Hash: r.Lock.Hash, Account: r.Account, Amount: 700}
	e.at(e.reserveOn(e.ledger, r), true, 500)
	if !e.ledger.Known(r.Lock.Hash) {
		e.Error("the payment is not known")
	}
	next := quoted(r.Account, r.Lock.Hash, 700, 50)
	next.Deposit = r.Deposit
	e.at(e.reserveOn(e.ledger, next), true, 50)
	e.covered(r.Lock.Hash, 550)

	// A refusal names the amount at the locked rates.
	next = quoted(r.Account, r.Lock.Hash, 700, 150)
	if err := e.ledger.Adjust(ctx(e.T), metering.NewHoldID(), r.Account, -10, "less"); err != nil {
		e.Fatal(err)
	}
	_, err := e.ledger.Reserve(ctx(e.T), next)
	e.insufficient(err, 140, 150)
	e.covered(r.Lock.Hash, 550)

	for want, change := range map[error]func(*metering.RateLock){
		metering.ErrArgument: func(l *metering.RateLock) { l.Rates[pricing.Calls] = -1 },
		metering.ErrAmount:   func(l *metering.RateLock) { l.Amount = -1 },
	} {
		bad := quoted(id, payment, 700, 1)
		change(bad.Lock)
		_, err := e.ledger.Reserve(ctx(e.T), bad)
		e.refused(err, want)
	}
	for _, change := range []func(*metering.RateLock){func(l *metering.RateLock) { l.Hash = l402.PaymentHash{} }, func(l *metering.RateLock) { l.Epoch = -1 }} {
		bad := quoted(id, payment, 700, 1)
		change(bad.Lock)
		_, err := e.ledger.Reserve(ctx(e.T), bad)
		e.refused(err, metering.ErrArgument)
	}
}

// testLockExtend checks that a hold keeps the rates that it was made with. An extension may take the covered amount
// above the limit, and the lock then covers nothing more.
func testLockExtend(e *env) {
	id, payment := e.paid(10_000)
	part := newBudget(5000)
	h := e.reserveOn(e.ledger, quoted(id, payment, 1000, 400, part))
	for range 2 {
		if err := h.Extend(ctx(e.T), 1500); err != nil {
			e.Fatal(err)
		}
	}
	e.at(h, true, 1500)
	e.covered(payment, 1500)
	own := e.reserveOn(e.ledger, quoted(id, payment, 1000, 1))
	e.at(own, false, 3)
	e.insufficient(h.Extend(ctx(e.T), 5001), 3500, 3501)
	if err := own.Extend(ctx(e.T), 90); err != nil {
		e.Fatal(err)
	}
	e.covered(payment, 1500)
	e.settle(h, 1200)
	e.covered(payment, 1200)
	e.at(e.reserveOn(e.ledger, quoted(id, payment, 1000, 1)), false, 3)
	e.settle(own, 30)
	e.balance(id, 8707, 3, 1290)
}

// testLockSweep checks that sweeps charge at locked rates, and that late settlements at these rates replace the
// charges.
func testLockSweep(e *env) {
	for _, late := range []l402.Msat{300, 20, 0, 900, 150} {
		id, payment := e.paid(1000)
		owner := e.open(metering.Config{})
		h := e.reserveOn(owner, quoted(id, payment, 1000, 400, newBudget(700)))
		used(h, 150)
		if err := owner.Renew(ctx(e.T)); err != nil {
			e.Fatal(err)
		}
		e.stall(owner)
		e.sweep(e.ledger, 1)
		e.covered(payment, 150)
		e.refused(h.Extend(ctx(e.T), 500), metering.ErrSwept)
		want := min(late, 400)
		if entry := e.settle(h, late); entry.Charged != want || entry.Rates != perCall || entry.Epoch != 5 {
			e.Errorf("late %d: %+v", late, entry)
		}
		e.covered(payment, want)
		if again := e.settle(h, late); again.Charged != want {
			e.Errorf("repeated: %+v", again)
		}
		e.covered(payment, want)
		e.audit()
	}
}
