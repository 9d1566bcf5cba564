//go:build unix

package gpu

import "syscall"

// closedByPeer looks at the receive buffer without taking from it: the peer's
// end of stream, or an error, is there or not. With anyData, data counts as well
// (a closing TLS alert, an unasked 408). Control and not Read, because a reader
// is always waiting on the connection.
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
