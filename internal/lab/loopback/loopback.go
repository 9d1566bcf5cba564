// Package loopback finds addresses for servers in other processes, which must be told where to
// listen. A server in this process does not need it, because it can listen on port 0.
package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports are drawn at random from first to last. Systems take the ports for outgoing connections and
// for listeners on port 0 from higher ranges (Linux: from 32768 on; IANA: from 49152 on). A port
// from those ranges could be taken before the server listens on it, or while a killed server is
// started again.
const (
	first = 18_000
	last  = 31_999
)

var (
	mu    sync.Mutex
	drawn = make(map[int]bool)
)

// FreeAddresses returns n addresses from FreeAddress.
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

// FreeAddress returns an address on 127.0.0.1 that no process listens on. It never returns the same
// address twice in one process.
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
