package storetest

import (
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// perSearch has a price for a unit that the positional form of stored rates and usage lacks.
var perSearch = pricing.Rates{pricing.Calls: 1, pricing.Searches: 20}

// testUnits checks that holds, charges and prices of any unit are stored, settled, swept, listed and audited.
func testUnits(e *env) {
	id := e.account(1000)
	reserve := func(l *metering.Ledger) *metering.Hold {
		r := reservation(id, 400)
		r.Rates = perSearch
		return e.reserveOn(l, r)
	}
	done := pricing.Units{pricing.Calls: 3, pricing.Searches: 7, pricing.Documents: 640}
	entry, err := reserve(e.ledger).Settle(ctx(e.T), metering.Settlement{Usage: done, Source: metering.SourceCounted, Outcome: metering.OutcomeComplete})
	if err != nil || entry.Charged != 143 {
		e.Errorf("settled: %+v, %v", entry, err)
	}
	dying := e.open(metering.Config{})
	reserve(dying).Progress(pricing.Units{pricing.Searches: 5, pricing.Characters: 9}, metering.SourceRunning)
	if err := dying.Renew(ctx(e.T)); err != nil {
		e.Fatal(err)
	}
	e.stall(dying)
	e.sweep(e.ledger, 1)
	e.balance(id, 757, 0, 243)
	list, _, err := e.ledger.Entries(ctx(e.T), metering.EntryQuery{Account: id})
	if err != nil || len(list) != 2 {
		e.Fatalf("entries %+v, %v", list, err)
	}
	for i, want := range []pricing.Units{{pricing.Searches: 5, pricing.Characters: 9}, done} { // the newest first
		if list[i].Usage != want || list[i].Rates != perSearch {
			e.Errorf("entry %+v, want a usage of %v", list[i], want)
		}
	}
	published, err := e.prices.PublishEpoch(ctx(e.T), pricing.Epoch{Model: "searches", Rates: perSearch, Multiplier: 1, BoundBy: pricing.BoundFixed})
	if err != nil || published.Rates != perSearch {
		e.Errorf("published %+v, %v", published, err)
	}
	if latest, err := e.prices.LatestEpochs(ctx(e.T)); err != nil || len(latest) != 1 || latest[0].Rates != perSearch {
		e.Errorf("latest: %+v, %v", latest, err)
	}
}
