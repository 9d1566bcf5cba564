package storetest

import (
	"errors"
	"math"
	"strings"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

func testCharge(e *env) {
	id := e.account(1000)
	h := e.reserve(id, 400)
	if h.Amount() != 400 || h.Available() != 600 {
		e.Errorf("hold: amount %d, available %d", h.Amount(), h.Available())
	}
	e.balance(id, 600, 400, 0)
	entry := e.settle(h, 150)
	if entry.Charged != 150 || entry.Unbilled != 0 || entry.Available != 850 || entry.ID != h.ID() ||
		entry.Epoch != 3 || entry.Rates != perCall || entry.Model != "m" || entry.Provisional {
		e.Errorf("entry: %+v", entry)
	}
	e.balance(id, 850, 0, 150)
}

func testChargeAtMostTheHold(e *env) {
	id := e.account(1000)
	h, other := e.reserve(id, 400), e.reserve(id, 300)
	entry := e.settle(h, 700) // charges at most its own hold, although the account has more
	if entry.Charged != 400 || entry.Unbilled != 300 {
		e.Errorf("entry: %+v", entry)
	}
	e.balance(id, 300, 300, 400)
	e.settle(other, 300)
	e.balance(id, 300, 0, 700)
}

func testRefusals(e *env) {
	id := e.account(100)
	_, err := e.ledger.Reserve(ctx(e.T), reservation(id, 101))
	e.insufficient(err, 100, 101)
	_, err = e.ledger.Reserve(ctx(e.T), reservation(l402.NewTokenID(), 1))
	e.insufficient(err, 0, 1)
	e.reserve(id, 60)
	_, err = e.ledger.Reserve(ctx(e.T), reservation(id, 41))
	e.insufficient(err, 40, 41)

	bad := reservation(id, 1)
	bad.Amount = -1
	_, err = e.ledger.Reserve(ctx(e.T), bad)
	e.refused(err, metering.ErrAmount)
	bad = reservation(id, 1)
	bad.Rates[pricing.Calls] = -1
	_, err = e.ledger.Reserve(ctx(e.T), bad)
	e.refused(err, metering.ErrArgument)
	bad = reservation(id, 1)
	bad.Model = strings.Repeat("m", 1000)
	_, err = e.ledger.Reserve(ctx(e.T), bad)
	e.refused(err, metering.ErrArgument)
	bad = reservation(id, 1)
	bad.Model = "a\x00b"
	_, err = e.ledger.Reserve(ctx(e.T), bad)
	e.refused(err, metering.ErrArgument)
	e.balance(id, 40, 60, 0)
}

func testExtend(e *env) {
	id, part := e.account(1000), newBudget(500)
	h := e.reserve(id, 100, part)
	for range 2 { // repeated, because a total is given and not an increment
		if err := h.Extend(ctx(e.T), 300); err != nil {
			e.Fatal(err)
		}
	}
	if h.Amount() != 300 || h.Available() != 200 {
		e.Errorf("amount %d, available %d", h.Amount(), h.Available())
	}
	e.insufficient(h.Extend(ctx(e.T), 501), 200, 201)
	if err := h.Extend(ctx(e.T), 50); err != nil || h.Amount() != 300 {
		e.Errorf("extension to less: %v, amount %d", err, h.Amount())
	}
	e.balance(id, 700, 300, 0)
	if entry := e.settle(h, 280); entry.Charged != 280 {
		e.Errorf("entry: %+v", entry)
	}
	e.refused(h.Extend(ctx(e.T), 400), metering.ErrEnded)
	e.balance(id, 720, 0, 280)
}

func testRelease(e *env) {
	id := e.account(1000)
	h := e.reserve(id, 400, newBudget(600))
	if err := h.Release(ctx(e.T), metering.OutcomeBackendError); err != nil {
		e.Fatal(err)
	}
	e.balance(id, 1000, 0, 0)
	if list, _, err := e.ledger.Entries(ctx(e.T), metering.EntryQuery{Account: id}); err != nil || len(list) != 0 {
		e.Errorf("entries %v, %v", list, err)
	}
	if r := e.audit(); r.Budgets != 0 || r.OpenHolds != 0 {
		e.Errorf("left behind: %+v", r)
	}
}

func testSettleOnce(e *env) {
	id := e.account(1000)
	h := e.reserve(id, 400)
	entries := make([]metering.Entry, 20)
	parallel(len(entries), func(i int) { entries[i] = e.settle(h, 100+l402.Msat(i)) })
	for _, entry := range entries {
		if entry != entries[0] {
			e.Errorf("entries differ: %+v, %+v", entry, entries[0])
		}
	}
	e.balance(id, 1000-entries[0].Charged, 0, entries[0].Charged)

	// A release leaves no charge row, so only the Hold knows that it has ended.
	h = e.reserve(id, 400)
	if err := h.Release(ctx(e.T), metering.OutcomeNotTaken); err != nil {
		e.Fatal(err)
	}
	e.store.durable()
	if entry := e.settle(h, 100); entry.Charged != 0 || entry.Outcome != metering.OutcomeNotTaken {
		e.Errorf("settled after its release: %+v", entry)
	}
	if n := len(e.store.durable()); n != 0 {
		e.Errorf("a hold that had ended was ended again, in %d batches", n)
	}
	e.balance(id, 1000-entries[0].Charged, 0, entries[0].Charged)
}

func testImpossibleUsage(e *env) {
	id := e.account(1000)
	h := e.reserve(id, 400)
	s := calls(0)
	s.Usage = pricing.Units{pricing.Calls: 30, pricing.OutputTokens: -5}
	entry, err := h.Settle(ctx(e.T), s)
	if err != nil || entry.Charged != 30 || entry.Usage[pricing.OutputTokens] != 0 {
		e.Errorf("negative count: %+v, %v", entry, err)
	}
	h = e.reserve(id, 400)
	entry, err = h.Settle(ctx(e.T), calls(math.MaxInt64))
	if err != nil || entry.Charged != 400 {
		e.Errorf("absurd count: %+v, %v", entry, err)
	}
	h = e.reserve(id, 100)
	s = calls(1)
	s.Backend, s.DeliveredBytes = "b\xff\x00\xc3"+strings.Repeat("é", 400), -1 // what no store can keep
	if entry, err = h.Settle(ctx(e.T), s); err != nil || entry.Charged != 1 {
		e.Errorf("strange name: %+v, %v", entry, err)
	}
	e.balance(id, 569, 0, 431)
	if got := e.ledger.Stats().Clamped; got != 2 {
		e.Errorf("clamped: %d", got)
	}
}

func testStatus(e *env) {
	id := e.account(1000)
	h := e.reserve(id, 100)
	for _, s := range []metering.Status{metering.StatusFrozen, metering.StatusRevoked} {
		if err := e.ledger.SetStatus(ctx(e.T), id, s); err != nil {
			e.Fatal(err)
		}
		if got, err := e.ledger.Status(ctx(e.T), id); err != nil || got != s {
			e.Errorf("status %v, %v", got, err)
		}
		_, err := e.ledger.Reserve(ctx(e.T), reservation(id, 1))
		e.refused(err, metering.ErrFrozen)
		e.refused(h.Extend(ctx(e.T), 200), metering.ErrFrozen)
	}
	e.deposit(id, 50) // deposits are credited all the same
	e.settle(h, 100)  // and open holds can be settled
	if err := e.ledger.SetStatus(ctx(e.T), id, metering.StatusActive); err != nil {
		e.Fatal(err)
	}
	e.settle(e.reserve(id, 10), 10)
	e.balance(id, 940, 0, 110)
}

func testAdjust(e *env) {
	id, first := l402.NewTokenID(), metering.NewHoldID()
	for range 2 {
		if err := e.ledger.Adjust(ctx(e.T), first, id, 500, "goodwill"); err != nil {
			e.Fatal(err)
		}
	}
	e.balance(id, 500, 0, 0)
	e.refused(e.ledger.Adjust(ctx(e.T), first, id, 501, "other"), metering.ErrArgument)
	e.insufficient(e.ledger.Adjust(ctx(e.T), metering.NewHoldID(), id, -501, "too much"), 500, 501)
	if err := e.ledger.Adjust(ctx(e.T), metering.NewHoldID(), id, -200, "mistake"); err != nil {
		e.Fatal(err)
	}
	e.balance(id, 300, 0, 0)
	e.refused(e.ledger.Adjust(ctx(e.T), metering.NewHoldID(), id, 0, ""), metering.ErrArgument)
	e.refused(e.ledger.Adjust(ctx(e.T), metering.NewHoldID(), id, l402.MaxMsat, ""), metering.ErrAmount)
	if r := e.audit(); r.Adjusted != 300 {
		e.Errorf("report: %+v", r)
	}
}

func testEntries(e *env) {
	id, part := e.account(10_000), newBudget(5000)
	other := e.account(1000)
	e.settle(e.reserve(other, 10), 10)
	var since time.Time
	for i := range 25 {
		if i == 10 {
			e.store.advance(time.Hour)
		}
		var h *metering.Hold
		if i%5 == 0 {
			h = e.reserve(id, 100, part)
		} else {
			h = e.reserve(id, 100)
		}
		entry := e.settle(h, l402.Msat(i+1))
		if i == 10 {
			since = entry.At
		}
	}
	check := func(q metering.EntryQuery, want ...l402.Msat) {
		e.Helper()
		var got []l402.Msat
		for page := 0; page == 0 || q.Before != ""; page++ {
			list, next, err := e.ledger.Entries(ctx(e.T), q)
			if err != nil {
				e.Fatal(err)
			}
			for _, entry := range list {
				got = append(got, entry.Charged)
			}
			q.Before = next
		}
		if len(got) != len(want) {
			e.Fatalf("%+v: got %v, want %v", q, got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				e.Fatalf("%+v: got %v, want %v", q, got, want)
			}
		}
	}
	var all []l402.Msat
	for i := 25; i > 0; i-- {
		all = append(all, l402.Msat(i))
	}
	check(metering.EntryQuery{Account: id}, all...)
	check(metering.EntryQuery{Account: id, Limit: 4}, all...)
	check(metering.EntryQuery{Account: id, Since: since}, all[:15]...)
	check(metering.EntryQuery{Account: id, Chain: part.ID}, 21, 16, 11, 6, 1)
	check(metering.EntryQuery{Account: id, Chain: part.ID, Limit: 1}, 21, 16, 11, 6, 1)
	check(metering.EntryQuery{Account: l402.NewTokenID()})
	// A page that begins at another account's charge shows nothing of that account.
	_, next, err := e.ledger.Entries(ctx(e.T), metering.EntryQuery{Account: id, Limit: 3})
	if err != nil {
		e.Fatal(err)
	}
	check(metering.EntryQuery{Account: other, Before: next})
	_, _, err = e.ledger.Entries(ctx(e.T), metering.EntryQuery{Account: id, Before: "nonsense"})
	if !errors.Is(err, metering.ErrArgument) {
		e.Errorf("nonsense cursor: %v", err)
	}
}
