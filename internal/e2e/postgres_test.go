package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/internal/store/pgtest"
)

// saleByCall sells demo, and flat at a fixed price: what is held is what is
// charged.
const saleByCall = `    models:
      - {name: demo, backends: [one], context_tokens: 4096, max_completion_tokens: 256, min_completion_tokens: 8, prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok}}
      - {name: flat, backends: [one], context_tokens: 4096, max_completion_tokens: 256, pricing: {policy: static}, prices: {call: 500 msat}, queue: {limit: 200, timeout: 30s}}
backends:
  - {name: one, url: «BACKEND», slots: 64, tokenize: true, continuous_usage: true, models: {flat: demo}}
`

// TestPostgres runs two gateways on one PostgreSQL: what is paid at one is
// spent at the other, and never twice.
func TestPostgres(t *testing.T) {
	t.Parallel()
	store, key := pgtest.Start(t), newKey("shared")
	_, fast := slowServer(t, 2000)
	replica := func() *own {
		return startGateway(t, fast, func(s *setup) {
			s.Store, s.Keys, s.Sale = quoted(store), []masterKey{key}, saleByCall
		})
	}
	one := replica()
	two := replica()
	k := one.buy(t, 20_000)
	a := one.post(t, chat(), k.header()).want(t, http.StatusOK)
	request, e := two.all(t, k, chat())
	e.complete(t)
	if c := one.entry(t, k, request); c.Charged != e.cost || c.Outcome != "complete" {
		t.Errorf("the other replica sees %+v of a stream of %d msat", c, e.cost)
	}
	s := two.stream(t, k, chat("max_tokens", "256"), "X-Fault", "stall:6")
	s.read(6)
	s.hangUp()
	left := one.entry(t, k, s.requestID())
	if left.Outcome != "client_gone" || left.Usage.Output != 5 {
		t.Errorf("a stream left after 5 tokens: %+v", left)
	}
	spent := a.msat(t, "L402-Cost-Msat") + e.cost + left.Charged
	for _, g := range []*own{one, two} {
		if b := g.idle(t, k); b.Deposited != 20_000 || b.Charged != spent {
			t.Errorf("%+v, want 20000 deposited and %d charged", b, spent)
		}
	}
	if one.metric(t, `sluice_price_epoch{model="demo"}`) != two.metric(t, `sluice_price_epoch{model="demo"}`) {
		t.Error("the same prices have different epochs on two replicas")
	}
	slow, passed := k.attenuate(t, "inference_rpm=4"), 0
	for i := range 10 {
		a := []*own{one, two}[i%2].post(t, chat("model", `"flat"`, "max_tokens", "2"), slow.header())
		if a.status == http.StatusOK {
			passed++
		} else {
			a.wantProblem(t, http.StatusTooManyRequests, "rate-limited")
		}
	}
	if passed < 4 || passed > 5 { // the minute may turn in between
		t.Errorf("%d of 10 requests passed a limit of 4 per minute on two replicas", passed)
	}
	wantOnly(t, one.buy(t, 10_000), 20, one.gateway, two.gateway)
	one.verify(t)
}

// TestDatabaseRestarts takes PostgreSQL away under an open stream: callers are
// told to come back, the stream goes on, and its charge is made when the
// database is there again.
func TestDatabaseRestarts(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t, true)
	_, slow := slowServer(t, 40)
	g := startGateway(t, slow, func(s *setup) { s.Store = quoted(server.Fresh(t)) })
	k := g.buy(t, 20_000)
	g.post(t, chat(), k.header()).want(t, http.StatusOK)
	s := g.stream(t, k, chat("max_tokens", "120"))
	s.read(5)
	server.Kill()
	away := g.post(t, chat(), k.header())
	if away.status != http.StatusServiceUnavailable || away.header.Get("Retry-After") == "" {
		t.Errorf("without a database: status %d, %v", away.status, away.header)
	}
	s.read(20) // it flows meanwhile
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	e := s.rest()
	e.complete(t)
	if c := g.entry(t, k, s.requestID()); c.Charged != e.cost || c.Usage.Output != 120 {
		t.Errorf("the stream says %d msat, the ledger %+v", e.cost, c)
	}
	labtest.Eventually(t, 10*time.Second, "requests are served again", func() error {
		if a := g.post(t, chat("max_tokens", "2"), k.header()); a.status != http.StatusOK {
			return fmt.Errorf("status %d", a.status)
		}
		return nil
	})
	g.idle(t, k)
	g.verify(t)
}

// TestManyAtOnce has more callers at once than one account can pay for.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	_, fast := slowServer(t, 2000)
	g := startGateway(t, fast, func(s *setup) { s.Sale = saleByCall })
	wantOnly(t, g.buy(t, 10_000), 20, g.gateway)
	g.verify(t)
}

// wantOnly sends four times as many requests at once as the account can pay
// for, spread over the gateways: exactly pass of them pass.
func wantOnly(t *testing.T, k credential, pass int64, gateways ...*gateway) {
	t.Helper()
	var passed, refused, others atomic.Int64
	var odd sync.Map
	var wg sync.WaitGroup
	for i := range 4 * int(pass) {
		wg.Go(func() {
			resp, err := gateways[i%len(gateways)].Open(t.Context(), http.MethodPost, chatPath, chat("model", `"flat"`, "max_tokens", "4"), k.header())
			if err != nil {
				odd.Store(i, err.Error())
				return
			}
			defer resp.Body.Close()
			switch resp.StatusCode {
			case http.StatusOK:
				passed.Add(1)
			case http.StatusPaymentRequired:
				refused.Add(1)
			default:
				others.Add(1)
				odd.Store(i, fmt.Sprintf("status %d", resp.StatusCode))
			}
		})
	}
	wg.Wait()
	if passed.Load() != pass || refused.Load() != 3*pass {
		list := map[any]any{}
		odd.Range(func(i, what any) bool { list[i] = what; return true })
		t.Errorf("%d requests passed, %d got a 402, want %d and %d; the others: %v", passed.Load(), refused.Load(), pass, 3*pass, list)
	}
	for _, g := range gateways {
		if b := g.idle(t, k); b.Available != 0 || b.Charged != k.paid {
			t.Errorf("afterwards: %+v, want all of it charged", b)
		}
	}
}
