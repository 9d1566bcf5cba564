//go:build !linux

package gpu

import "syscall"

// resetFollows returns false, because this system cannot be asked. So a request that was written counts
// as taken.
func resetFollows(syscall.RawConn) bool { return false }
