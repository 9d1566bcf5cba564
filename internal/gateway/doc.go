// Package gateway is the HTTP side of Sluice: it sells calls to inference
// servers for prepaid Lightning credit.
//
// paid.go tells the life of a paid request from top to bottom, and names the file of each
// step: who asks and for what, the most that the request can cost, whether it is allowed,
// the hold or the 402, a slot of a backend, the answer while it is metered, the settlement,
// and the end of the answer. endpoints.go has the endpoints about models and accounts.
// admin.go and operator.go have the operator's endpoints. Package intake bounds what one
// process serves at once.
//
// cmd/gateway uses the package in this way:
//
//	gw, err := gateway.New(gateway.Config{Services: …, Ledger: …, …})
//	srv, err := intake.NewServer(intake.ServerConfig{Handler: gw.Handler()})
//	go srv.Serve(listener)
//	…
//	err = gw.Drain(ctx, srv) // on SIGTERM
//
// The package declares the interfaces that it needs, such as Invoicer, and never imports a
// store or lnd.
package gateway
