//go:build !linux

package intake

import "net"

// sendingSide cannot be asked here: a client that sends no more counts as gone.
func sendingSide(*net.TCPConn) side { return sideUnknown }
