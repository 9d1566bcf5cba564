// Package devnettest gives tests a local Lightning network. A network takes about ten seconds to
// start, so the tests of a package share one:
//
//	var lightningNetwork devnettest.Shared
//
//	func TestMain(m *testing.M) { os.Exit(lightningNetwork.Main(m)) }
//
//	func TestSomething(t *testing.T) {
//		network := lightningNetwork.Start(t)
//		...
//	}
//
// The first test that calls Start starts the network. When the daemons cannot be found or built,
// the test fails. It is never skipped.
package devnettest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"

	"sluice.example/sluice/internal/devnet"
	"sluice.example/sluice/internal/lightning"
)

// Shared is one network for all tests of a process. Its zero value is ready to use.
type Shared struct {
	once    sync.Once
	dir     string
	network *devnet.Network
	err     error
}

// Start returns the network. It starts the network if no earlier test has.
func (s *Shared) Start(tb testing.TB) *devnet.Network {
	tb.Helper()
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp("", "sluice-devnet-"); s.err == nil {
			s.network, s.err = devnet.Start(context.Background(), devnet.Config{Dir: s.dir, Out: os.Stderr})
		}
	})
	if s.err != nil {
		tb.Fatal(s.err)
	}
	return s.network
}

// Main runs the tests, stops the network if a test started it, and returns the exit status.
func (s *Shared) Main(m *testing.M) int {
	code := m.Run()
	if s.network != nil {
		if err := s.network.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the Lightning network:", err)
			code = max(code, 1)
		}
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
	return code
}

// Seller connects to the gateway's node with only the rights that a seller needs.
func Seller(tb testing.TB, n *devnet.Network) *lightning.Client {
	tb.Helper()
	cfg, err := n.Gateway.SellerConfig()
	return dial(tb, cfg, err)
}

// Wallet connects to a node with all rights.
func Wallet(tb testing.TB, n *devnet.Node) *lightning.Client {
	tb.Helper()
	cfg, err := n.AdminConfig()
	return dial(tb, cfg, err)
}

func dial(tb testing.TB, cfg lightning.Config, err error) *lightning.Client {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	c, err := lightning.Dial(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}
