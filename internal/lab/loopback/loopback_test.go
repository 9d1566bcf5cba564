package loopback

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

// An address is free, is given only once, and is not in the range from which the system takes
// ports.
func TestFreeAddress(t *testing.T) {
	own := outgoing(t)
	seen := make(map[string]bool)
	for range 200 {
		address, err := FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		if seen[address] {
			t.Errorf("%s was given twice", address)
		}
		seen[address] = true
		host, text, err := net.SplitHostPort(address)
		port, _ := strconv.Atoi(text)
		if err != nil || host != "127.0.0.1" || port >= own {
			t.Fatalf("%s is not below the system's own ports, from %d on", address, own)
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
}

// outgoing returns the first port that the system gives to outgoing connections.
func outgoing(t *testing.T) int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 32_768
	}
	low, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err != nil {
		t.Fatal(err)
	}
	return low
}
