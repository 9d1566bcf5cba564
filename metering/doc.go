// Package metering is the money ledger: accounts of prepaid credit, holds for requests in flight, charges, deposits and
// delegated budgets.
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
// All amounts are in millisatoshi (msat). The ledger queues every operation to one writer per process. The writer takes
// up to MaxBatch operations in order of arrival, and has the Store load the rows that they touch. It decides each
// operation in Go over the loaded rows. Then it has the Store write the changes in one transaction. The Store writes
// the changes of an account only if no other process has changed the account since it was loaded. The writer holds no
// lock while it decides. All rules about money are in this package, and in no Store. A Store only loads and writes.
//
// The writer may repeat every operation after a commit whose answer was lost, because it can tell what was committed:
// it finds a reservation by its hold id, a settlement by its charge, and a deposit by its payment hash, and an
// extension states a total. So the writer runs a batch again until the store has answered.
//
// A change of price never affects a request in flight, because a hold keeps a copy of the rates that it was made with.
// A RateLock is a quote that was bought with a payment. The ledger decides whether the lock still covers a request when
// it makes the hold, and Hold.Rates returns the result. Of a published price, the ledger knows only the id of its epoch
// and its rates.
//
// Each open hold names its owner: the ledger that made the hold. The owner raises a counter in the store every few
// seconds, and reports the usage so far. When the counter has not changed for a lease, another process (such as the
// owner's successor) charges the last reported usage provisionally. If the owner is alive after all, its one
// late settlement replaces that charge.
package metering
