// Package pricer keeps the prices in force: once per interval it turns the load
// of each model's pool into a price and puts it on the board that requests read.
//
//	p, err := pricer.New(pricer.Config{Models: models, Record: pricer.NewRecord(store), Board: board,
//		Load: load, Work: work, Replica: name})
//	err = p.Open(ctx) // now every model has a price
//	go p.Run(ctx)
//
// Of several gateways on one ledger one leads: it alone steps the controllers
// and publishes epochs, under a lock of the store that also fences each
// publication. The others observe the same load, so that any of them can go on
// where the leader stopped, and take over what it published: at once where the
// store notifies, within an interval where it does not. All of them tell each
// other their own requests, since each sees only those that came through it.
package pricer
