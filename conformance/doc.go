// Package conformance has no code of its own: its tests run the official SDKs, for
// Go and JavaScript, against a gateway with a scripted backend.
package conformance
