package storetest

import (
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// look makes a ledger look once, a fifth of a lease after the last look.
func (e *env) look(l *metering.Ledger) (int, error) {
	e.clock.advance(lease / (looks - 2))
	return l.Sweep(ctx(e.T))
}

// untouched checks that a ledger sweeps nothing in several looks.
func (e *env) untouched(l *metering.Ledger, times int) {
	e.Helper()
	for i := range times {
		if n, err := e.look(l); n != 0 || err != nil {
			e.Errorf("look %d: swept %d, %v", i, n, err)
		}
	}
}

// testSweepAfterStart checks that a ledger which has just started takes nobody for dead for a whole lease, because it
// has not yet seen anybody live or die.
func testSweepAfterStart(e *env) {
	id := e.account(1000)
	e.abandoned(id, 400, 150)
	e.clock.advance(10 * lease) // the owner has been silent for long
	fresh := e.open(metering.Config{})
	e.untouched(fresh, looks-2) // less than a whole lease
	if n, err := e.look(fresh); n != 1 || err != nil {
		e.Errorf("swept %d, %v after a lease; want 1", n, err)
	}
	e.balance(id, 850, 0, 150)
}

// testSweepAfterOutage checks that an idle ledger which could not reach the store, or got a late answer, takes nobody
// for dead until the store has answered for a lease.
func testSweepAfterOutage(e *env) {
	for name, outage := range map[string]func(idle *metering.Ledger){
		"the store does not answer": func(idle *metering.Ledger) {
			e.store.mu.Lock()
			e.store.deaf = true
			e.store.mu.Unlock()
			if _, err := e.look(idle); err == nil {
				e.Error("no error from a store that does not answer")
			}
			e.store.mu.Lock()
			e.store.deaf = false
			e.store.mu.Unlock()
		},
		"nobody looked for a while": func(*metering.Ledger) { e.clock.advance(lease) },
		"the store failed over":     func(*metering.Ledger) { e.store.failOver() },
	} {
		id, idle := e.account(1000), e.open(metering.Config{})
		owner := e.open(metering.Config{})
		h := e.reserveOn(owner, reservation(id, 400))
		e.sweep(idle, 0) // idle has seen that the owner is alive
		e.stall(owner)
		e.untouched(idle, 3) // the owner cannot reach the store either
		outage(idle)
		e.untouched(idle, looks-3)
		if err := owner.Renew(ctx(e.T)); err != nil {
			e.Fatal(err)
		}
		e.untouched(idle, 3)
		if entry := e.settle(h, 300); entry.Charged != 300 || entry.Provisional {
			e.Errorf("%s: %+v", name, entry)
		}
		e.balance(id, 700, 0, 300)
		e.stall(idle)
	}
}

// testSweepAfterAFenceFails checks that owners get a whole lease again after a fence failed, because the store was then
// away for the owners as well.
func testSweepAfterAFenceFails(e *env) {
	id, owner := e.account(1000), e.open(metering.Config{})
	h := e.reserveOn(owner, reservation(id, 400))
	e.stall(owner)
	fences := 0
	e.store.onFence(func() error { fences++; return errCut })
	for i := 0; fences == 0; i++ {
		if n, err := e.look(e.ledger); n != 0 || (err != nil) != (fences == 1) || i > looks {
			e.Fatalf("look %d: swept %d, %v", i, n, err)
		}
	}
	e.store.heal()
	e.untouched(e.ledger, looks-2) // less than a whole lease
	if err := owner.Renew(ctx(e.T)); err != nil || owner.Stats().Fenced != 0 {
		e.Errorf("taken for dead %d times, %v", owner.Stats().Fenced, err)
	}
	e.untouched(e.ledger, 2)
	if entry := e.settle(h, 300); entry.Charged != 300 || entry.Provisional {
		e.Errorf("%+v", entry)
	}
}

// testSweepWhileClocksStep checks that a step of the store's clock neither sweeps the hold of a living owner nor keeps
// the hold of a dead owner.
func testSweepWhileClocksStep(e *env) {
	id := e.account(1000)
	owner := e.open(metering.Config{})
	h := e.reserveOn(owner, reservation(id, 400))
	for _, step := range []time.Duration{time.Minute, -time.Minute, 24 * time.Hour, -30 * time.Hour} {
		e.store.advance(step)
		e.sweep(e.ledger, 0)
		if err := h.Extend(ctx(e.T), h.Amount()+10); err != nil {
			e.Errorf("after a step by %s: %v", step, err)
		}
	}
	e.settle(h, 200)
	_, dead := e.abandoned(id, 300, 70)
	e.store.advance(-48 * time.Hour)
	e.sweep(e.ledger, 1)
	e.balance(id, 730, 0, 270)
	if entry := e.settle(dead, 80); entry.Charged != 80 {
		e.Errorf("late settlement: %+v", entry)
	}
}

// testSweepPassesUnreadableHolds checks that abandoned holds which this version cannot read are counted and do not hide
// other holds, even if there are more than one read returns and all have smaller ids.
func testSweepPassesUnreadableHolds(e *env) {
	id := e.account(1000)
	for i := range 600 {
		ghost := metering.HoldRow{ID: metering.HoldID{0, byte(i >> 8), byte(i), 1}, Account: id, Context: []byte{99}}
		if i%2 == 1 { // valid terms, and a usage with a unit of a later version
			ghost.Context, ghost.Usage = []byte{1, 0, 0, 0, 0, 0, 0, 0, 1}, []byte{2, 120, 1}
		}
		e.store.ghosts = append(e.store.ghosts, ghost)
	}
	e.abandoned(id, 400, 150)
	e.sweep(e.ledger, 1)
	e.balance(id, 850, 0, 150)
	if got := e.ledger.Stats().Unreadable; got != 600 {
		e.Errorf("%d unreadable holds counted, want 600", got)
	}
	e.store.ghosts = nil
	e.sweep(e.ledger, 0)
	if got := e.ledger.Stats().Unreadable; got != 0 {
		e.Errorf("%d unreadable holds counted, want none", got)
	}
}

// testSweepStrays checks that a hold whose end the store lost in a failover is charged, although its owner is alive: at
// the second look that finds no request for the hold.
func testSweepStrays(e *env) {
	id := e.account(1000)
	l := e.open(metering.Config{})
	h, living := e.reserveOn(l, reservation(id, 400)), e.reserveOn(l, reservation(id, 100))
	used(h, 30)
	if err := l.Renew(ctx(e.T)); err != nil {
		e.Fatal(err)
	}
	e.store.onWrite(func(*metering.Batch) fault { return forgotten })
	e.settle(h, 300) // answered, and then lost
	e.store.heal()
	e.balance(id, 500, 500, 0)
	if n, err := e.look(l); n != 0 || err != nil { // one look is not enough
		e.Errorf("swept %d, %v", n, err)
	}
	e.untouched(l, 1) // nor are two looks in quick succession, because the next request may be on its way
	e.sweep(l, 1)
	e.balance(id, 870, 100, 30)
	e.settle(living, 50)
}

// testTakenForDead checks that a ledger which was silent for a lease continues under a new name. It keeps the holds
// that nobody has swept yet, and its later holds are not swept.
func testTakenForDead(e *env) {
	id := e.account(1000)
	l, h := e.abandoned(id, 400, 150)
	e.sweep(e.ledger, 1)
	e.reserveOn(l, reservation(id, 50)) // still under the old name
	if err := l.Renew(ctx(e.T)); err != nil {
		e.Fatal(err)
	}
	if got := l.Stats().Fenced; got != 1 {
		e.Errorf("taken for dead %d times, want 1", got)
	}
	e.living = append(e.living, l)
	if err := l.Renew(ctx(e.T)); err != nil { // takes over its own holds under the new name
		e.Fatal(err)
	}
	e.settle(e.reserveOn(l, reservation(id, 20)), 20)
	e.sweep(e.ledger, 0)
	e.balance(id, 780, 50, 170)
	h.Progress(pricing.Units{pricing.Calls: 200}, metering.SourceRunning)
	if entry := e.settle(h, 200); entry.Charged != 200 || entry.Provisional {
		e.Errorf("late settlement: %+v", entry)
	}
}

// testSweepSparesOwnHolds checks that a ledger never sweeps its own open requests: neither when it is late with its
// heartbeats, nor when they are under a name that it lost.
func testSweepSparesOwnHolds(e *env) {
	id := e.account(1000)
	l := e.open(metering.Config{})
	e.stall(l)
	h := e.reserveOn(l, reservation(id, 100))
	e.untouched(l, 2*looks) // no other ledger looks, so nobody takes l for dead
	if err := l.Renew(ctx(e.T)); err != nil || l.Stats().Fenced != 0 {
		e.Errorf("taken for dead %d times, %v", l.Stats().Fenced, err)
	}
	if entry := e.settle(h, 60); entry.Provisional || entry.Charged != 60 {
		e.Errorf("%+v", entry)
	}

	e.sweep(e.ledger, 0) // fences l, which has no hold
	h = e.reserveOn(l, reservation(id, 200))
	if err := l.Renew(ctx(e.T)); err != nil || l.Stats().Fenced != 1 {
		e.Errorf("taken for dead %d times, %v", l.Stats().Fenced, err)
	}
	e.untouched(l, 2*looks) // the hold is still under the old name
	e.balance(id, 740, 200, 60)
	if entry := e.settle(h, 150); entry.Provisional || entry.Charged != 150 {
		e.Errorf("%+v", entry)
	}
}

// testSweepWhileWritesFail checks that nobody is taken for dead while the store answers looks but no writes, because
// owners cannot show that they are alive.
func testSweepWhileWritesFail(e *env) {
	id := e.account(1000)
	idle := e.open(metering.Config{Lease: time.Second, Patience: 20 * time.Millisecond})
	owner := e.open(metering.Config{Lease: time.Second, SweepEvery: time.Hour})
	h := e.reserveOn(owner, reservation(id, 400))
	e.store.breakdown(early)
	_, err := idle.Deposit(ctx(e.T), metering.Deposit{Hash: newHash(), Account: id})
	e.refused(err, metering.ErrUnavailable)
	over := time.Now().Add(5 * time.Second / 2)
	e.eventually("time", func() bool { return time.Now().After(over) })
	e.store.heal()
	if err := owner.Renew(ctx(e.T)); err != nil || owner.Stats().Fenced != 0 {
		e.Errorf("taken for dead %d times, %v", owner.Stats().Fenced, err)
	}
	if entry := e.settle(h, 300); entry.Provisional || entry.Charged != 300 {
		e.Errorf("%+v", entry)
	}
}

// testSweepSparesWhatWasTakenOver checks that a sweep does not charge a hold that a living owner took over between the
// sweep's look and its decision.
func testSweepSparesWhatWasTakenOver(e *env) {
	id := e.account(1000)
	l := e.open(metering.Config{})
	e.stall(l)
	e.sweep(e.ledger, 0) // fences l, which has no hold
	h := e.reserveOn(l, reservation(id, 100))
	taken := false
	e.store.onWrite(func(*metering.Batch) fault {
		e.store.onWrite(nil)
		if err := l.Renew(ctx(e.T)); err != nil || l.Stats().Fenced != 1 {
			e.Errorf("taken for dead %d times, %v", l.Stats().Fenced, err)
		}
		if err := h.Extend(ctx(e.T), h.Amount()); err != nil {
			e.Error(err)
		}
		taken = true
		return none
	})
	if _, err := e.look(e.ledger); err != nil || !taken {
		e.Errorf("the sweeper decided nothing: %v, %v", taken, err)
	}
	e.balance(id, 900, 100, 0)
	if entry := e.settle(h, 60); entry.Provisional || entry.Charged != 60 {
		e.Errorf("%+v", entry)
	}
}

// testBeatAndFence checks what a store answers to heartbeats and fences.
func testBeatAndFence(e *env) {
	s, owner := e.store.Store, metering.OwnerID{1, 2, 3}
	beat := func(with, want int64) {
		e.Helper()
		now, missing, fenced, err := s.Beat(ctx(e.T), owner, with, nil)
		if now != want || len(missing) != 0 || fenced || err != nil {
			e.Errorf("beat %d: %d, %v, %v, %v; want %d", with, now, missing, fenced, err, want)
		}
	}
	fence := func(at int64, want bool) {
		e.Helper()
		if fenced, err := s.Fence(ctx(e.T), owner, at); fenced != want || err != nil {
			e.Errorf("fence at %d: %v, %v; want %v", at, fenced, err, want)
		}
	}
	beat(1, 1)
	beat(1, 2) // a repetition also raises the counter
	beat(9, 9)
	beat(3, 10)
	fence(9, false)
	fence(11, false)
	beat(11, 11)
	fence(11, true)
	fence(11, true) // reports that the owner is fenced, no matter who fenced it
	for _, with := range []int64{1, 12, 100} {
		if now, _, fenced, err := s.Beat(ctx(e.T), owner, with, nil); !fenced || now != 0 || err != nil {
			e.Errorf("beat of a fenced owner: %d, %v, %v", now, fenced, err)
		}
	}
	list, err := s.Owners(ctx(e.T))
	if err != nil {
		e.Fatal(err)
	}
	for _, row := range list {
		if fenced := row.ID == owner; row.Fenced != fenced || fenced && row.Beat != 11 {
			e.Errorf("owner %+v", row)
		}
	}
}
