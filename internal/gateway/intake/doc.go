// Package intake bounds what one process takes on at once, at a time when the gateway knows only
// who sent a request. It bounds connections and their buffers (Connections), requests being served
// (Places), bodies in memory (Bodies), and challenges by address, network and account (Limiter).
// Addresses finds where a request comes from. Presence tells a client that hung up from a client
// that has only closed its sending side. NewServer makes the server of a listener; its certificates
// are read again when they change.
//
// Requests, bodies and invoices of callers without a token are bounded separately, so that a flood
// of such callers takes nothing from callers who pay.
package intake
