// Package metering is the money ledger: accounts of prepaid credit, holds for
// requests in flight, charges, deposits and delegated budgets.
//
// One request goes like this:
//
//	ledger, err := metering.Open(ctx, metering.Config{Store: db})
//	hold, err := ledger.Reserve(ctx, metering.Reservation{
//		Account: token.ID, Budgets: token.Budgets, Chain: token.Chain, Amount: bound,
//		Service: "inference", Model: model, Epoch: epoch.ID, Rates: epoch.Rates,
//		Deposit: &metering.Deposit{Hash: token.PaymentHash, Account: token.ID, Amount: token.Deposit},
//	})
//	hold.Progress(usage, metering.SourceRunning) // as often as you like, no I/O
//	entry, err := hold.Settle(ctx, metering.Settlement{Usage: usage, Source: src, Outcome: metering.OutcomeComplete})
//
// All amounts are millisatoshi. Every operation is queued to one writer per
// process, which takes up to MaxBatch of them in order of arrival, has the
// Store load the rows that they touch, decides each in Go over the loaded rows,
// and has the Store write what changed in one transaction: of each account, only if
// nobody else has changed it since. No lock is held meanwhile. All rules about money
// live here, once; a Store only loads and writes.
//
// Every operation may be repeated after a commit whose answer was lost: a
// reservation is found by its hold id, a settlement by its charge, a deposit by
// its payment hash, an extension states a total. So the writer simply runs a
// batch again until the store has answered.
//
// A price never touches a request in flight: a hold keeps a copy of the rates it
// was made with. A RateLock is a quote that was bought with a payment; whether it
// still covers a request is decided with the hold, and Hold.Rates tells. The ledger
// knows of a published price only its epoch's id and its rates.
//
// Each open hold names its owner, the ledger that made it, which raises a counter in
// the store every few seconds and reports the usage so far. When the counter has stood
// still for a lease, another process (or its successor) charges what was last
// reported, provisionally; if the owner turns out to be alive, its one late settlement
// replaces that charge.
package metering
