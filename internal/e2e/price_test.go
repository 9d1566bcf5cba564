package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/pricing"
)

// demoInterval is how often the demo's prices move.
const demoInterval = time.Second

// priceTag is a price and why it is what it is, as the gateway tells it in a 402,
// in /v1/models, in a quote and in other refusals.
type priceTag struct {
	Rates      pricing.Rates `json:"rates"`
	Epoch      int64         `json:"price_epoch"`
	Multiplier *float64      `json:"multiplier"`
	Signal     *float64      `json:"signal"`
	BoundBy    string        `json:"bound_by"`
}

// priceIn wants a whole price in a JSON object, of the demo's rate card.
func priceIn(t testing.TB, body []byte) priceTag {
	t.Helper()
	p := decode[priceTag](t, body)
	if p.Epoch < 1 || p.Multiplier == nil || p.Signal == nil || *p.Signal < 0 ||
		!slices.Contains([]string{"floor", "ceiling", "slew", "none", "fixed", "stale"}, p.BoundBy) {
		t.Fatalf("no whole price in %s", body)
	}
	want := pricing.Rates{pricing.InputTokens: int64(math.Round(1e6 * *p.Multiplier)), pricing.OutputTokens: int64(math.Round(4e6 * *p.Multiplier))}
	if p.Rates != want {
		t.Errorf("the rates are %+v at a multiplier of %v, want %+v", p.Rates, *p.Multiplier, want)
	}
	return p
}

// priceNow is the price of the model demo in /v1/models.
func (g *gateway) priceNow(t testing.TB) priceTag {
	t.Helper()
	list := decode[struct {
		Data []struct {
			ID   string
			L402 json.RawMessage
		}
	}](t, g.do(t, http.MethodGet, "/v1/models", "", nil).want(t, http.StatusOK).body)
	for _, m := range list.Data {
		if m.ID == "demo" {
			return priceIn(t, m.L402)
		}
	}
	t.Fatalf("/v1/models does not list the model: %+v", list)
	return priceTag{}
}

// costOf is what a charge's usage costs at the rates that it names.
func costOf(t testing.TB, c charge) int64 {
	t.Helper()
	n, err := c.Rates.Cost(pricing.Units{pricing.InputTokens: c.Usage.Input, pricing.CachedInputTokens: c.Usage.Cached, pricing.OutputTokens: c.Usage.Output, pricing.Calls: c.Usage.Calls})
	if err != nil {
		t.Fatal(err)
	}
	return int64(n)
}

// bought is a paid credential and the price of its 402.
type bought struct {
	credential
	quoted priceTag
}

func (g *gateway) buyQuoted(t testing.TB, amount int64) bought {
	t.Helper()
	a := g.post(t, chat(), header("L402-Deposit-Msat", strconv.FormatInt(amount, 10)))
	return bought{agent.pay(t, a.challenge(t)), priceIn(t, a.body)}
}

// unlocked tops an account up; the new credential spends from it and has no
// quote, since a top-up is for no model.
func (g *gateway) unlocked(t testing.TB, k credential, amount int64) credential {
	t.Helper()
	c := g.do(t, http.MethodPost, "/l402/topup", fmt.Sprintf(`{"amount_msat":%d}`, amount), k.header()).challenge(t)
	if strings.Contains(strings.Join(c.conds, " "), "rate_lock") {
		t.Fatalf("a top-up locks a price: %q", c.conds)
	}
	return agent.pay(t, c)
}

// pressed keeps so many streams open at a time, one after another, until stop is
// called, which hangs them up.
func (g *gateway) pressed(t testing.TB, k credential, streams int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var open sync.WaitGroup
	for i := range streams {
		open.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				resp, err := g.Open(ctx, http.MethodPost, chatPath, chat("stream", "true", "max_tokens", strconv.Itoa(64+n*37%193)), k.header())
				if err != nil {
					continue // ctx has ended
				}
				if resp.StatusCode != http.StatusOK {
					t.Errorf("a stream of the surge: status %d", resp.StatusCode)
					cancel()
				}
				_, _ = io.Copy(io.Discard, resp.Body) // cut by the end of ctx
				resp.Body.Close()
			}
		})
	}
	stop = func() {
		cancel()
		open.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// calm waits for the floor.
func (g *gateway) calm(t testing.TB) {
	t.Helper()
	labtest.Eventually(t, 30*time.Second, "the price is at its floor", func() error {
		if p := g.priceNow(t); *p.Multiplier != 1 || p.BoundBy != "floor" {
			return fmt.Errorf("×%.2f, bound by %s", *p.Multiplier, p.BoundBy)
		}
		return nil
	})
}

// TestPriceFollowsLoad surges the demo. It does not run in parallel: the other
// tests of the demo go by the floor's prices.
func TestPriceFollowsLoad(t *testing.T) {
	demo.calm(t)
	floor := demo.priceNow(t)
	before := demo.do(t, http.MethodPost, chatPath, chat(), nil)
	bound := decode[struct {
		Required int64 `json:"required_msat"`
	}](t, before.body).Required
	locked, small := demo.buyQuoted(t, 20_000), demo.buyQuoted(t, 4000)
	if locked.quoted.Epoch != floor.Epoch || locked.quoted.Rates != floor.Rates {
		t.Fatalf("quoted %+v, listed %+v", locked.quoted, floor)
	}
	free := demo.unlocked(t, demo.buy(t, 4000), 40_000)
	demo.unlocked(t, small.credential, 40_000)

	stop := demo.pressed(t, demo.buy(t, 4_000_000), 110)
	labtest.Eventually(t, 30*time.Second, "the load is there", func() error {
		if n := demo.metric(t, `sluice_load_running{model="demo"}`) + demo.metric(t, `sluice_load_waiting{model="demo"}`); n < 64 {
			return fmt.Errorf("%.0f requests", n)
		}
		return nil
	})
	labtest.Eventually(t, 3*demoInterval, "three intervals later the price is up", func() error {
		if p := demo.priceNow(t); *p.Multiplier <= 1 || *p.Signal <= 0.8 {
			return fmt.Errorf("×%.2f at a signal of %.2f", *p.Multiplier, *p.Signal)
		}
		return nil
	})
	labtest.Eventually(t, 20*time.Second, "the price is far up", func() error {
		if p := demo.priceNow(t); *p.Multiplier < 2 {
			return fmt.Errorf("×%.2f at a signal of %.2f", *p.Multiplier, *p.Signal)
		}
		return nil
	})
	demo.toldHigher(t, floor)
	demo.pricedInSurge(t, locked, small, free)
	demo.refusedInSurge(t, locked.credential, free, bound)
	demo.showsLoad(t)
	stop()
	demo.calm(t)
	for _, k := range []credential{locked.credential, small.credential, free} {
		demo.idle(t, k)
	}
}

// toldHigher wants the surge's price in everything that tells prices.
func (g *gateway) toldHigher(t *testing.T, floor priceTag) {
	t.Helper()
	quote := g.do(t, http.MethodGet, "/l402/quote?model=demo&input_tokens=100&max_tokens=50", "", nil).want(t, http.StatusOK)
	for where, body := range map[string][]byte{
		"a 402": g.post(t, chat(), nil).want(t, http.StatusPaymentRequired).body, "a probe's 402": g.post(t, "", nil).want(t, http.StatusPaymentRequired).body, "a quote": quote.body,
	} {
		if p := priceIn(t, body); p.Epoch <= floor.Epoch || *p.Multiplier <= 1 || *p.Signal <= 0 {
			t.Errorf("in a surge %s says %s", where, body)
		}
	}
	q := decode[struct {
		Bound int64         `json:"bound_msat"`
		Rates pricing.Rates `json:"rates"`
	}](t, quote.body)
	if want, err := q.Rates.Cost(pricing.Units{pricing.InputTokens: 100, pricing.OutputTokens: 50}); err != nil || q.Bound != int64(want) {
		t.Errorf("the quote's bound is %d msat at %+v, want %v, %v", q.Bound, q.Rates, want, err)
	}
}

// pricedInSurge has three buyers ask at once: one with a locked quote, one whose
// lock does not cover so much, one without a lock.
func (g *gateway) pricedInSurge(t *testing.T, locked, small bought, free credential) {
	t.Helper()
	much := chat("n", "4", "max_tokens", "256") // more than the 4000 msat of the small payment
	answers := []<-chan *answer{
		g.background(chat(), locked.header()), g.background(much, small.header()), g.background(chat(), free.header()),
	}
	var entries []charge
	for i, k := range []credential{locked.credential, small.credential, free} {
		a := (<-answers[i]).want(t, http.StatusOK)
		e := g.entry(t, k, a.header.Get("L402-Request-Id"))
		if a.msat(t, "L402-Price-Epoch") != e.Epoch || a.msat(t, "L402-Cost-Msat") != e.Charged || e.Charged != costOf(t, e) {
			t.Errorf("the answer says %v, the ledger %+v, which is worth %d msat", a.header, e, costOf(t, e))
		}
		entries = append(entries, e)
	}
	if e := entries[0]; e.Rates != locked.quoted.Rates || e.Epoch != locked.quoted.Epoch || e.Charged != cost(e.Usage.Input, e.Usage.Output) {
		t.Errorf("with a locked quote of %+v: %+v", locked.quoted, e)
	}
	for _, e := range entries[1:] {
		if e.Rates[pricing.OutputTokens] <= locked.quoted.Rates[pricing.OutputTokens] || e.Epoch <= locked.quoted.Epoch {
			t.Errorf("without a lock that covers it: %+v", e)
		}
	}
	a := (<-g.background(chat(), small.header())).want(t, http.StatusOK)
	if e := g.entry(t, small.credential, a.header.Get("L402-Request-Id")); e.Rates != small.quoted.Rates {
		t.Errorf("what the small payment still covers: %+v", e)
	}
}

// refusedInSurge has two buyers pay no more than the request cost before: who has
// no lock is refused and pays nothing.
func (g *gateway) refusedInSurge(t *testing.T, locked, free credential, bound int64) {
	t.Helper()
	limit := strconv.FormatInt(bound, 10)
	had := g.idle(t, free)
	a := g.post(t, chat(), free.header("L402-Max-Cost-Msat", limit))
	p := a.wantProblem(t, http.StatusPreconditionFailed, "cost-above-maximum")
	if priceIn(t, a.body); p["required_msat"].(float64) <= float64(bound) {
		t.Errorf("refused with %s", a.body)
	}
	g.post(t, chat(), header("L402-Max-Cost-Msat", limit)).wantProblem(t, http.StatusPreconditionFailed, "cost-above-maximum")
	if has := g.idle(t, free); has.Charged != had.Charged || has.Available != had.Available {
		t.Errorf("a refusal changed the balance from %+v to %+v", had, has)
	}
	(<-g.background(chat(), locked.header("L402-Max-Cost-Msat", limit))).want(t, http.StatusOK)
}

// showsLoad wants price and GPU in the metrics.
func (g *gateway) showsLoad(t *testing.T) {
	t.Helper()
	const gpu = `{backend="model-server",gpu="GPU-51111ce0-0000-4000-8000-000000000000"}`
	for sample, least := range map[string]float64{
		`sluice_price_multiplier{model="demo"}`: 1.01, `sluice_price_signal{model="demo"}`: 0.8, `sluice_price_epoch{model="demo"}`: 2,
		`sluice_price_leader{model="demo"}`: 1, `sluice_price_signal_fresh{model="demo"}`: 1, `sluice_price_output_msat_per_mtok{model="demo"}`: 4_000_001,
		"sluice_gpu_fresh" + gpu: 1, "sluice_gpu_utilization" + gpu: 0.9, "sluice_gpu_sm_utilization" + gpu: 0.5, "sluice_gpu_power_watts" + gpu: 300,
		"sluice_gpu_busy_seconds_total" + gpu: 1, `sluice_load_running{model="demo"}`: 60, `sluice_load_energy_joules{model="demo"}`: 100,
	} {
		if got := g.metric(t, sample); got < least {
			t.Errorf("in a surge %s is %v, want at least %v", sample, got, least)
		}
	}
}

// TestKillSwitch fixes the demo's price by hand. Like TestPriceFollowsLoad it has
// the demo to itself.
func TestKillSwitch(t *testing.T) {
	demo.calm(t)
	k := demo.buyQuoted(t, 4000)
	set := func(body string, status int) {
		t.Helper()
		demo.operator(t, http.MethodPost, "/admin/prices", body).want(t, status)
	}
	for _, body := range []string{"", "{}", `{"model":"demo"}`, `{"model":"none","multiplier":2}`, `{"model":"demo","multiplier":-1}`, `{"model":"demo","multiplier":1e300}`} {
		set(body, http.StatusBadRequest)
	}
	without := demo.unauthorized()
	without.do(t, http.MethodPost, "/admin/prices", `{"model":"demo","multiplier":2.5}`, nil).want(t, http.StatusUnauthorized)

	set(`{"model":"demo","multiplier":2.5}`, http.StatusOK)
	labtest.Eventually(t, demoInterval/2, "the price is fixed at once", func() error {
		if p := demo.priceNow(t); *p.Multiplier != 2.5 || p.BoundBy != "fixed" {
			return fmt.Errorf("×%.2f, bound by %s", *p.Multiplier, p.BoundBy)
		}
		return nil
	})
	a := demo.post(t, chat(), k.header()).want(t, http.StatusOK)
	if e := demo.entry(t, k.credential, a.header.Get("L402-Request-Id")); e.Rates != k.quoted.Rates {
		t.Errorf("a locked quote does not hold against a fixed price: %+v", e)
	}
	if got := demo.metric(t, `sluice_price_fixed{model="demo"}`); got != 2.5 {
		t.Errorf("sluice_price_fixed is %v", got)
	}
	set(`{"model":"demo","multiplier":0}`, http.StatusOK)
	demo.calm(t)
}
