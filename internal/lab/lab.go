// Package lab drives running gateways as their clients and operators do: it
// starts and stops their processes, asks what an account has and was charged,
// and reads the operator's side. The demo, the benchmark and all tests of built
// binaries stand on it:
//
//	s := &lab.Server{Gateway: lab.NewGateway(url, admin, token),
//		Launcher: launcher, Program: "bin/gateway", Config: path, Log: log}
//	err := s.Start(ctx)                         // ready, or the end of the log
//	b, err := s.Balance(ctx, authorization)
//	err = s.Stop()
//
// proc starts processes that do not outlive their parent, loopback finds
// addresses for them, and labtest has what only tests need.
package lab
