//go:build !unix

package gpu

import "syscall"

// closedByPeer returns false, because this system cannot be asked. The gateway notices that a
// connection was closed while idle when it writes the request.
func closedByPeer(syscall.RawConn, bool) bool { return false }
