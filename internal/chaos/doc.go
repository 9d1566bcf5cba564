// Package chaos breaks running systems on purpose. It starts real gateways, a
// PostgreSQL, lnd and inference servers on the loopback, and kills, stops,
// continues and cuts them while clients pay and stream:
//
//	site, err := chaos.Open()                       // builds the binaries
//	defer site.Close()
//	till := chaos.Meet(t, network)                  // seller and payer
//	g := site.Gateway(t, till.Settings(backend.URL))
//	k := till.Buy(t, g, 100_000)                    // a real payment over the channel
//	load := chaos.Start(chaos.Plan{Gateways: []*chaos.Gateway{g}, Accounts: []chaos.Credential{k}, Callers: 8})
//	g.Kill(t)
//	g.Restart(t)
//	chaos.Reconcile(t, load.Stop(), g, k)           // what clients saw against the books
//
// Whatever is broken, the same must hold afterwards: clients got a paid answer
// or a clean error, every hold ended, no balance is negative, what a client was
// told it paid is what stands in the ledger, and verify-ledger finds nothing.
//
// One test breaks nothing: it floods a gateway with callers who want more than
// their share, and reads what it takes up meanwhile.
//
// Another one has gateways of the version before work beside those of this one.
//
// The tests run for about two and a half minutes; with SLUICE_CHAOS=long they repeat more
// and wait for the full times.
package chaos
