package storetest

import (
	"errors"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// testDepositForgotten checks that a client loses nothing when a failover loses a deposit that this process remembers
// as credited. Macaroon and preimage still prove the payment.
func testDepositForgotten(e *env) {
	for name, failOver := range map[string]func(){"noticed": e.store.failOver, "not noticed": func() {}} {
		d := metering.Deposit{Hash: newHash(), Account: l402.NewTokenID(), Amount: 1000}
		e.store.onWrite(func(*metering.Batch) fault { return forgotten })
		if _, err := e.ledger.Deposit(ctx(e.T), d); err != nil {
			e.Fatal(err)
		}
		e.store.heal()
		failOver()
		r := reservation(d.Account, 400)
		r.Deposit = &d
		e.settle(e.reserveOn(e.ledger, r), 300)
		e.balance(d.Account, 700, 0, 300)
		if name == "noticed" && !e.ledger.Known(d.Hash) {
			e.Error("a payment that was credited again is not known")
		}
	}
	known := e.deposit(l402.NewTokenID(), 10)
	e.store.failOver()
	if e.ledger.Known(known) {
		e.Error("what was known before a failover is known after it")
	}
}

// testDepositClaimsMore checks that the amount reported by the Lightning node counts, in any order of report and
// presentation. A credential that claims more credits nothing, and is counted.
func testDepositClaimsMore(e *env) {
	claim := func(d metering.Deposit, amount, want l402.Msat) {
		e.Helper()
		d.Amount = amount
		if got, err := e.ledger.Deposit(ctx(e.T), d); err != nil || got != want {
			e.Errorf("presented as %d: credited %d, %v; want %d", amount, got, err, want)
		}
	}
	arrive := func(d metering.Deposit, amount, want l402.Msat) {
		e.Helper()
		if got, err := e.settled(d.Hash, d.Account, amount, 1); err != nil || got != want {
			e.Errorf("%d arrived: credited %d, %v; want %d", amount, got, err, want)
		}
	}
	excess := func(want int64) {
		e.Helper()
		if got := e.ledger.Stats().Excess; got != want {
			e.Errorf("%d claims beyond what arrived, want %d", got, want)
		}
	}
	d := metering.Deposit{Hash: newHash(), Account: l402.NewTokenID()}
	arrive(d, 1000, 1000)
	claim(d, 1_000_000_000_000, 0)
	e.balance(d.Account, 1000, 0, 0)
	excess(1)

	// Presented first: the surplus is taken back as far as it is still available.
	d = metering.Deposit{Hash: newHash(), Account: l402.NewTokenID()}
	claim(d, 5000, 5000)
	e.settle(e.reserve(d.Account, 3000), 3000)
	arrive(d, 1000, -2000)
	e.balance(d.Account, 0, 0, 3000)
	row, _, err := e.ledger.LookupDeposit(ctx(e.T), d.Hash)
	if err != nil || row.Owed != 2000 || row.Credited != 3000 {
		e.Errorf("deposit: %+v, %v", row, err)
	}
	excess(2)
	claim(d, 5000, 0)
	e.deposit(d.Account, 500) // another payment is not used to pay the debt
	e.balance(d.Account, 500, 0, 3000)
	e.audit()
}

// testDepositDoubted checks that a payment which the Lightning node does not know is taken back. It is not credited
// again, however often a client presents it, unless the node reports it as settled after all.
func testDepositDoubted(e *env) {
	d := metering.Deposit{Hash: newHash(), Account: l402.NewTokenID(), Amount: 1000}
	if _, err := e.ledger.Deposit(ctx(e.T), d); err != nil {
		e.Fatal(err)
	}
	e.settle(e.reserve(d.Account, 300), 300)
	doubt := func() {
		e.Helper()
		if err := e.ledger.Doubt(ctx(e.T), metering.DepositRow{Hash: d.Hash, Account: d.Account}); err != nil {
			e.Error(err)
		}
	}
	list, err := e.ledger.Undoubted(ctx(e.T), time.Hour, time.Time{}, 10)
	if err != nil || len(list) != 1 {
		e.Errorf("to be doubted: %+v, %v", list, err)
	}
	if list, err = e.ledger.Undoubted(ctx(e.T), time.Hour, time.Now(), 10); err != nil || len(list) != 0 {
		e.Errorf("presented before: %+v, %v", list, err)
	}
	doubt()
	doubt()
	e.balance(d.Account, 0, 0, 300)
	if list, err = e.ledger.Undoubted(ctx(e.T), time.Hour, time.Time{}, 10); err != nil || len(list) != 0 {
		e.Errorf("to be doubted again: %+v, %v", list, err)
	}
	if list, err = e.ledger.Unconfirmed(ctx(e.T), time.Hour, 10); err != nil || len(list) != 1 || list[0].Owed != 300 || list[0].Doubted == 0 {
		e.Errorf("alarmed: %+v, %v", list, err)
	}
	other := e.open(metering.Config{}) // this ledger remembers no payments
	if got, err := other.Deposit(ctx(e.T), d); got != 0 || err != nil {
		e.Errorf("presented again: %d, %v", got, err)
	}
	r := reservation(d.Account, 1)
	r.Deposit = &d
	_, err = other.Reserve(ctx(e.T), r)
	e.insufficient(err, 0, 1)
	e.audit()
	if got, err := e.settled(d.Hash, d.Account, 1000, 3); got != 700 || err != nil {
		e.Errorf("settled after all: %d, %v", got, err)
	}
	if row, _, err := e.ledger.LookupDeposit(ctx(e.T), d.Hash); err != nil || row.Doubted != 0 || row.Owed != 0 || row.Credited != 1000 {
		e.Errorf("settled after all: %+v, %v", row, err)
	}
	e.balance(d.Account, 700, 0, 300)
	doubt() // changes nothing, because the payment has settled
	e.balance(d.Account, 700, 0, 300)
	if s := e.ledger.Stats(); s.Doubted != 1 {
		e.Errorf("%d doubted, want 1", s.Doubted)
	}
}

// testDepositOfManyHolders checks that a reservation is not durable when its payment is in the store already, even if
// this process does not remember the payment. A reservation with a new payment is durable.
func testDepositOfManyHolders(e *env) {
	l := e.open(metering.Config{KnownDeposits: 2})
	deposits := make([]metering.Deposit, 20)
	for i := range deposits {
		deposits[i] = metering.Deposit{Hash: newHash(), Account: l402.NewTokenID(), Amount: 1000}
		if _, err := e.ledger.Deposit(ctx(e.T), deposits[i]); err != nil {
			e.Fatal(err)
		}
	}
	e.store.durable()
	for _, d := range deposits {
		r := reservation(d.Account, 10)
		r.Deposit = &d
		e.reserveOn(l, r)
	}
	for i, durable := range e.store.durable() {
		if durable {
			e.Errorf("reservation %d with a payment that stood already was durable", i)
		}
	}
	r := reservation(l402.NewTokenID(), 10)
	r.Deposit = &metering.Deposit{Hash: newHash(), Account: r.Account, Amount: 1000}
	e.reserveOn(l, r)
	if list := e.store.durable(); len(list) != 1 || !list[0] {
		e.Errorf("a reservation with a new payment: durable %v", list)
	}
}

// testCursorAnew checks that the cursor of a node whose history began anew is replaced.
func testCursorAnew(e *env) {
	set := func(index uint64, hash byte, anew bool) {
		e.Helper()
		c := metering.CursorRow{Node: "02aa", Index: index, Hash: l402.PaymentHash{hash}}
		if err := e.ledger.AdvanceCursor(ctx(e.T), c, anew); err != nil {
			e.Error(err)
		}
	}
	at := func(index uint64, hash byte) {
		e.Helper()
		c, known, err := e.ledger.Cursor(ctx(e.T), "02aa")
		if err != nil || !known || c.Index != index || c.Hash != (l402.PaymentHash{hash}) {
			e.Errorf("cursor %+v, %v, %v; want %d, %d", c, known, err, index, hash)
		}
	}
	set(9, 1, false)
	set(4, 2, false) // the cursor only grows within one history
	at(9, 1)
	set(9, 3, false)
	at(9, 1)
	set(4, 2, true)
	at(4, 2)
	set(5, 4, false)
	at(5, 4)
	set(5, 6, true)
	at(5, 6)
	if c, _, _ := e.ledger.Cursor(ctx(e.T), "02aa"); c.Since == 0 {
		e.Error("when the history began anew is not on record")
	}
}

// testCursorAmongReplicas checks that gateways which follow one node and report at the same time, in any order, never
// move the cursor back. Neither does one batch.
func testCursorAmongReplicas(e *env) {
	ledgers := []*metering.Ledger{e.ledger, e.open(metering.Config{}), e.open(metering.Config{})}
	const each = 9
	for round := range 40 {
		hashes := make([]l402.PaymentHash, each)
		parallel(each, func(i int) {
			hashes[i] = newHash()
			c := metering.CursorRow{Node: "02aa", Index: uint64(each*round + i + 1), Hash: hashes[i]}
			if err := ledgers[i%len(ledgers)].AdvanceCursor(ctx(e.T), c, false); err != nil {
				e.Error(err)
			}
		})
		c, _, err := e.ledger.Cursor(ctx(e.T), "02aa")
		if err != nil || c.Index != uint64(each*(round+1)) || c.Hash != hashes[each-1] {
			e.Fatalf("round %d: cursor %+v, %v", round, c, err)
		}
	}
}

// testKeyedReserveIsDurable checks that a request with an idempotency key continues only after its key is on the disk.
// The store of this test forgets every batch that is not durable.
func testKeyedReserveIsDurable(e *env) {
	id := e.account(1000)
	e.store.onWrite(func(b *metering.Batch) fault {
		if b.Keys.Len() == 0 {
			return none
		}
		return forgottenUnlessDurable
	})
	r := reservation(id, 100)
	r.Idempotency = &metering.Idempotency{Key: newHash()}
	first := e.reserveOn(e.ledger, r)
	again := r
	again.ID = metering.NewHoldID()
	_, err := e.ledger.Reserve(ctx(e.T), again)
	var dup *metering.DuplicateError
	if !errors.As(err, &dup) || dup.State != metering.DuplicateRunning {
		e.Errorf("repeated while the first runs: %v", err)
	}
	e.store.heal()
	e.settle(first, 40)
	e.balance(id, 960, 0, 40)
}

// testKeyOfALostHold checks that only one of two requests is charged when a failover loses the hold of a keyed request
// and the client repeats the request, whichever of the two ends first.
func testKeyOfALostHold(e *env) {
	for _, firstFirst := range []bool{true, false} {
		id := e.account(1000)
		r := reservation(id, 100)
		r.Idempotency = &metering.Idempotency{Key: newHash()}
		var first *metering.Hold
		e.loseHolds(func() { first = e.reserveOn(e.ledger, r) })
		again := r
		again.ID = metering.NewHoldID()
		second := e.reserveOn(e.ledger, again)
		if !firstFirst {
			first, second = second, first
		}
		if entry := e.settle(first, 40); entry.Charged != 40 {
			e.Errorf("first: %+v", entry)
		}
		if entry := e.settle(second, 40); entry.Charged != 0 || entry.Unbilled != 40 {
			e.Errorf("second: %+v", entry)
		}
		e.balance(id, 960, 0, 40)
		_, err := e.ledger.Reserve(ctx(e.T), func() metering.Reservation { again.ID = metering.NewHoldID(); return again }())
		var dup *metering.DuplicateError
		if !errors.As(err, &dup) || dup.State != metering.DuplicateCharged || dup.Entry == nil || dup.Entry.ID != first.ID() {
			e.Errorf("third: %v", err)
		}
	}
}

// testEntriesOfAChain checks that the list of a sub-token's charges costs only what it shows, however many charges the
// account has.
func testEntriesOfAChain(e *env) {
	id := e.account(100_000)
	outer := newBudget(5000)
	mine, other := newBudget(1000), newBudget(1000)
	var want []metering.HoldID
	for i := range 30 {
		e.settle(e.reserve(id, 2), 1)
		e.settle(e.reserve(id, 2, outer, other), 1)
		if i%3 == 0 {
			want = append([]metering.HoldID{e.settle(e.reserve(id, 2, outer, mine), 1).ID}, want...)
		}
	}
	var got []metering.HoldID
	next, pages := "", 0
	for {
		page, more, err := e.ledger.Entries(ctx(e.T), metering.EntryQuery{Account: id, Chain: mine.ID, Limit: 4, Before: next})
		if err != nil {
			e.Fatal(err)
		}
		for _, entry := range page {
			got = append(got, entry.ID)
		}
		if pages++; more == "" {
			break
		}
		if len(page) != 4 {
			e.Errorf("a page of %d with more to come", len(page))
		}
		next = more
	}
	if pages != 3 || len(got) != len(want) {
		e.Fatalf("%d entries on %d pages, want %d on 3", len(got), pages, len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			e.Errorf("entry %d: %s, want %s", i, got[i], want[i])
		}
	}
	// A page that begins at another chain's charge shows nothing of that chain.
	foreign, _, err := e.ledger.Entries(ctx(e.T), metering.EntryQuery{Account: id, Limit: 1})
	if err != nil || len(foreign) != 1 {
		e.Fatal(foreign, err)
	}
	before := e.settle(e.reserve(id, 2, outer, other), 1).ID.String()
	if page, more, err := e.ledger.Entries(ctx(e.T), metering.EntryQuery{Account: id, Chain: mine.ID, Before: before}); len(page) != 0 || more != "" || err != nil {
		e.Errorf("another chain's: %+v, %q, %v", page, more, err)
	}
}

// testOrderAfterConflict checks that the operations of an account which another process changed or locked meanwhile are
// tried again in the order of their arrival.
func testOrderAfterConflict(e *env) {
	for i, how := range []fault{overtaken, taken, locked, overtaken, taken, locked} {
		id, failing := e.account(1000), 3-i/3
		release, entered := make(chan struct{}), make(chan struct{}, 100)
		e.store.gate(entered, release)
		e.creditNothing(id) // keeps the writer at the gate, so that the next two operations are in one batch
		<-entered
		h := make(chan *metering.Hold, 1)
		go func() {
			first, err := e.ledger.Reserve(ctx(e.T), reservation(id, 700))
			if err != nil {
				e.Errorf("overtaken by the reservation after it: %v", err)
			}
			h <- first
		}()
		e.eventually("reservation in the queue", func() bool { return e.ledger.Stats().Queue == 1 })
		second := make(chan error, 1)
		go func() {
			_, err := e.ledger.Reserve(ctx(e.T), reservation(id, 600))
			second <- err
		}()
		e.eventually("second reservation in the queue", func() bool { return e.ledger.Stats().Queue == 2 })
		e.store.onWrite(func(b *metering.Batch) fault {
			if b.Holds.Len() > 0 && failing > 0 {
				failing--
				return how
			}
			return none
		})
		close(release)
		first := <-h
		if first == nil {
			return
		}
		e.settle(first, 700)
		e.insufficient(<-second, 300, 600)
		e.store.heal()
		e.balance(id, 300, 0, 700)
	}
}

// creditNothing makes a deposit of 0 msat in the background.
func (e *env) creditNothing(id l402.TokenID) {
	go func() {
		if _, err := e.ledger.Deposit(ctx(e.T), metering.Deposit{Hash: newHash(), Account: id}); err != nil {
			e.Error(err)
		}
	}()
}
