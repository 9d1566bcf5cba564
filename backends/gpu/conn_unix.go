//go:build unix

package gpu

import "syscall"

// closedByPeer says whether the peer has ended the stream or the connection has an error. It looks at
// the receive buffer and takes nothing from it. With anyData, data in the buffer counts as an end too
// (for example a closing TLS alert, or a 408 that nobody asked for). It uses Control and not Read,
// because a reader always waits on the connection.
func closedByPeer(raw syscall.RawConn, anyData bool) bool {
	closed := false
	err := raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch err {
		case nil:
			closed = n == 0 || anyData
		case syscall.EAGAIN, syscall.EINTR:
		default:
			closed = true
		}
	})
	return closed || err != nil
}
