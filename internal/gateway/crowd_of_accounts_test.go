package gateway_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"
	_ "modernc.org/sqlite" // the driver, for counting rows

	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// rows returns the number of rows in tables of the ledger's database.
func (r *rig) rows(tables ...string) map[string]int {
	r.t.Helper()
	db, err := sql.Open("sqlite", "file:"+r.path+"?mode=ro")
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	counts := map[string]int{}
	for _, table := range tables {
		var n int
		if err := db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
			r.t.Fatal(err)
		}
		counts[table] = n
	}
	return counts
}

// TestFreshBudgetsLeaveNoRows: a holder delegates 100,000 times, at full size. Each part is too poor
// for any request, and leaves no row.
func TestFreshBudgetsLeaveNoRows(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.backend = func(b *gpuBackend) { b.Slots = 64 }
	})
	k, other := r.buy(minPurchase), r.buy(1_000_000)
	r.balance(k)
	r.balance(other)
	n := 2_000
	if *fullSize {
		n = 100_000
	}
	before, memoryBefore, invoices := r.rows("budgets", "holds", "transfers", "accounts"), memory(), r.node.count()
	started := time.Now()
	var answers [600]atomic.Int64
	var next atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				m, err := l402.Attenuate(k.macaroon, fmt.Sprintf("inference_budget_msat=%d", 1+i%20), fmt.Sprintf("inference_label=%d", i))
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := r.client.Do(r.newRequest("POST", chatPath, request(), header{"Authorization": l402.FormatCredential(m, k.preimage)}))
				if err != nil {
					t.Error(err)
					return
				}
				drainBody(resp)
				answers[resp.StatusCode].Add(1)
			}
		})
	}
	all.Wait()
	paid, limited := answers[http.StatusPaymentRequired].Load(), answers[http.StatusTooManyRequests].Load()
	if paid+limited != int64(n) {
		t.Errorf("%d answers of 402 and %d of 429 to %d requests", paid, limited, n)
	}
	account := intake.DefaultChallengeLimits().Account
	most := account.Burst + int(account.PerSecond*time.Since(started).Seconds()) + 1
	if made := r.node.count() - invoices; made > most {
		t.Errorf("%d invoices were made, want at most %d", made, most)
	}
	if after := r.rows("budgets", "holds", "transfers", "accounts"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("rows were %v and are %v", before, after)
	}
	if grown := memory() - memoryBefore; grown > 48<<20 {
		t.Errorf("memory grew by %d bytes", grown)
	}
	r.wantServed(other)
	t.Logf("%d fresh budgets in %v: %d were challenged, %d limited", n, time.Since(started), paid, limited)
}

// overlong makes a correctly signed token with more caveats than the functions of l402 allow.
func overlong(t *testing.T, k token, n int, condition string) string {
	t.Helper()
	m := new(macaroon.Macaroon)
	if err := m.UnmarshalBinary(k.macaroon); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := m.AddFirstPartyCaveat([]byte(fmt.Sprintf(condition, i))); err != nil {
			t.Fatal(err)
		}
	}
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return "L402 " + b64(b) + ":" + k.preimage.Hex()
}

func TestThousandCaveatsAreRefused(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	r.balance(k)
	before := r.rows("budgets", "holds")
	for _, c := range []struct {
		n         int
		condition string
	}{
		{1000, "inference_label=%d"}, {1000, "inference_budget_msat=%d"}, {1000, "x%d"},
		{17, "inference_label=%d"}, {17, "other_thing=%d"}, {5, "inference_budget_msat=1%d"}, {3000, "preimage=%d"},
	} {
		started := time.Now()
		a := r.do("POST", chatPath, request(), header{"Authorization": overlong(t, k, c.n, c.condition)})
		switch a.status {
		case http.StatusPaymentRequired, http.StatusForbidden: // the token does not count, or is not allowed
		case http.StatusRequestHeaderFieldsTooLarge:
		default:
			t.Errorf("%d of %s: status %d\n%s", c.n, c.condition, a.status, a.body)
		}
		if took := time.Since(started); took > time.Second {
			t.Errorf("%d of %s took %v", c.n, c.condition, took)
		}
	}
	if after := r.rows("budgets", "holds"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("rows were %v and are %v", before, after)
	}
	r.wantSpent(k, 0)
}

// TestEmptyAccountsDoNotQueue: a caller without money is refused at once and never waits in the queue.
func TestEmptyAccountsDoNotQueue(t *testing.T) {
	r := newRig(t, slow(20, ""), func(s *setup) {
		s.backend = func(b *gpuBackend) { b.Slots = 1 }
		s.pool = func(p *gpuPool) { p.QueueLimit, p.QueueTimeout = 4, 20*time.Second }
	})
	k, other := r.buy(1_000_000), r.buy(1_000_000)
	r.balance(other)
	running := r.open(t.Context(), "POST", chatPath, request("stream", "true", "max_tokens", "200"), k.with())
	defer running.Body.Close()
	readEvents(t, running.Body, 1)
	var all sync.WaitGroup
	var waited atomic.Bool
	for i := range 60 {
		all.Go(func() {
			m, err := l402.Attenuate(other.macaroon, "inference_budget_msat=1", fmt.Sprintf("inference_label=%d", i))
			if err != nil {
				t.Error(err)
				return
			}
			started := time.Now()
			resp, err := r.client.Do(r.newRequest("POST", chatPath, request(), header{"Authorization": l402.FormatCredential(m, other.preimage)}))
			if err != nil {
				t.Error(err)
				return
			}
			drainBody(resp)
			if resp.StatusCode != http.StatusPaymentRequired && resp.StatusCode != http.StatusTooManyRequests {
				t.Errorf("status %d", resp.StatusCode)
			}
			if time.Since(started) > 4*time.Second {
				waited.Store(true)
			}
		})
	}
	all.Wait()
	if s := r.fleet.Pools()[0]; waited.Load() || s.Waiting != 0 || s.Admitted != 0 {
		t.Errorf("waited %v, status %+v", waited.Load(), s)
	}
	running.Body.Close()
	r.idle(k)
	if a := r.chat(other, request("max_tokens", "4")); a.status != http.StatusOK {
		t.Errorf("status %d", a.status)
	}
}

// TestEmptyAccountsKeepNoPlace: while invoices are made for empty accounts, which may take long, their
// requests occupy no place that a caller with money could have.
func TestEmptyAccountsKeepNoPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t, slow(50, ""), func(s *setup) {
		s.backend = func(b *gpuBackend) { b.Slots = 1 }
		s.pool = func(p *gpuPool) { p.QueueLimit, p.QueueTimeout = 1, 20*time.Second }
	})
	k, other := r.buy(1_000_000), r.buy(1_000_000)
	poor := make([]token, 8)
	for i := range poor {
		poor[i] = r.buy(minPurchase)
	}
	running := r.open(t.Context(), "POST", chatPath, request("stream", "true", "max_tokens", "100"), k.with())
	defer running.Body.Close()
	readEvents(t, running.Body, 1)
	made := r.metric(`sluice_http_in_flight`)
	r.node.takes = time.Second
	var all sync.WaitGroup
	for _, p := range poor {
		all.Go(func() {
			resp, err := r.client.Do(r.newRequest("POST", chatPath, request("max_tokens", "256", "n", "120"), p.with()))
			if err != nil {
				t.Error(err)
				return
			}
			drainBody(resp)
			if resp.StatusCode != http.StatusPaymentRequired {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	r.until("they all ask", func() bool { return r.metric(`sluice_http_in_flight`) == made+float64(len(poor)) })
	if a := r.chat(other, request("max_tokens", "4")); a.status != http.StatusOK {
		t.Errorf("status %d\n%s", a.status, a.body)
	}
	all.Wait()
}

// TestOneAccountCannotKeepTheQueue: one account fills the queue. Another account then gets a place,
// and is served in its turn.
func TestOneAccountCannotKeepTheQueue(t *testing.T) {
	t.Parallel()
	r := newRig(t, slow(100, ""), func(s *setup) {
		s.backend = func(b *gpuBackend) { b.Slots = 1 }
		s.pool = func(p *gpuPool) { p.QueueLimit, p.QueueTimeout = 6, 20*time.Second }
	})
	greedy, modest := r.buy(1_000_000), r.buy(1_000_000)
	r.balance(greedy)
	r.balance(modest)
	var all sync.WaitGroup
	var served, refused, before atomic.Int64
	ask := func() {
		resp, err := r.client.Do(r.newRequest("POST", chatPath, request("max_tokens", "20"), greedy.with()))
		if err != nil {
			t.Error(err)
			return
		}
		drainBody(resp)
		switch resp.StatusCode {
		case http.StatusOK:
			served.Add(1)
		case http.StatusTooManyRequests:
			refused.Add(1)
			if !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem") || resp.Header.Get("Retry-After") == "" {
				t.Errorf("refused with %v", resp.Header)
			}
		default:
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	for range 7 {
		all.Go(ask)
	}
	r.until("the queue is full", func() bool { return r.fleet.Pools()[0].Waiting == 6 })
	a := r.chat(modest, request("max_tokens", "20"))
	before.Store(served.Load())
	if a.status != http.StatusOK {
		t.Fatalf("the other account got %d\n%s", a.status, a.body)
	}
	if n := before.Load(); n > 4 {
		t.Errorf("%d requests were served before it", n)
	}
	all.Wait()
	if served.Load() != 6 || refused.Load() != 1 {
		t.Errorf("%d were served and %d refused, want 6 and 1", served.Load(), refused.Load())
	}
	r.idle(greedy)
	charges := 0
	for _, e := range r.usage(greedy) {
		if e.Outcome == metering.OutcomeComplete {
			charges++
		} else if e.Charged != 0 {
			t.Errorf("charged for %+v", e)
		}
	}
	if charges != 6 {
		t.Errorf("%d charges", charges)
	}
}
