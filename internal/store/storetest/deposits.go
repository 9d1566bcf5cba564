package storetest

import (
	"errors"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

func (e *env) settled(h l402.PaymentHash, id l402.TokenID, amount l402.Msat, index uint64) (l402.Msat, error) {
	return e.ledger.CreditSettled(ctx(e.T), metering.Settled{
		Deposit: metering.Deposit{Hash: h, Account: id, Amount: amount}, Node: "02aa", Index: index, At: time.Now()})
}

func testDepositOrders(e *env) {
	present := func(h l402.PaymentHash, id l402.TokenID) l402.Msat {
		got, err := e.ledger.Deposit(ctx(e.T), metering.Deposit{Hash: h, Account: id, Amount: 1000})
		if err != nil {
			e.Fatal(err)
		}
		return got
	}
	arrive := func(h l402.PaymentHash, id l402.TokenID, amount l402.Msat) l402.Msat {
		got, err := e.settled(h, id, amount, 1)
		if err != nil {
			e.Fatal(err)
		}
		return got
	}
	for _, arrived := range []l402.Msat{1000, 1700, 900} { // exact, overpaid, and less than the credential claims
		want := arrived
		id, h := l402.NewTokenID(), newHash()
		if sum := present(h, id) + arrive(h, id, arrived) + present(h, id) + arrive(h, id, arrived); sum != want {
			e.Errorf("presented first, %d arrived: credited %d", arrived, sum)
		}
		e.balance(id, want, 0, 0)
		id, h = l402.NewTokenID(), newHash()
		if sum := arrive(h, id, arrived) + present(h, id) + arrive(h, id, arrived) + present(h, id); sum != want {
			e.Errorf("arrived first, %d arrived: credited %d", arrived, sum)
		}
		e.balance(id, want, 0, 0)
	}
	// From every side at once.
	id, h := l402.NewTokenID(), newHash()
	parallel(40, func(i int) {
		if i%2 == 0 {
			present(h, id)
		} else {
			arrive(h, id, 1700)
		}
	})
	e.balance(id, 1700, 0, 0)
	if _, err := e.ledger.Deposit(ctx(e.T), metering.Deposit{Hash: newHash(), Account: id, Amount: -5}); !errors.Is(err, metering.ErrAmount) {
		e.Errorf("negative deposit: %v", err)
	}
}

func testDepositWithReserve(e *env) {
	r := reservation(l402.NewTokenID(), 400)
	r.Deposit = &metering.Deposit{Hash: newHash(), Account: r.Account, Amount: 1000}
	h := e.reserveOn(e.ledger, r)
	if h.Available() != 600 || !e.ledger.Known(r.Deposit.Hash) {
		e.Errorf("available %d, known %v", h.Available(), e.ledger.Known(r.Deposit.Hash))
	}
	again := r
	again.ID, again.Amount = metering.NewHoldID(), 700
	_, err := e.ledger.Reserve(ctx(e.T), again) // the payment is credited only once
	e.insufficient(err, 600, 700)
	e.settle(h, 400)

	// A deposit remains credited even if the request is refused.
	r = reservation(l402.NewTokenID(), 5000)
	r.Deposit = &metering.Deposit{Hash: newHash(), Account: r.Account, Amount: 1000}
	_, err = e.ledger.Reserve(ctx(e.T), r)
	if short := e.insufficient(err, 1000, 5000); short.Credited != 1000 {
		e.Errorf("credited %d", short.Credited)
	}
	e.balance(r.Account, 1000, 0, 0)

	// A payment that the ledger remembers costs no write.
	before := e.store.writes
	for range 3 {
		if got, err := e.ledger.Deposit(ctx(e.T), *r.Deposit); got != 0 || err != nil {
			e.Errorf("known deposit: %d, %v", got, err)
		}
	}
	if e.store.writes != before {
		e.Errorf("a known deposit was written %d times", e.store.writes-before)
	}
}

func testForeignDeposit(e *env) {
	h := newHash()
	mine, theirs := l402.NewTokenID(), e.account(10)
	first := metering.Deposit{Hash: h, Account: mine, Amount: 1000}
	if _, err := e.ledger.Deposit(ctx(e.T), first); err != nil {
		e.Fatal(err)
	}
	stolen := first
	stolen.Account = theirs
	_, err := e.ledger.Deposit(ctx(e.T), stolen)
	e.refused(err, metering.ErrForeignDeposit)
	r := reservation(theirs, 5)
	r.Deposit = &stolen
	_, err = e.ledger.Reserve(ctx(e.T), r)
	e.refused(err, metering.ErrForeignDeposit)
	_, err = e.settled(h, theirs, 1000, 7)
	e.refused(err, metering.ErrForeignDeposit)
	if c, _, _ := e.ledger.Cursor(ctx(e.T), "02aa"); c.Index != 7 {
		e.Errorf("cursor stuck at %d behind a foreign payment", c.Index)
	}
	e.balance(mine, 1000, 0, 0)
	e.balance(theirs, 10, 0, 0)
	if got := e.ledger.Stats().Foreign; got != 3 {
		e.Errorf("foreign deposits counted: %d", got)
	}
}

func testCursor(e *env) {
	if _, known, err := e.ledger.Cursor(ctx(e.T), "02aa"); known || err != nil {
		e.Errorf("new node: known %v, %v", known, err)
	}
	at := func(want uint64) {
		e.Helper()
		if got, known, err := e.ledger.Cursor(ctx(e.T), "02aa"); got.Index != want || !known || err != nil {
			e.Errorf("cursor %d, %v, %v; want %d", got.Index, known, err, want)
		}
	}
	// Index 0 moves no cursor, and makes no node known.
	if err := e.ledger.AdvanceCursor(ctx(e.T), metering.CursorRow{Node: "02aa"}, false); err != nil {
		e.Fatal(err)
	}
	if _, known, err := e.ledger.Cursor(ctx(e.T), "02aa"); known || err != nil {
		e.Errorf("after index 0: known %v, %v", known, err)
	}
	for _, step := range []struct{ set, want uint64 }{{5, 5}, {3, 5}, {0, 5}, {5, 5}, {9, 9}} {
		if err := e.ledger.AdvanceCursor(ctx(e.T), metering.CursorRow{Node: "02aa", Index: step.set, Hash: [32]byte{byte(step.set)}}, false); err != nil {
			e.Fatal(err)
		}
		at(step.want)
	}
	if _, err := e.settled(newHash(), l402.NewTokenID(), 5, 12); err != nil {
		e.Fatal(err)
	}
	at(12)
	if _, err := e.settled(newHash(), l402.NewTokenID(), 5, 11); err != nil { // credited late; the cursor stays
		e.Fatal(err)
	}
	at(12)
	if _, known, _ := e.ledger.Cursor(ctx(e.T), "03bb"); known {
		e.Error("another node has a cursor")
	}
	// The credit and the cursor are committed together: a lost credit moves no cursor.
	id, h := l402.NewTokenID(), newHash()
	e.store.inject(lost, lost)
	if _, err := e.settled(h, id, 700, 20); err != nil {
		e.Fatal(err)
	}
	at(20)
	e.balance(id, 700, 0, 0)
	if born, err := e.ledger.Born(ctx(e.T)); err != nil || time.Since(born) > time.Hour {
		e.Errorf("born %v, %v", born, err)
	}
}

func testDepositLists(e *env) {
	id := l402.NewTokenID()
	unclaimed, unconfirmed := newHash(), e.deposit(id, 11)
	both := e.deposit(id, 12)
	for _, h := range []l402.PaymentHash{unclaimed, both} {
		if _, err := e.settled(h, id, 12, 3); err != nil {
			e.Fatal(err)
		}
	}
	list, err := e.ledger.Unclaimed(ctx(e.T), 10)
	if err != nil || len(list) != 1 || list[0].Hash != unclaimed || list[0].Credited != 12 || list[0].Node != "02aa" || list[0].Index != 3 {
		e.Errorf("unclaimed: %+v, %v", list, err)
	}
	list, err = e.ledger.Unconfirmed(ctx(e.T), time.Hour, 10) // presented long ago by the test's clock
	if err != nil || len(list) != 1 || list[0].Hash != unconfirmed {
		e.Errorf("unconfirmed: %+v, %v", list, err)
	}
	if list, err = e.ledger.Unconfirmed(ctx(e.T), 30_000*time.Hour, 10); err != nil || len(list) != 0 {
		e.Errorf("unconfirmed since the beginning: %+v, %v", list, err)
	}
	if r := e.audit(); r.Unclaimed != 1 || r.Unconfirmed != 1 {
		e.Errorf("report: %+v", r)
	}
	n := 0
	if err := e.ledger.EachDeposit(ctx(e.T), func(metering.DepositRow) error { n++; return nil }); err != nil || n != 3 {
		e.Errorf("%d deposits, %v", n, err)
	}
	row, found, err := e.ledger.LookupDeposit(ctx(e.T), both)
	if err != nil || !found || row.Presented == 0 || row.Settled == 0 || row.Account != id {
		e.Errorf("deposit: %+v, %v, %v", row, found, err)
	}
	if _, found, err = e.ledger.LookupDeposit(ctx(e.T), newHash()); found || err != nil {
		e.Errorf("unknown deposit: %v, %v", found, err)
	}
	if totals, err := e.ledger.Totals(ctx(e.T)); err != nil || totals.Accounts != 1 || totals.Deposited != 35 || totals.Available != 35 {
		e.Errorf("totals: %+v, %v", totals, err)
	}
}

// testDepositKnownAndForgotten checks that a payment which this process remembers is still looked up in the database,
// which may have forgotten it.
func testDepositKnownAndForgotten(e *env) {
	d := metering.Deposit{Hash: newHash(), Account: l402.NewTokenID(), Amount: 1000}
	e.store.onWrite(func(*metering.Batch) fault { return forgotten })
	if _, err := e.ledger.Deposit(ctx(e.T), d); err != nil {
		e.Fatal(err)
	}
	e.store.heal()
	if got, err := e.ledger.Deposit(ctx(e.T), d); got != 1000 || err != nil {
		e.Errorf("presented again: %d, %v", got, err)
	}
	e.balance(d.Account, 1000, 0, 0)

	paid := newHash()
	if _, err := e.settled(paid, d.Account, 10, 1); err != nil {
		e.Fatal(err)
	}
	if !e.ledger.Known(paid) {
		e.Error("a payment that was seen settled is not known")
	}
	e.store.failOver()
	if e.ledger.Known(paid) {
		e.Error("a payment seen settled before a failover is known after it")
	}

	// The failover comes while a reservation waits. The reservation has left out the deposit because the ledger
	// remembers it.
	second := metering.Deposit{Hash: newHash(), Account: d.Account, Amount: 500}
	e.store.onWrite(func(*metering.Batch) fault { return forgotten })
	if _, err := e.ledger.Deposit(ctx(e.T), second); err != nil {
		e.Fatal(err)
	}
	e.store.heal()
	failed := false
	e.store.onWrite(func(*metering.Batch) fault {
		if !failed {
			failed = true
			e.store.failOver()
		}
		return none
	})
	r := reservation(d.Account, 100)
	r.Deposit = &second
	if _, err := e.ledger.Reserve(ctx(e.T), r); err != nil {
		e.Fatal(err)
	}
	e.balance(d.Account, 1410, 100, 0)
}
