package gateway_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/gateway/intake"
)

func limitChallenges(l intake.ChallengeLimits) func(*setup) {
	return func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.Challenges = &l }
	}
}

func TestFloodFromOneAddressIsLimited(t *testing.T) {
	r := newRig(t)
	k := r.buy(1_000_000)
	limits := intake.DefaultChallengeLimits()
	started := time.Now()
	var made, refused atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 60 {
				resp, err := r.client.Do(r.newRequest("POST", chatPath, request(), nil))
				if err != nil {
					t.Error(err)
					return
				}
				drainBody(resp)
				switch resp.StatusCode {
				case http.StatusPaymentRequired:
					made.Add(1)
				case http.StatusTooManyRequests:
					refused.Add(1)
					if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || n < 1 || n > 60 {
						t.Errorf("Retry-After is %q", resp.Header.Get("Retry-After"))
					}
				default:
					t.Errorf("status %d", resp.StatusCode)
				}
			}
		})
	}
	all.Wait()
	most := limits.Address.Burst + int(limits.Address.PerSecond*time.Since(started).Seconds()) + 1
	if made.Load() > int64(most) || made.Load() < int64(limits.Address.Burst)-1 || refused.Load() == 0 {
		t.Errorf("%d invoices and %d refusals, want at most %d invoices", made.Load(), refused.Load(), most)
	}
	for _, ask := range [][3]string{{"POST", chatPath, request()}, {"GET", "/l402/balance", ""}} {
		a := r.do(ask[0], ask[1], ask[2], nil)
		for range 200 { // the limit allows one every 20 ms
			if a.status != http.StatusTooManyRequests {
				a = r.do(ask[0], ask[1], ask[2], nil)
			}
		}
		a.wantProblem(t, http.StatusTooManyRequests, "rate-limited")
	}
	r.wantServed(k)
	if r.metric(`sluice_challenges_limited_total{level="address"}`) == 0 {
		t.Error("the refusals are not in the metrics")
	}
}

// TestFloodFromManyAddressesIsLimited floods the gateway from many addresses of 127.0.0.0/8, at full
// size 10,000. Each address sends one request, again and again.
func TestFloodFromManyAddressesIsLimited(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	r := newRig(t)
	k := r.buy(1_000_000)
	n := crowd(t, 2_000, 10_000, 1)
	before, started := memory(), time.Now()
	var made, refused, next atomic.Int64
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				c, err := r.dialFrom(fmt.Sprintf("127.%d.%d.1", 1+i%100, i/100))
				if err != nil {
					t.Error(err)
					return
				}
				_, err = fmt.Fprint(c, post(chatPath, header{"Connection": "close"}, request()))
				if err != nil {
					t.Error(err)
				}
				a, err := c.answer(20 * time.Second)
				c.Close()
				switch {
				case err != nil:
					t.Error(err)
				case a.status == http.StatusPaymentRequired:
					made.Add(1)
				case a.status == http.StatusTooManyRequests:
					refused.Add(1)
				default:
					t.Errorf("status %d\n%s", a.status, a.body)
				}
			}
		})
	}
	r.wantServed(k) // during the flood
	all.Wait()
	limits := intake.DefaultChallengeLimits()
	most := limits.Total.Burst + int(limits.Total.PerSecond*time.Since(started).Seconds()) + 1
	if int(made.Load()) > most || made.Load() == 0 || (refused.Load() == 0 && n > 2*most) {
		t.Errorf("%d invoices and %d refusals of %d, want at most %d invoices", made.Load(), refused.Load(), n, most)
	}
	if grown := memory() - before; grown > 32<<20 {
		t.Errorf("memory grew by %d bytes", grown)
	}
	r.wantServed(k)
	t.Logf("%d addresses in %v: %d invoices, %d refused", n, time.Since(started), made.Load(), refused.Load())
}

func TestRefusalDoesNotWaitForTheBody(t *testing.T) {
	t.Parallel()
	r := newRig(t, limitChallenges(intake.ChallengeLimits{Address: intake.Rate{PerSecond: 0.1, Burst: 1}}))
	r.do("POST", chatPath, request(), nil).wantProblem(t, http.StatusPaymentRequired, "payment-required")
	for _, h := range []header{{"Content-Length": "1000"}, {"Content-Length": "8000000"}, {"Transfer-Encoding": "chunked"}, {"Content-Length": "1000", "Expect": "100-continue"}} {
		c := r.dial("")
		c.send(post(chatPath, h, ""))
		a := c.mustAnswer(2 * time.Second)
		a.wantProblem(t, http.StatusTooManyRequests, "rate-limited")
		if n, _ := strconv.Atoi(a.header.Get("Retry-After")); n < 5 || n > 10 {
			t.Errorf("%v: Retry-After %q, want the time until the next token, 10 s at most", h, a.header.Get("Retry-After"))
		}
		if !c.closed(15 * time.Second) {
			t.Errorf("%v: the connection was kept with a body unread", h)
		}
	}
	// A connection with nothing unread is kept.
	c := r.dial("")
	for range 3 {
		c.send("GET /l402/balance HTTP/1.1\r\nHost: gateway\r\n\r\n")
		c.mustAnswer(2*time.Second).wantProblem(t, http.StatusTooManyRequests, "rate-limited")
	}
	r.clock.advance(11 * time.Second)
	r.do("POST", chatPath, request(), nil).wantProblem(t, http.StatusPaymentRequired, "payment-required")
}

func TestHoldersAreNotCountedByAddress(t *testing.T) {
	r := newRig(t, limitChallenges(intake.ChallengeLimits{
		Address: intake.Rate{PerSecond: 0.01, Burst: 1}, Account: intake.Rate{PerSecond: 0.01, Burst: 3}}))
	k := r.buy(minPurchase)
	for range 5 {
		r.do("POST", chatPath, request(), nil).wantProblem(t, http.StatusTooManyRequests, "rate-limited")
	}
	topUp := func(amount int) *answer {
		return r.do("POST", "/l402/topup", fmt.Sprintf(`{"amount_msat":%d}`, amount), k.with())
	}
	for i := range 3 {
		topUp(60_000+1000*i).wantProblem(t, http.StatusPaymentRequired, "payment-required")
	}
	topUp(70_000).wantProblem(t, http.StatusTooManyRequests, "rate-limited")
	topUp(60_000).wantProblem(t, http.StatusPaymentRequired, "payment-required") // the same challenge again, without a new invoice
	// An attenuated copy of the token counts as the same account.
	sub := k.attenuate(t, "inference_label=x")
	r.chat(sub, request("max_tokens", "256", "n", "120")).wantProblem(t, http.StatusTooManyRequests, "rate-limited")
	if a := r.chat(k, request()); a.status != http.StatusOK {
		t.Errorf("a paid request got %d", a.status)
	}
}

func TestManyPoorRequestsAtOnceCostOneInvoice(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.backend = func(b *gpuBackend) { b.Slots = 200 }
	})
	k := r.buy(minPurchase)
	r.node.takes = 50 * time.Millisecond
	var hashes sync.Map
	var all sync.WaitGroup
	for range 150 {
		all.Go(func() {
			resp, err := r.client.Do(r.newRequest("POST", chatPath, request("max_tokens", "256", "n", "120"), k.with()))
			if err != nil {
				t.Error(err)
				return
			}
			hashes.Store(resp.Header.Get("Www-Authenticate"), true)
			drainBody(resp)
			if resp.StatusCode != http.StatusPaymentRequired {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	all.Wait()
	distinct := 0
	hashes.Range(func(any, any) bool { distinct++; return true })
	if made := r.node.count(); made != 2 || distinct != 1 { // the first was paid
		t.Errorf("%d invoices were made and %d challenges given, want one more and one", made-1, distinct)
	}
}

// TestTopUpSucceedsWhileStrangersTakeAllInvoices: without any limit on challenges, and with a node as
// slow as under load, the slots for callers with a token let a paying client through.
func TestTopUpSucceedsWhileStrangersTakeAllInvoices(t *testing.T) {
	r := newRig(t, limitChallenges(intake.ChallengeLimits{}))
	k := r.buy(minPurchase)
	r.node.takes = 80 * time.Millisecond // with 64 at once: 800 invoices per second
	stop := make(chan struct{})
	var asked atomic.Int64
	var strangers sync.WaitGroup
	for range 300 {
		strangers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := r.client.Do(r.newRequest("POST", chatPath, request(), nil))
				if err != nil {
					t.Error(err)
					return
				}
				drainBody(resp)
				asked.Add(1)
			}
		})
	}
	r.until("the flood has begun", func() bool { return asked.Load() > 300 })
	for i := range 8 {
		started := time.Now()
		a := r.do("POST", "/l402/topup", fmt.Sprintf(`{"amount_msat":%d}`, 60_000+1000*i), k.with())
		a.wantProblem(t, http.StatusPaymentRequired, "payment-required")
		if took := time.Since(started); took > 2*time.Second {
			t.Errorf("a top-up took %v", took)
		}
	}
	close(stop)
	strangers.Wait()
}

func TestClientsBehindATrustedProxyAreCountedApart(t *testing.T) {
	limits := intake.ChallengeLimits{Address: intake.Rate{PerSecond: 0.01, Burst: 1}}
	ask := func(r *rig, forwarded string) int {
		return r.do("POST", chatPath, request(), header{"X-Forwarded-For": forwarded}).status
	}
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) {
			c.Challenges, c.TrustedProxies = &limits, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}
	})
	for i, c := range []struct {
		forwarded string
		want      int
	}{
		{"203.0.113.1", 402}, {"203.0.113.2", 402}, {"203.0.113.1", 429},
		{"198.51.100.7, 203.0.113.1", 429}, // an element that the client wrote does not help it
		{"203.0.113.1, 198.51.100.7", 402},
		{"2001:db8::1", 402}, {"2001:db8::2", 429}, // both are in one /64
	} {
		if got := ask(r, c.forwarded); got != c.want {
			t.Errorf("%d: %s got %d, want %d", i, c.forwarded, got, c.want)
		}
	}
	direct := newRig(t, limitChallenges(limits)) // trusts no proxy
	if one, two := ask(direct, "203.0.113.1"), ask(direct, "203.0.113.2"); one != 402 || two != 429 {
		t.Errorf("a forwarded address was believed: %d, %d", one, two)
	}
}
