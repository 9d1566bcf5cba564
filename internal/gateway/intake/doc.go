// Package intake bounds what one process takes on at once, before anything is known of a
// request but who sends it: connections and their buffers (connections.go), requests that
// are served (Places), bodies in memory (Bodies), challenges by address, network and account
// (Limiter). It tells where a request comes from (Addresses), and a client that hung up from
// one that only sends no more (Presence). NewServer makes the server of a listener, with
// certificates that are read again when they change.
//
// Strangers have a part of their own everywhere, so that a flood of them takes nothing from
// callers who pay.
package intake
