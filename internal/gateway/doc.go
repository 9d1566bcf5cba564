// Package gateway is the HTTP side of Sluice: it sells calls to inference
// servers for prepaid Lightning credit.
//
// paid.go tells the life of a paid request from top to bottom, each step with the file
// that it is in: who asks and what for, what it costs at most, whether it may be, the hold
// or the 402, a slot, the answer as it is metered, the settlement, the end of the answer.
// The endpoints about models and accounts are in endpoints.go, the operator's in admin.go
// and operator.go, and package intake bounds what one process takes on at once.
//
// The happy path of its user, cmd/gateway:
//
//	gw, err := gateway.New(gateway.Config{Services: …, Ledger: …, …})
//	srv, err := intake.NewServer(intake.ServerConfig{Handler: gw.Handler()})
//	go srv.Serve(listener)
//	…
//	err = gw.Drain(ctx, srv) // on SIGTERM
//
// The package states the interfaces it needs (Invoicer) and never imports a
// store or lnd.
package gateway
