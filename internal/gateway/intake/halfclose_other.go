//go:build !linux

package intake

import "net"

// sendingSide returns sideUnknown, because the state is known only on Linux. So a client that
// closes its sending side counts as gone.
func sendingSide(*net.TCPConn) side { return sideUnknown }
