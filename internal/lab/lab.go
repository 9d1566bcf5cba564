// Package lab drives running gateways as their clients and operators do. It starts and stops their
// processes, asks for balances and charges, and uses the operator's API. The demo, the benchmark
// and all tests of built binaries use it:
//
//	s := &lab.Server{Gateway: lab.NewGateway(url, admin, token),
//		Launcher: launcher, Program: "bin/gateway", Config: path, Log: log}
//	err := s.Start(ctx)                         // ready, or the end of the log
//	b, err := s.Balance(ctx, authorization)
//	err = s.Stop()
//
// Package proc starts processes that end with their parent. Package loopback finds addresses for
// them. Package labtest has helpers that only tests need.
package lab
