// Package loopback finds addresses for servers that are told where to listen.
// A server of this process listens on port 0 instead, and needs none of it.
package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports are drawn from first to last. They lie below those that systems give to
// outgoing connections and to listeners on port 0 (Linux: from 32768 on; IANA: from
// 49152 on), one of which would take the port before its server listens, or while a
// server that was killed is started again.
const (
	first = 18_000
	last  = 31_999
)

var (
	mu    sync.Mutex
	drawn = make(map[int]bool)
)

// FreeAddresses are n of them.
func FreeAddresses(n int) ([]string, error) {
	addresses := make([]string, n)
	for i := range addresses {
		var err error
		if addresses[i], err = FreeAddress(); err != nil {
			return nil, err
		}
	}
	return addresses, nil
}

// FreeAddress is an address on 127.0.0.1 that nobody listens on, and that this
// process was not given before.
func FreeAddress() (string, error) {
	mu.Lock()
	defer mu.Unlock()
	var refused error
	for range 100 {
		port := first + rand.IntN(last-first+1)
		if drawn[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			refused = err
			continue
		}
		drawn[port] = true
		return l.Addr().String(), l.Close()
	}
	return "", fmt.Errorf("no free port from %d to %d on 127.0.0.1: %w", first, last, refused)
}
