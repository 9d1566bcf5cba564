package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/lab/labtest"
)

// slowServer is an inference server of a test's own, at a pace at which the
// answers take a while.
func slowServer(t testing.TB, tokensPerSecond float64) (*inference.Server, func(*setup)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	server, url, err := startInference(ctx, inference.Config{TokensPerSecond: tokensPerSecond, Record: true, AllowFaults: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cancel)
	return server, func(s *setup) { s.BackendURL = url }
}

// TestDrain tells a gateway to end while a stream is open: it is finished and
// charged, nothing new is begun.
func TestDrain(t *testing.T) {
	t.Parallel()
	_, slow := slowServer(t, 80)
	g := startGateway(t, slow)
	k := g.buy(t, 20_000)
	s := g.stream(t, k, chat("max_tokens", "200"))
	s.read(10)
	g.signal(t, syscall.SIGTERM)
	labtest.Eventually(t, 5*time.Second, "new requests are refused", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		fresh := newGateway(g.URL, g.gateway.Admin, g.Token) // a connection of its own
		resp, err := fresh.Open(ctx, http.MethodPost, chatPath, chat(), k.header())
		if err != nil {
			return nil
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable {
			return nil
		}
		return fmt.Errorf("status %d", resp.StatusCode)
	})
	if !g.server.Running() {
		t.Fatal("the gateway ended under an open stream")
	}
	e := s.rest()
	e.complete(t)
	if e.cost < 4*200 {
		t.Errorf("the stream cost %d msat, less than its tokens", e.cost)
	}
	select {
	case <-g.server.Process().Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the gateway did not end after its last stream")
	}
	if exit := g.server.Process().Exit().Error(); !strings.Contains(exit, "(exit status 0)") {
		t.Error(exit)
	}
	g.restart(t)
	if c := g.entry(t, k, s.requestID()); c.Charged != e.cost || c.Outcome != "complete" {
		t.Errorf("the ledger says %+v, the stream %d msat", c, e.cost)
	}
	g.verify(t)
}

// TestDrainCutsWhatTakesTooLong charges what was delivered until then.
func TestDrainCutsWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	_, slow := slowServer(t, 80)
	g := startGateway(t, slow, func(s *setup) { s.Drain = "1s" })
	k := g.buy(t, 20_000)
	s := g.stream(t, k, chat("max_tokens", "200"), "X-Fault", "stall:9")
	s.read(9)
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	e := s.rest()
	if e.outcome != "drained" || strings.Contains(e.raw, "[DONE]") {
		t.Errorf("the stream ended %q:\n%s", e.outcome, tail(e.raw))
	}
	g.restart(t)
	c := g.entry(t, k, s.requestID())
	wantPriced(t, c)
	if c.Outcome != "drained" || c.Usage.Output != 8 || c.Charged != e.cost || c.Provisional {
		t.Errorf("the ledger says %+v, the stream %d msat for 8 tokens", c, e.cost)
	}
	g.verify(t)
}

// TestKillWithOpenStreams kills a gateway at its default settings. After it is
// up again, no hold is older than 30 seconds, and each stream was charged with
// what was known of it at its last renewal.
func TestKillWithOpenStreams(t *testing.T) {
	t.Parallel()
	const (
		streams = 12
		pace    = 20
	)
	_, slow := slowServer(t, pace)
	g := startGateway(t, slow)
	k := g.buy(t, 100_000)
	open := make([]*stream, streams)
	for i := range open {
		open[i] = g.stream(t, k, chat("max_tokens", "256"))
	}
	// As many events as a renewal and a half take at this pace.
	var wg sync.WaitGroup
	for _, s := range open {
		wg.Go(func() {
			for range pace * 15 / 2 {
				s.event()
			}
		})
	}
	wg.Wait()
	before := g.balance(t, k)
	g.kill(t)
	read := make([]int64, streams)
	for i, s := range open {
		n, _ := s.ended(false).content(t)
		read[i] = int64(n)
	}
	if before.Held <= 0 {
		t.Fatalf("nothing was held: %+v", before)
	}
	g.restart(t)
	restarted := time.Now()
	if got := g.balance(t, k); got.Held != before.Held || got.Available != before.Available {
		t.Errorf("a restart changed the balance from %+v to %+v", before, got)
	}
	labtest.Eventually(t, 30*time.Second, "all holds of the dead gateway end", func() error {
		if b := g.balance(t, k); b.Held != 0 {
			return fmt.Errorf("%d msat are held", b.Held)
		}
		return nil
	})
	t.Logf("all holds ended %s after the restart", time.Since(restarted).Round(100*time.Millisecond))
	sum := int64(0)
	for i, s := range open {
		c := g.entry(t, k, s.requestID())
		wantPriced(t, c)
		sum += c.Charged
		lost := read[i] - c.Usage.Output // of at most one renewal (5 s)
		if !c.Provisional || c.Outcome != "swept" || lost < -pace || lost > pace*7 || c.Usage.Output == 0 {
			t.Errorf("of %d tokens read %d were charged: %+v", read[i], c.Usage.Output, c)
		}
	}
	if b := g.idle(t, k); b.Charged != sum || b.Held != 0 {
		t.Errorf("charged %d msat in all, the streams %d", b.Charged, sum)
	}
	g.verify(t)
}

// TestStalledClientIsLetGo frees the backend of a client that takes nothing.
func TestStalledClientIsLetGo(t *testing.T) {
	t.Parallel()
	server, slow := slowServer(t, 30)
	g := startGateway(t, slow, func(s *setup) { s.Sale += "limits: {write_stall: 1s}\n" })
	k := g.buy(t, 20_000)
	// The event is more than the sender's buffer takes, and the receiver's is
	// kept small.
	narrow := g.over(t, &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if tcp, ok := conn.(*net.TCPConn); ok {
			err = tcp.SetReadBuffer(16 << 10)
		}
		return conn, err
	}})
	s := narrow.stream(t, k, chat("max_tokens", "250"), "X-Fault", "huge-line:8000000")
	labtest.Eventually(t, 15*time.Second, "the backend is free again", func() error {
		for _, r := range server.Requests() {
			if r.Path == chatPath && r.Outcome == "cancelled" {
				return nil
			}
		}
		return fmt.Errorf("it still runs")
	})
	c := g.entry(t, k, s.requestID())
	if c.Outcome != "client_gone" || c.Usage.Output > 2 {
		t.Errorf("the ledger says %+v", c)
	}
	g.idle(t, k)
}
