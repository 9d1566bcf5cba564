// Package problem has the answers that the gateway itself gives: problems in the form of RFC 9457,
// with the members that the SDKs of each API read. For maps every error to its answer:
//
//	if err := handle(x); err != nil {
//		problem.For(err).WriteAs(w, problem.OpenAI)
//	}
//
// A Problem is an error, so that each step of a request can return one.
package problem
