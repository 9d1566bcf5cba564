package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// testLockLostHold checks that a hold under a lock, which the store has lost, is charged or made anew at the locked
// rates, even if the lock covers other holds meanwhile.
func testLockLostHold(e *env) {
	for name, test := range map[string]struct {
		anew        func(*metering.Hold) error
		held, spent l402.Msat
	}{
		"settle": {func(*metering.Hold) error { return nil }, 0, 350},
		"extend": {func(h *metering.Hold) error { return h.Extend(ctx(e.T), 700) }, 700, 350},
		"renew": {func(h *metering.Hold) error {
			before := e.ledger.Stats().Lost
			if err := e.ledger.Renew(ctx(e.T)); err != nil {
				return err
			}
			e.eventually("the hold to be made anew", func() bool { return e.ledger.Stats().Lost > before })
			return nil
		}, 400, 350},
	} {
		id, payment := e.paid(10_000)
		var h *metering.Hold
		e.loseHolds(func() { h = e.reserveOn(e.ledger, quoted(id, payment, 1000, 400)) })
		e.covered(payment, 0)
		other := e.reserveOn(e.ledger, quoted(id, payment, 1000, 900)) // finds the room that the lost hold had taken
		e.at(other, true, 900)
		if err := test.anew(h); err != nil {
			e.Errorf("%s: %v", name, err)
		}
		e.covered(payment, 900+test.held)
		if entry := e.settle(h, 350); entry.Charged != test.spent || entry.Rates != perCall {
			e.Errorf("%s: %+v", name, entry)
		}
		e.covered(payment, 900+test.spent)
		e.at(e.reserveOn(e.ledger, quoted(id, payment, 1000, 1)), false, 3)
		e.settle(other, 100)
		e.covered(payment, 100+test.spent)
	}
}

// testLockRepeated checks that a reservation whose answer was lost returns the terms that its hold was really made
// with.
func testLockRepeated(e *env) {
	rival := e.open(metering.Config{})
	for how, want := range map[fault]bool{kept: true, lost: false} {
		id, payment := e.paid(10_000)
		var attempts atomic.Int64
		// Between the two attempts, another gateway takes what the lock has left.
		taken := quoted(id, payment, 1000, 600)
		e.store.onWrite(func(b *metering.Batch) fault {
			if b.Holds.Len() == 0 {
				return none
			}
			switch attempts.Add(1) {
			case 1:
				return how
			case 2:
				if _, err := rival.Reserve(context.Background(), taken); err != nil {
					e.Error(err)
				}
			}
			return none
		})
		r := quoted(id, payment, 1000, 500)
		h := e.reserveOn(e.ledger, r)
		e.store.heal()
		if want {
			e.at(h, true, 500)
			e.covered(payment, 500)
		} else {
			e.at(h, false, 1500)
			e.covered(payment, 600)
		}
		// A repetition with other terms returns the same hold.
		again := r
		again.Rates, again.Epoch, again.Lock = pricing.Rates{pricing.Calls: 9}, 77, nil
		again.Amount = 4500
		e.at(e.reserveOn(rival, again), want, h.Amount())
		before := e.coveredBy(payment)
		if entry := e.settle(h, 200); entry.Rates != h.Rates() || entry.Epoch != h.Epoch() {
			e.Errorf("entry: %+v", entry)
		}
		if want {
			before -= 300
		}
		e.covered(payment, before)
		e.kill(rival) // also ends the ledger that has taken over the hold
		rival = e.open(metering.Config{})
	}
}

// testLockUnheard checks that a hold for a caller who has left is released under the lock that it was made with, if
// any.
func testLockUnheard(e *env) {
	for _, fits := range []bool{true, false} {
		id, payment := e.paid(10_000)
		standing := e.reserveOn(e.ledger, quoted(id, payment, 1000, 400))
		n := l402.Msat(600)
		if !fits {
			n = 601
		}
		release, entered := make(chan struct{}), make(chan struct{}, 100)
		e.store.gate(entered, release)
		leaving, leave := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			_, err := e.ledger.Reserve(leaving, quoted(id, payment, 1000, n))
			done <- err
		}()
		<-entered
		leave()
		if err := <-done; !errors.Is(err, context.Canceled) {
			e.Errorf("reserve: %v", err)
		}
		close(release)
		e.store.gate(nil, nil)
		e.deposit(l402.NewTokenID(), 1) // comes behind the reservation in the queue
		e.deposit(l402.NewTokenID(), 1) // comes behind the hold's release
		e.balance(id, 9600, 400, 0)
		e.covered(payment, 400)
		e.settle(standing, 100)
	}
}

// testLockAmbiguity combines each kind of write under a lock with each way to fail.
func testLockAmbiguity(e *env) {
	for _, write := range []struct {
		name             string
		do               func(id l402.TokenID, payment l402.PaymentHash, arm func())
		covered, charged l402.Msat
	}{
		{"reserve", func(id l402.TokenID, p l402.PaymentHash, arm func()) {
			arm()
			e.at(e.reserveOn(e.ledger, quoted(id, p, 1000, 400)), true, 400)
		}, 400, 0},
		{"reserve at its own rates", func(id l402.TokenID, p l402.PaymentHash, arm func()) {
			arm()
			e.at(e.reserveOn(e.ledger, quoted(id, p, 300, 301)), false, 903)
		}, 0, 0},
		{"extend", func(id l402.TokenID, p l402.PaymentHash, arm func()) {
			h := e.reserveOn(e.ledger, quoted(id, p, 500, 400))
			arm()
			if err := h.Extend(ctx(e.T), 700); err != nil {
				e.Error(err)
			}
		}, 700, 0},
		{"settle", func(id l402.TokenID, p l402.PaymentHash, arm func()) {
			h := e.reserveOn(e.ledger, quoted(id, p, 1000, 400, newBudget(900)))
			arm()
			e.settle(h, 250)
		}, 250, 250},
		{"release", func(id l402.TokenID, p l402.PaymentHash, arm func()) {
			h := e.reserveOn(e.ledger, quoted(id, p, 1000, 400))
			arm()
			if err := h.Release(ctx(e.T), metering.OutcomeNotTaken); err != nil {
				e.Error(err)
			}
		}, 0, 0},
		{"settle a lost hold", func(id l402.TokenID, p l402.PaymentHash, arm func()) {
			var h *metering.Hold
			e.loseHolds(func() { h = e.reserveOn(e.ledger, quoted(id, p, 1000, 400)) })
			arm()
			e.settle(h, 250)
		}, 250, 250},
		{"extend a lost hold", func(id l402.TokenID, p l402.PaymentHash, arm func()) {
			var h *metering.Hold
			e.loseHolds(func() { h = e.reserveOn(e.ledger, quoted(id, p, 1000, 400)) })
			arm()
			if err := h.Extend(ctx(e.T), 500); err != nil {
				e.Error(err)
			}
		}, 500, 0},
		{"sweep, late settle", func(id l402.TokenID, p l402.PaymentHash, arm func()) {
			l := e.open(metering.Config{})
			h := e.reserveOn(l, quoted(id, p, 1000, 400))
			used(h, 130)
			if err := l.Renew(ctx(e.T)); err != nil {
				e.Error(err)
			}
			e.stall(l)
			arm()
			e.sweep(e.ledger, 1)
			e.covered(p, 130)
			arm()
			e.settle(h, 300)
		}, 300, 300},
	} {
		for how, faults := range map[string][]fault{"early": {early}, "lost": {lost}, "kept": {kept},
			"lost twice, then kept": {lost, lost, kept}, "kept twice": {kept, kept}, "locked": {locked, locked}} {
			id, payment := e.paid(2000)
			write.do(id, payment, func() { e.store.inject(faults...) })
			name := fmt.Sprintf("%s: %s", write.name, how)
			if n := e.store.pending(); n != 0 {
				e.Errorf("%s: %d faults did not happen", name, n)
			}
			e.store.heal()
			b, err := e.ledger.Balance(ctx(e.T), id, nil)
			if got := e.coveredBy(payment); err != nil || got != write.covered || b.Charged != write.charged {
				e.Errorf("%s: covered %d, charged %d, %v; want %d, %d", name, got, b.Charged, err, write.covered, write.charged)
			}
			e.release(id)
		}
		e.audit()
	}
}

// testLockAtOnce checks that of many requests at once on three gateways, exactly as many get the locked rates as the
// lock covers.
func testLockAtOnce(e *env) {
	id, payment := e.paid(1_000_000)
	ledgers := []*metering.Ledger{e.ledger, e.open(metering.Config{}), e.open(metering.Config{})}
	var made atomic.Int64
	parallel(120, func(i int) {
		h, err := ledgers[i%3].Reserve(ctx(e.T), quoted(id, payment, 1000, 30)) // the lock covers 33 of these holds
		if err != nil {
			e.Error(err)
			return
		}
		if h.Locked() {
			made.Add(1)
		}
		if i%2 == 0 {
			return
		}
		if _, err := h.Settle(ctx(e.T), calls(30)); err != nil { // settles all that it held
			e.Error(err)
		}
	})
	if made.Load() != 33 {
		e.Errorf("%d requests at locked rates, want 33", made.Load())
	}
	e.covered(payment, 990)
}

// testLockAudit checks that an audit finds a lock whose covered amount differs from its holds and charges, and a lock
// that another account uses.
func testLockAudit(e *env) {
	id, payment := e.paid(1000)
	e.settle(e.reserveOn(e.ledger, quoted(id, payment, 1000, 100)), 60)
	e.reserveOn(e.ledger, quoted(id, payment, 1000, 50))
	_, idle := e.paid(1000)
	e.audit()
	damaged := &rogue{StoreReader: e.store.Store}
	reader, err := metering.NewReader(ctx(e.T), damaged)
	if err != nil {
		e.Fatal(err)
	}
	for name, rows := range map[string]rogueRows{
		"covered":  {deposit: func(d *metering.DepositRow) { d.Covered += min(d.Covered, 1) }},
		"charges":  {charge: func(c *metering.ChargeRow) { c.Lock = l402.PaymentHash{} }},
		"another":  {charge: func(c *metering.ChargeRow) { c.Lock = idle }},
		"account":  {deposit: func(d *metering.DepositRow) { d.Account[0]++ }},
		"missing":  {deposit: func(d *metering.DepositRow) { d.Hash[0]++ }},
		"too many": {deposit: func(d *metering.DepositRow) { d.Covered = max(d.Covered, 5) }},
	} {
		damaged.set(rows)
		if r, err := reader.Audit(ctx(e.T)); err != nil || r.OK() {
			e.Errorf("%s: not found: %+v, %v", name, r, err)
		}
	}
}
