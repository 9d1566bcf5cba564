//go:build !unix

package gpu

import "syscall"

// closedByPeer cannot be asked here; a connection that closed while idle shows
// when the request is written.
func closedByPeer(syscall.RawConn, bool) bool { return false }
