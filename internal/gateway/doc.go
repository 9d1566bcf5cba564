// Package gateway is the HTTP side of Sluice: it sells calls to inference
// servers for prepaid Lightning credit.
//
// The life of a paid request, each step in the file named for it:
//
//  1. routes.go: host and path choose a service; anything else is refused.
//  2. exchange.go: a credential is proven by computation alone. Who has none
//     is counted by address (admission.go, limits.go) before more is read.
//  3. body.go, quote.go: the body is read, its model found, its cost bounded
//     from above.
//  4. reserve.go: a full pool refuses; then the bound is held on the account
//     and on every budget of the token. Short of money: challenge.go.
//  5. proxy.go: wait for a slot, forward to one backend, and to another only
//     when the first did not take the request.
//  6. stream.go and unary.go: pass the answer on while metering it.
//  7. settle.go: charge what was delivered, exactly once, on a context that
//     does not end with the client, before the end of the answer is sent.
//
// The happy path of its user, cmd/gateway:
//
//	gw, err := gateway.New(gateway.Config{Services: …, Ledger: …, …})
//	srv, err := gateway.NewServer(gateway.ServerConfig{Handler: gw.Handler()})
//	go srv.Serve(listener)
//	…
//	err = gw.Drain(ctx, srv) // on SIGTERM
//
// The package states the interfaces it needs (Invoicer) and never imports a
// store or lnd.
package gateway
