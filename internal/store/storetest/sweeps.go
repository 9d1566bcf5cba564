package storetest

import (
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// sweep makes a ledger charge the abandoned holds, and checks how many there are.
func (e *env) sweep(l *metering.Ledger, want int) {
	e.Helper()
	if n, err := e.watch(l); err != nil || n != want {
		e.Errorf("swept %d, %v; want %d", n, err, want)
	}
}

// used notes what a hold's request has consumed so far.
func used(h *metering.Hold, n int64) {
	h.Progress(pricing.Units{pricing.Calls: n}, metering.SourceRunning)
}

// abandoned makes a hold whose process is silent after it has reported some usage.
func (e *env) abandoned(id l402.TokenID, amount l402.Msat, usage int64, budgets ...l402.Budget) (*metering.Ledger, *metering.Hold) {
	e.Helper()
	l := e.open(metering.Config{})
	h := e.reserveOn(l, reservation(id, amount, budgets...))
	used(h, usage)
	if err := l.Renew(ctx(e.T)); err != nil {
		e.Fatal(err)
	}
	e.stall(l)
	return l, h
}

func testSweep(e *env) {
	id, part := e.account(1000), newBudget(700)
	l, h := e.abandoned(id, 400, 150, part)
	e.kill(l)
	_, silent := e.abandoned(id, 100, 0) // never reported any usage
	e.balance(id, 500, 500, 0)
	e.sweep(e.ledger, 2)
	e.sweep(e.ledger, 0)
	e.balance(id, 850, 0, 150)
	list, _, err := e.ledger.Entries(ctx(e.T), metering.EntryQuery{Account: id})
	if err != nil || len(list) != 2 {
		e.Fatalf("entries %+v, %v", list, err)
	}
	for _, entry := range list {
		want := l402.Msat(150)
		if entry.ID == silent.ID() {
			want = 0
		} else if entry.ID != h.ID() || entry.Source != metering.SourceRunning || entry.Usage[pricing.Calls] != 150 {
			e.Errorf("entry %+v", entry)
		}
		if entry.Charged != want || !entry.Provisional || entry.Outcome != metering.OutcomeSwept {
			e.Errorf("entry %+v", entry)
		}
	}
	if b, err := e.ledger.Balance(ctx(e.T), id, []l402.Budget{part}); err != nil || b.Budgets[0].Available != 550 {
		e.Errorf("budget: %+v, %v", b, err)
	}
	if s := e.ledger.Stats(); s.Sweeps != 2 || s.Charged != 150 {
		e.Errorf("stats: %+v", s)
	}
}

func testLateSettle(e *env) {
	for _, test := range []struct{ swept, late, want l402.Msat }{{150, 300, 300}, {150, 20, 20}, {150, 0, 0}, {0, 80, 80}, {150, 900, 400}, {150, 150, 150}} {
		id, part := e.account(1000), newBudget(700)
		_, h := e.abandoned(id, 400, int64(test.swept), part)
		e.sweep(e.ledger, 1)
		e.refused(h.Extend(ctx(e.T), 500), metering.ErrSwept)
		entry := e.settle(h, test.late)
		if entry.Charged != test.want || entry.Provisional || entry.Outcome != metering.OutcomeComplete {
			e.Errorf("swept %d, late %d: %+v", test.swept, test.late, entry)
		}
		e.balance(id, 1000-test.want, 0, test.want)
		if b, err := e.ledger.Balance(ctx(e.T), id, []l402.Budget{part}); err != nil || b.Budgets[0].Available != 700-test.want {
			e.Errorf("budget: %+v, %v", b, err)
		}
		e.sweep(e.ledger, 0)
	}

	// Too late: the swept charge is final.
	id := e.account(1000)
	_, h := e.abandoned(id, 400, 150)
	e.sweep(e.ledger, 1)
	e.store.advance(2 * time.Hour)
	if entry := e.settle(h, 300); entry.Charged != 150 {
		e.Errorf("entry: %+v", entry)
	}
	e.balance(id, 850, 0, 150)
}

// testLateSettleFindsLess checks a late settlement after the money was spent elsewhere.
func testLateSettleFindsLess(e *env) {
	id, part := e.account(1000), newBudget(500)
	_, h := e.abandoned(id, 400, 100, part)
	e.sweep(e.ledger, 1)
	e.reserve(id, 750) // the account has 150 left
	entry := e.settle(h, 400)
	if entry.Charged != 250 || entry.Unbilled != 150 {
		e.Errorf("entry: %+v", entry)
	}
	e.balance(id, 0, 750, 250)

	id, part = e.account(1000), newBudget(500)
	_, h = e.abandoned(id, 400, 100, part)
	e.sweep(e.ledger, 1)
	e.settle(e.reserve(id, 380, part), 380) // the budget has 20 left
	entry = e.settle(h, 400)
	if entry.Charged != 120 || entry.Unbilled != 280 {
		e.Errorf("entry: %+v", entry)
	}
	e.balance(id, 500, 0, 500)
}

func testSweepSparesTheLiving(e *env) {
	id := e.account(1000)
	owner := e.open(metering.Config{})
	h := e.reserveOn(owner, reservation(id, 400))
	for range 5 { // a stream that is much longer than a lease
		e.sweep(e.ledger, 0)
	}
	// A heartbeat between the look and the fence counts.
	e.stall(owner)
	fences := 0
	e.store.onFence(func() error {
		if fences++; fences == 1 {
			return owner.Renew(ctx(e.T))
		}
		return nil
	})
	for range looks - 1 { // long enough for one fence
		e.clock.advance(lease / (looks - 2))
		if n, err := e.ledger.Sweep(ctx(e.T)); n != 0 || err != nil {
			e.Errorf("swept %d, %v", n, err)
		}
	}
	e.store.heal()
	if fences != 1 {
		e.Errorf("%d fences, want 1", fences)
	}
	e.balance(id, 600, 400, 0)
	e.settle(h, 300)
	e.balance(id, 700, 0, 300)
}

// testSweepByItself lets the background work run at its own pace.
func testSweepByItself(e *env) {
	id := e.account(1000)
	short := metering.Config{Lease: time.Second}
	dead, living := e.open(short), e.open(short)
	e.reserveOn(dead, reservation(id, 100))
	h := e.reserveOn(living, reservation(id, 200))
	used(h, 20)
	e.kill(dead)
	died := time.Now()
	e.eventually("sweep", func() bool {
		b, err := e.ledger.Balance(ctx(e.T), id, nil)
		return err == nil && b.Held == 200
	})
	if took := time.Since(died); took > 2*time.Second {
		e.Logf("swept after %s", took)
	}
	// The living owner renews its hold through several leases.
	renewed := time.Now().Add(3 * short.Lease)
	e.eventually("time", func() bool { return time.Now().After(renewed) })
	e.balance(id, 800, 200, 0)
	if entry := e.settle(h, 150); entry.Charged != 150 || living.Stats().Sweeps != 1 {
		e.Errorf("entry %+v, stats %+v", entry, living.Stats())
	}
}

// loseHolds makes the store forget the next write, as a database does that is killed after an asynchronous commit: the
// write is answered, and then rolled back.
func (e *env) loseHolds(fn func()) {
	e.store.inject(forgotten)
	fn()
}

func testLostHold(e *env) {
	settle := func(balance, spentMeanwhile, limit, want l402.Msat) {
		e.Helper()
		id, part := e.account(balance), newBudget(limit)
		var h *metering.Hold
		e.loseHolds(func() { h = e.reserve(id, 400, part) })
		e.balance(id, balance, 0, 0)
		if spentMeanwhile > 0 {
			e.settle(e.reserve(id, spentMeanwhile, part), spentMeanwhile)
		}
		entry := e.settle(h, 350)
		if entry.Charged != want || entry.Unbilled != 350-want {
			e.Errorf("balance %d, %d spent, limit %d: %+v", balance, spentMeanwhile, limit, entry)
		}
		e.balance(id, balance-spentMeanwhile-want, 0, spentMeanwhile+want)
		if again := e.settle(h, 350); again != entry {
			e.Errorf("repeated: %+v", again)
		}
	}
	settle(1000, 0, 900, 350)
	settle(1000, 800, 2000, 200) // the account has 200 left
	settle(1000, 500, 600, 100)  // the budget has 100 left
	settle(400, 400, 900, 0)
}

func testLostHoldIsMadeAnew(e *env) {
	id, part := e.account(1000), newBudget(600)
	var h *metering.Hold
	e.loseHolds(func() { h = e.reserve(id, 400, part) })
	used(h, 120)
	if err := e.ledger.Renew(ctx(e.T)); err != nil {
		e.Fatal(err)
	}
	e.eventually("the hold to be made anew", func() bool { return e.ledger.Stats().Lost == 1 })
	e.balance(id, 600, 400, 0)
	if err := h.Extend(ctx(e.T), 500); err != nil {
		e.Error(err)
	}
	e.settle(h, 450)
	e.balance(id, 550, 0, 450)

	// An extension makes the hold anew as well.
	e.loseHolds(func() { h = e.reserve(id, 10) })
	if err := h.Extend(ctx(e.T), 60); err != nil {
		e.Error(err)
	}
	e.balance(id, 490, 60, 450)
	e.settle(h, 60)
}

// testCrash drops ledgers in the middle of their work, again and again.
func testCrash(e *env) {
	id := e.account(10_000)
	charged := l402.Msat(0)
	for i := range 10 {
		l := e.open(metering.Config{})
		h := e.reserveOn(l, reservation(id, 100))
		used(h, int64(i))
		if i%2 == 0 {
			if err := l.Renew(ctx(e.T)); err != nil {
				e.Fatal(err)
			}
			charged += l402.Msat(i) // the ledgers with odd i have reported no usage
		}
		e.kill(l)
		if _, err := h.Settle(ctx(e.T), calls(50)); err == nil {
			e.Error("settled on a dead ledger")
		}
	}
	e.balance(id, 9000, 1000, 0)
	e.sweep(e.open(metering.Config{}), 10)
	e.balance(id, 10_000-charged, 0, charged)
}
