// Package e2e tests the built binaries from outside, against real daemons.
//
// TestMain builds gateway and agent-client, starts one `gateway demo` (btcd, two
// lnds with a channel, an inference server, a gateway) and the lab, a gateway
// of the test's own before an inference server that misbehaves on request. All
// tests share both:
//
//	k := lab.buy(t, 20_000)                        // a real payment over the channel
//	s := lab.stream(t, k, chat("model", `"plain"`), header("X-Fault", "cut:5"))
//	got := s.readAll()                             // every event, the cost comment
//	entry := lab.entry(t, k, s.requestID())        // what /l402/usage says
//	truth := lab.truth(t, s.caseID())              // what the inference server really did
//
// What would disturb others (other keys, another store, a kill) starts a gateway
// of its own with startGateway. What moves the demo's price does not run in
// parallel, and brings it back to its floor. At the end the demo is interrupted; a process
// left behind fails the tests.
package e2e
