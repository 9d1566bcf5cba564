// Package pricer keeps the prices in force. Once per interval it turns the load of each model's pool
// into a price, and puts the price on the board that requests read.
//
//	p, err := pricer.New(pricer.Config{Models: models, Record: pricer.NewRecord(store), Board: board,
//		Load: load, Work: work, Replica: name})
//	err = p.Open(ctx) // now every model has a price
//	go p.Run(ctx)
//
// Of several gateways on one ledger, one leads. Only the leader steps the controllers and publishes
// epochs. It holds a lock of the store, and the store checks that lock at each publication. The other
// gateways observe the same load, so that any of them can continue where the leader stopped. They take
// over what the leader published: at once if the store notifies them, otherwise within an interval. All
// gateways report their own requests to each other, because each gateway sees only the requests that
// came through it.
package pricer
