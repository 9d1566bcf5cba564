package chaos

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/l402/client"
)

// One stream of a test that kills its gateway.
type victim struct {
	account Credential
	request atomic.Pointer[string]
	mu      sync.Mutex
	at      []time.Time // when each token came
}

// watch reads a stream until it breaks.
func (v *victim) watch(g *Gateway, tokens int) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	resp, err := g.Open(ctx, http.MethodPost, ChatPath, Chat("demo", tokens, true), v.account.Header())
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if id := resp.Header.Get("L402-Request-Id"); resp.StatusCode == http.StatusOK {
		v.request.Store(&id)
	}
	for events := client.NewEventReader(resp.Body); ; {
		event, err := events.Next()
		if err != nil {
			return
		}
		if hasText(event) {
			v.mu.Lock()
			v.at = append(v.at, time.Now())
			v.mu.Unlock()
		}
	}
}

// tokens counts what had come by a moment.
func (v *victim) tokens(by time.Time) (n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, at := range v.at {
		if !at.After(by) {
			n++
		}
	}
	return n
}

// renewal is how often a gateway at its defaults writes down what its streams
// have used.
const renewal = 5 * time.Second

// TestKill kills a gateway with 64 paid streams open, each of an account of its
// own. No hold is left 30 s after it is up again; each account was charged at
// most its hold, and at least what the last renewal wrote down.
func TestKill(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		till := meet(t)
		g := site.Gateway(t, till.Settings(paced(t, 12).URL))
		kill(t, till, g, func() *Gateway {
			g.Restart(t)
			return g
		})
	})
	// The accounts are another gateway's to serve at once, and to sweep.
	t.Run("PostgreSQL with a survivor", func(t *testing.T) {
		t.Parallel()
		till := meet(t)
		settings := till.Settings(paced(t, 12).URL)
		settings.Store = pgtest.Start(t)
		g, survivor := site.Gateway(t, settings), site.Gateway(t, settings)
		kill(t, till, g, func() *Gateway { return survivor })
	})
}

func kill(t *testing.T, till *Till, g *Gateway, next func() *Gateway) {
	const streams, tokens, deposit = 64, 800, 4000
	victims := make([]*victim, streams)
	for i, k := range buyMany(t, till, g, streams, deposit) {
		victims[i] = &victim{account: k}
	}
	var watching sync.WaitGroup
	for _, v := range victims {
		watching.Go(func() { v.watch(g, tokens) })
	}
	// Long enough for one renewal at least to have written down some tokens.
	labtest.Eventually(t, 60*time.Second, "all streams have run through a renewal", func() error {
		for i, v := range victims {
			if n := v.tokens(time.Now().Add(-renewal - 2*time.Second)); n < 5 {
				return fmt.Errorf("stream %d has read %d tokens before that", i, n)
			}
		}
		return nil
	})
	held := make([]int64, streams)
	for i, v := range victims {
		if b := g.Balance(t, v.account); b.Held <= 0 || b.Available+b.Held != deposit {
			t.Errorf("account %d with an open stream: %+v", i, b)
		} else {
			held[i] = b.Held
		}
	}
	killed := time.Now()
	g.Kill(t)
	watching.Wait()
	heir := next()
	up := time.Now()
	for _, v := range victims {
		heir.Idle(t, v.account, time.Until(up.Add(30*time.Second)))
	}
	t.Logf("all %d holds ended %s after a gateway was up", streams, time.Since(up).Round(100*time.Millisecond))
	lost := int64(0)
	for i, v := range victims {
		charges := heir.Charges(t, v.account)
		c, ok := charges[*v.request.Load()]
		// What was read a renewal before the kill, and a second for a slow
		// machine, has been written down.
		least, most := 4*v.tokens(killed.Add(-renewal-time.Second)), v.tokens(killed.Add(time.Minute))
		if !ok || len(charges) != 1 || c.Charged > held[i] || c.Charged < least || c.Outcome != "swept" || !c.Provisional {
			t.Errorf("account %d held %d msat, its last renewal said at least %d; charges: %+v", i, held[i], least, charges)
		}
		if c.Charged != c.Usage.Input+4*c.Usage.Output {
			t.Errorf("account %d: charged %d msat for %d + %d tokens", i, c.Charged, c.Usage.Input, c.Usage.Output)
		}
		if b := heir.Balance(t, v.account); b.Available != deposit-c.Charged || b.Charged != c.Charged {
			t.Errorf("account %d: %+v after a charge of %d", i, b, c.Charged)
		}
		lost += most - c.Usage.Output
	}
	t.Logf("of the tokens read, %.1f per stream were not charged", float64(lost)/streams)
	heir.Verify(t)
}

// TestKillUnderLoad kills a gateway on SQLite again and again while clients are
// served: what a client was told it paid stands in the books, and what it was not
// told is charged at most once.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	till := meet(t)
	settings := till.Settings(paced(t, 200).URL)
	settings.Lease, settings.Renew = "3s", "1s"
	g := site.Gateway(t, settings)
	accounts := buyMany(t, till, g, 4, 1_000_000)
	load := Start(Plan{Gateways: []*Gateway{g}, Accounts: accounts, Callers: 16,
		Asks: []string{Chat("flat", 4, false), Chat("demo", 24, true), Chat("demo", 100, true), Chat("demo", 8, false)}})
	for range either(20, 5) {
		load.AwaitPaid(t, 0, 40, 30*time.Second)
		g.Kill(t)
		g.Restart(t)
	}
	seen := load.Stop()
	t.Log(Summary(seen))
	for _, s := range seen {
		if lost := s.Err != nil || s.Status == http.StatusOK && !s.Whole; !lost && !s.Paid() && !s.Refused() {
			t.Errorf("neither paid, refused nor cut by the kill: %s", s)
		}
	}
	Reconcile(t, seen, g, accounts...)
}
