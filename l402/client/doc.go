// Package client buys calls from an L402 gateway. Its Client is an [http.RoundTripper]. An
// http.Client with that transport can call a paid API in the same way as a free API.
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
// In an event stream the gateway sends the cost in a comment, which most event parsers drop. See
// [EventReader] and [CostScanner].
//
// The client sends a request with the stored token of the request's origin, if it has one. On a 402
// the client decodes the invoice, compares the invoice with everything else that the challenge
// says, checks it against the caps, pays it once, and sends the request again with the new
// credential. One round trip never pays twice.
//
// Each kind of failure has a type: [BudgetError] (a cap of the buyer forbids the payment),
// [InvoiceError] (the challenge contradicts itself or is not for this wallet), [PaymentError] (the
// wallet failed, or a payment is still under way), [UnseenTokenError] (a proxy on the way drops the
// credential).
//
// # Repetitions
//
// An SDK or a loop that uses the client sends a request again when the answer is lost. The client
// gives such a request the Idempotency-Key of the first request, so that the gateway charges the
// call at most once. The client takes an equal request for a repetition if the last one did not end
// well. An answer that was not read to its end counts as not ended well, so callers should read
// answers to their end. With [WithIdempotencyKey] the caller decides which requests are one call.
// The gateway answers a repetition with 409 while the first attempt runs, and also after it has
// charged the call.
//
// # Delegation
//
// [Token.Delegate] makes a copy of a token that can do less, without a connection to the gateway.
// The owner gives the copy to another agent with [Token.Export]. That agent reads it with
// [ParseCredential], stores it with [Client.Import] in a store of its own, and spends it. When the
// copy does not suffice, the agent gets a [BudgetError] and buys nothing, unless
// Config.BuyBeyondDelegation is set. The delegated token is never replaced.
//
// # Crashes and timeouts
//
// The client stores the intent to pay before it asks the wallet to pay. A client that finds an
// unresolved intent asks the wallet for the outcome before it pays anything else to that origin. If
// the payment succeeded, the client stores the token. If the payment is in flight, the client waits
// for it. If the payment failed, the client deletes the intent. A timeout is therefore never
// followed by a second payment. At one origin the clients that share a store buy one at a time,
// across goroutines and processes. The clients that wait then use what was bought.
package client
