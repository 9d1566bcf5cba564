package gpu

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tcpClosed is TCP_CLOSE of Linux's tcp_states.h. A connection that was reset is in this state. A
// connection on which only the stream ended is in TCP_CLOSE_WAIT.
const tcpClosed = 7

// resetFollows says whether the peer, whose end of stream was read, answers within about 20 ms with a
// reset to what was written to it.
func resetFollows(raw syscall.RawConn) bool {
	for range 10 {
		state := uint8(0)
		err := raw.Control(func(fd uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				state = info.State
			}
		})
		if err != nil || state == tcpClosed {
			return err == nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return false
}
