// Package problem is what the gateway answers itself: problems in the form of RFC 9457, in
// the words that the SDKs of each API read. For is the one table from errors to answers:
//
//	if err := handle(x); err != nil {
//		problem.For(err).WriteAs(w, problem.OpenAI)
//	}
//
// A problem is an error, so that each step of a request can return one.
package problem
