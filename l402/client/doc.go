// Package client buys calls from an L402 gateway. It is an
// [http.RoundTripper]: give it to an http.Client and a paid API looks like a
// free one.
//
//	store, err := client.OpenDir(dir)            // tokens survive the process
//	buyer, err := client.New(client.Config{
//		Wallet:        wallet,                   // your Lightning node
//		Store:         store,
//		Network:       bolt11.Mainnet,
//		MaxPerRequest: 50_000,                   // msat; a larger invoice is refused
//		MaxTotal:      5_000_000,                // msat over the life of the store
//		MaxFee:        client.Fee{Base: 1000, PPM: 5000},
//	})
//	api := &http.Client{Transport: buyer}
//	resp, err := api.Post(url, "application/json", body)
//	charge := client.Cost(resp)
//
// A stream tells its cost in a comment, which most readers of events drop: see
// [EventReader] and [CostScanner].
//
// A request goes out with the stored token of its origin, if there is one. On
// a 402 the invoice is decoded and compared with everything else that the
// challenge says, checked against the caps, paid once, and the request is sent
// again with the new credential. One round trip never pays twice.
//
// Each thing that can go wrong has a type: [BudgetError] (a cap of yours),
// [InvoiceError] (the challenge contradicts itself or is not for you),
// [PaymentError] (the wallet failed, or a payment is still under way),
// [UnseenTokenError] (a proxy on the way strips the credential).
//
// # Repetitions
//
// SDKs and loops above the client send a request again when its answer is lost.
// Such a request carries the Idempotency-Key of the first one, so that the gateway
// charges the call once at most. The client takes an equal request for a repetition
// if the last one did not end well, which includes an answer that was not read to
// its end; so read answers to their end. [WithIdempotencyKey] marks a call beyond
// doubt. A gateway answers 409 while the first attempt runs, and once it was charged.
//
// # Delegation
//
// [Token.Delegate] makes a copy that can do less, offline. Handed over with
// [Token.Export], [ParseCredential] and [Client.Import], it is what another
// agent spends, from a store of its own. When it does not suffice that agent
// gets a [BudgetError] and buys nothing, unless Config.BuyBeyondDelegation is
// set; the delegated token is never replaced.
//
// # Crashes and timeouts
//
// The intent to pay is on disk before the wallet is asked. A client that finds
// an unresolved intent asks the wallet what became of it, before it pays
// anything else to that origin: a payment that succeeded becomes a token, one
// in flight is waited for, one that failed is dropped. A timeout is therefore
// never followed by a second payment. Purchases at one origin are made one at a
// time, across goroutines and across processes that share a store; the others
// wait and use what was bought.
package client
