// Package conformance contains only tests. They run the official SDKs for Go and JavaScript against
// a gateway with a scripted backend.
package conformance
