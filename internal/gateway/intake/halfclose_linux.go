package intake

import (
	"net"

	"golang.org/x/sys/unix"
)

// These are the states of Linux's tcp_states.h for a connection on which the gateway can still send.
const (
	tcpEstablished = 1
	tcpCloseWait   = 8
)

// sendingSide asks the kernel for the state of the direction in which the peer sends.
func sendingSide(conn *net.TCPConn) side {
	raw, err := conn.SyscallConn()
	if err != nil {
		return sideUnknown
	}
	state := uint8(0)
	err = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	switch {
	case err == nil && state == tcpEstablished:
		return sideOpen
	case err == nil && state == tcpCloseWait:
		return sideClosed
	}
	return sideUnknown
}
