package gateway_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

func TestFullPoolRefusesBeforeMoneyMoves(t *testing.T) {
	r := newRig(t, slow(20, ""), func(s *setup) {
		s.backend = func(b *gpuBackend) { b.Slots = 1 }
		s.pool = func(p *gpuPool) { p.QueueLimit = 0 }
	})
	k := r.buy(minPurchase)
	running := r.open(t.Context(), "POST", chatPath, request("stream", "true", "max_tokens", "200"), k.with())
	defer running.Body.Close()
	readEvents(t, running.Body, 1)
	other := r.buy(minPurchase)
	a := r.chat(other, request())
	a.wantProblem(t, http.StatusTooManyRequests, "queue-full")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r.wantSpent(other, 0)
}

func TestQueueDeadlineGivesTheMoneyBack(t *testing.T) {
	r := newRig(t, slow(20, ""), func(s *setup) {
		s.backend = func(b *gpuBackend) { b.Slots = 1 }
		s.pool = func(p *gpuPool) { p.QueueLimit, p.QueueTimeout = 4, 150*time.Millisecond }
	})
	k := r.buy(minPurchase)
	running := r.open(t.Context(), "POST", chatPath, request("stream", "true", "max_tokens", "200"), k.with())
	defer running.Body.Close()
	readEvents(t, running.Body, 1)
	other := r.buy(minPurchase)
	a := r.chat(other, request())
	a.wantProblem(t, http.StatusServiceUnavailable, "queue-full")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r.wantSpent(other, 0)
}

func TestWaitingRequestsAreServedInTurn(t *testing.T) {
	r := newRig(t, slow(2000, ""), func(s *setup) {
		s.backend = func(b *gpuBackend) { b.Slots = 2 }
	})
	k := r.buy(maxPurchase)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			resp, err := r.client.Do(r.newRequest("POST", chatPath, request(), k.with()))
			if err != nil {
				t.Error(err)
				return
			}
			drainBody(resp)
			if resp.StatusCode != http.StatusOK {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	all.Wait()
	r.idle(k)
	if n := len(r.usage(k)); n != 10 {
		t.Errorf("%d charges", n)
	}
}

func TestNoHealthyBackend(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.inference[0].Faults = "health-status:500"
		s.backend = func(b *gpuBackend) { b.HealthPath, b.HealthEvery = "/health", 50*time.Millisecond }
	})
	k := r.mint(testService, newTokenID(), minPurchase, tomorrow())
	r.until("the check fails", func() bool { return !r.fleet.Healthy(testModel) && r.fleet.Status()[0].Checked })
	a := r.chat(k, request())
	a.wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	ready := r.do("GET", "/readyz", "", nil)
	if parts, _ := ready.json(t)["parts"].(map[string]any); ready.status != http.StatusServiceUnavailable || parts["backends"] == "ok" || parts["lightning"] != "ok" {
		t.Errorf("readyz: %d %s", ready.status, ready.body)
	}
	r.wantSpent(k, 0)
}

// TestManyCallersOnOneAccount: of 200 callers at once on an account with credit for 50, exactly 50
// succeed.
func TestManyCallersOnOneAccount(t *testing.T) {
	body := request("max_tokens", "10")
	probe := newRig(t)
	required := probe.do("POST", chatPath, body, nil).msat(t, "required_msat")

	// The cost is fixed and equals the hold, because tokens cost nothing and the call has a price.
	rates := testRates
	rates[pricing.InputTokens], rates[pricing.OutputTokens], rates[pricing.Calls] = 0, 0, 1000
	if required == 0 {
		t.Fatal("the probe has no bound")
	}
	r := newRig(t, func(s *setup) {
		s.rates = &rates
		s.backend = func(b *gpuBackend) { b.Slots = 256 }
		s.pool = func(p *gpuPool) { p.QueueLimit = 256 }
		s.inference[0].Slots = 256
	})
	k := r.buy(50 * 1000)
	var passed, refused atomic.Int64
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			resp, err := r.client.Do(r.newRequest("POST", chatPath, body, k.with()))
			if err != nil {
				t.Error(err)
				return
			}
			drainBody(resp)
			switch resp.StatusCode {
			case http.StatusOK:
				passed.Add(1)
			case http.StatusPaymentRequired:
				refused.Add(1)
			default:
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	all.Wait()
	if passed.Load() != 50 || refused.Load() != 150 {
		t.Errorf("%d passed and %d were refused, want 50 and 150", passed.Load(), refused.Load())
	}
	r.wantSpent(k, 50*1000)
}

func TestDelegatedBudgetsAreEnforced(t *testing.T) {
	r := newRig(t)
	k := r.buy(500_000)
	sub := k.attenuate(t, "inference_label=crawler", "inference_budget_msat=1500")
	if a := r.chat(sub, request("max_tokens", "24")); a.status != http.StatusOK {
		t.Fatalf("status %d\n%s", a.status, a.body)
	}
	r.idle(k)
	spent := r.trueCost()
	a := r.balance(sub)
	if got := a.msat(t, "available_msat"); got != 1500-spent {
		t.Errorf("the sub-token sees %d, want %d", got, 1500-spent)
	}
	budgets, _ := a.json(t)["budgets"].([]any)
	if len(budgets) != 1 {
		t.Fatalf("budgets %v", budgets)
	}
	if b := budgets[0].(map[string]any); b["label"] != "crawler" || b["limit_msat"] != 1500.0 || b["available_msat"] != float64(1500-spent) {
		t.Errorf("budget %v", b)
	}
	if p := a.json(t); p["charged_msat"] != float64(spent) || p["held_msat"] != 0.0 {
		t.Errorf("the sub-token sees %s", a.body)
	}
	r.chat(k, request())
	r.idle(k)
	if n := len(r.usage(k)); n != 2 {
		t.Errorf("the parent sees %d charges", n)
	}
	if n := len(r.usage(sub)); n != 1 {
		t.Errorf("the sub-token sees %d charges", n)
	}
	r.chat(sub, request("max_tokens", "256", "n", "8")).wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	if e := r.usage(sub)[0]; e.Outcome != metering.OutcomeComplete {
		t.Errorf("entry %+v", e)
	}
}

// TestPartsOfATokenDoNotSeeTheParentsTotals: only the holder of the whole token sees the account's
// totals.
func TestPartsOfATokenDoNotSeeTheParentsTotals(t *testing.T) {
	r := newRig(t)
	k := r.buy(500_000)
	r.chat(k, request())
	r.idle(k)
	for name, part := range map[string]token{
		"budget":   k.attenuate(t, "inference_budget_msat=1500"),
		"label":    k.attenuate(t, "inference_label=part"),
		"models":   k.attenuate(t, "inference_models=demo"),
		"foreign":  k.attenuate(t, "delegation=17"),
		"expiring": k.attenuate(t, fmt.Sprintf("inference_valid_until=%d", time.Now().Add(time.Hour).Unix())),
	} {
		p := r.balance(part).json(t)
		for _, member := range []string{"deposited_msat", "refunded_msat"} {
			if _, ok := p[member]; ok {
				t.Errorf("%s: %s is shown: %v", name, member, p)
			}
		}
		if charged, ok := p["charged_msat"]; ok && charged != 0.0 || ok != (name == "budget") {
			t.Errorf("%s: charged %v", name, p)
		}
		usage := r.do("GET", "/l402/usage", "", part.with())
		if name == "budget" {
			if string(usage.body) != "{\"charges\":[]}\n" {
				t.Errorf("%s: usage %s", name, usage.body)
			}
			continue
		}
		usage.wantProblem(t, http.StatusForbidden, "caveat-violation")
	}
	if p := r.balance(k.attenuate(t, "preimage="+k.preimage.Hex())).json(t); p["deposited_msat"] != 500_000.0 {
		t.Errorf("the whole token sees %v", p)
	}
}
