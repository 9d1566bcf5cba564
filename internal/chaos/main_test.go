package chaos

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"

	"sluice.example/sluice/internal/devnet/devnettest"
	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/lab/proc"
)

// What all tests share: the binaries and one Lightning network. A test that
// stops a node has a network of its own.
var (
	site    *Site
	network devnettest.Shared
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait more than they work.
	parallel := false
	flag.Visit(func(f *flag.Flag) { parallel = parallel || f.Name == "test.parallel" })
	if !parallel {
		flag.Set("test.parallel", "16")
	}
	var err error
	if site, err = Open(proc.RaceFlags...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := network.Main(m)
	if err := site.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// thorough asks for the long variants.
func thorough() bool { return os.Getenv("SLUICE_CHAOS") == "long" }

// either is the first value in the long variant, else the second.
func either[T any](long, short T) T {
	if thorough() {
		return long
	}
	return short
}

// meet is the shared network's till.
func meet(t *testing.T) *Till { return Meet(t, network.Start(t)) }

// quick is a backend that answers at once.
func quick(t *testing.T) *Backend {
	return NewBackend(t, inference.Config{TokensPerSecond: 4000, Slots: 256, MaxModelLen: 4096})
}

// paced is a backend that takes its time.
func paced(t *testing.T, tokensPerSecond float64) *Backend {
	return NewBackend(t, inference.Config{TokensPerSecond: tokensPerSecond, Slots: 256, MaxModelLen: 4096})
}

// buyMany opens accounts, a few at a time.
func buyMany(t *testing.T, till *Till, g *Gateway, n int, amount int64) []Credential {
	t.Helper()
	accounts := make([]Credential, n)
	var wg sync.WaitGroup
	turns := make(chan struct{}, 8)
	for i := range accounts {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			accounts[i] = till.Buy(t, g, amount)
		})
	}
	wg.Wait()
	return accounts
}

// background is for requests whose end the test waits for anyhow.
func background() context.Context { return context.Background() }
