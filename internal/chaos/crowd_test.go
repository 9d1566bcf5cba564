package chaos

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/internal/store/pgtest"
)

// TestCrowd has 200 callers at once on an account that is good for 50, ten times
// in a row: exactly 50 are answered.
func TestCrowd(t *testing.T) {
	t.Parallel()
	till, backend := meet(t), quick(t)
	t.Run("SQLite", func(t *testing.T) {
		g := site.Gateway(t, till.Settings(backend.URL))
		crowds(t, till, g)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		settings := till.Settings(backend.URL)
		settings.Store = pgtest.Start(t)
		gateways := []*Gateway{site.Gateway(t, settings), site.Gateway(t, settings), site.Gateway(t, settings)}
		t.Run("one gateway", func(t *testing.T) { crowds(t, till, gateways[0]) })
		t.Run("three gateways", func(t *testing.T) { crowds(t, till, gateways...) })
	})
}

func crowds(t *testing.T, till *Till, gateways ...*Gateway) {
	t.Helper()
	accounts := buyMany(t, till, gateways[0], 10, 50*FlatPrice)
	for i, k := range accounts {
		began := time.Now()
		seen := crowd(gateways, k, 200)
		paid, short := 0, 0
		for _, s := range seen {
			switch {
			case s.Status == http.StatusOK && s.Whole && s.Cost == FlatPrice:
				paid++
			case s.Status == http.StatusPaymentRequired:
				short++
			}
		}
		if paid != 50 || short != 150 {
			t.Errorf("run %d: %d answered and %d refused with 402, want 50 and 150: %s", i, paid, short, Summary(seen))
			odd := slices.DeleteFunc(seen, func(s Seen) bool { return s.Paid() || s.Status == http.StatusPaymentRequired })
			for _, s := range odd[:min(3, len(odd))] {
				t.Log(s)
			}
		}
		for _, g := range gateways {
			if b := g.Idle(t, k, 10*time.Second); b.Available != 0 || b.Charged != k.Paid {
				t.Errorf("run %d: afterwards %+v, want all of it charged", i, b)
			}
		}
		t.Logf("run %d took %s", i, time.Since(began).Round(time.Millisecond))
	}
	gateways[0].Verify(t)
}

// crowd sends n requests at once, spread over the gateways.
func crowd(gateways []*Gateway, k Credential, n int) []Seen {
	reconnect(gateways)
	seen := make([]Seen, n)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range seen {
		wg.Go(func() {
			<-start
			seen[i] = gateways[i%len(gateways)].Send(background(), k, Chat("flat", 4, false))
		})
	}
	close(start)
	wg.Wait()
	return seen
}

// reconnect has the next requests open connections of their own. Go's client
// keeps those that it opened in the last rush and did not need; the gateway
// closes them when no header comes in time, and a request sent at that very
// moment is lost.
func reconnect(gateways []*Gateway) {
	for _, g := range gateways {
		g.HTTP.CloseIdleConnections()
	}
}
