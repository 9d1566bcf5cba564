package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab/labtest"
)

// TestSubBudgets makes sub-tokens offline, two deep, and spends through them.
func TestSubBudgets(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	child := k.attenuate(t, "inference_label=team", "inference_budget_msat=1000")
	grandchild := child.attenuate(t, "inference_budget_msat=400", "inference_label=one job")
	budgets := func(c credential, want ...int64) {
		t.Helper()
		b := lab.idleBudgets(t, c)
		if len(b.Budgets) != len(want)-1 || b.Available != want[0] {
			t.Errorf("balance %+v, want %v", b, want)
			return
		}
		for i, available := range want[1:] {
			if b.Budgets[i].Available != available {
				t.Errorf("budget %d has %d msat left, want %d", i, b.Budgets[i].Available, available)
			}
		}
	}
	budgets(k, 20_000)
	budgets(child, 1000, 1000)
	budgets(grandchild, 400, 1000, 400)

	body := chat("model", `"running"`)
	a := lab.post(t, body, grandchild.header()).want(t, http.StatusOK)
	first := a.msat(t, "L402-Cost-Msat")
	if got := a.msat(t, "L402-Balance-Msat"); got != 400-first {
		t.Errorf("the answer says a balance of %d, want what the budget has left, %d", got, 400-first)
	}
	budgets(grandchild, 400-first, 1000-first, 400-first)
	budgets(child, 1000-first, 1000-first)
	budgets(k, 20_000-first)
	if b := lab.balance(t, grandchild); b.Budgets[0].Label != "team" || b.Budgets[1].Label != "one job" || b.Budgets[0].Limit != 1000 {
		t.Errorf("the budgets are %+v", b.Budgets)
	}

	// Copies share one budget; a sibling made from the parent has its own.
	copied := child.attenuate(t, "inference_budget_msat=400", "inference_label=one job")
	budgets(copied, 400-first, 1000-first, 400-first)
	sibling := child.attenuate(t, "inference_budget_msat=401")
	budgets(sibling, 401, 1000-first, 401)

	// Its bound fits no more: 402 with a new account, for the caller owns none.
	short := lab.post(t, chat("model", `"running"`, "max_tokens", "120"), grandchild.header())
	c := short.challenge(t)
	if c.id.TokenID == k.id.TokenID || c.problem["balance_msat"] != float64(400-first) {
		t.Errorf("the 402 is for account %s with a balance of %v", c.id.TokenID, c.problem["balance_msat"])
	}
	short.wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	if top := lab.do(t, http.MethodPost, "/l402/topup", `{"amount_msat":4000}`, child.header()).challenge(t); top.id.TokenID == k.id.TokenID {
		t.Error("a sub-token was offered to top up the whole account")
	}

	// A stream through the child counts against it and its parent.
	_, e := lab.all(t, child, body)
	e.complete(t)
	budgets(child, 1000-first-e.cost, 1000-first-e.cost)
	budgets(grandchild, min(400-first, 1000-first-e.cost), 1000-first-e.cost, 400-first)
	if got := []int{len(lab.charges(t, k)), len(lab.charges(t, child)), len(lab.charges(t, grandchild))}; got[0] != 2 || got[1] != 1 || got[2] != 1 {
		t.Errorf("account, child and grandchild see %v charges, want 2, 1, 1", got)
	}
}

// idleBudgets is the balance once nothing is held.
func (g *gateway) idleBudgets(t testing.TB, k credential) (b balance) {
	t.Helper()
	labtest.Eventually(t, 10*time.Second, "nothing is held", func() error {
		if b = g.balance(t, k); b.Held != 0 {
			return fmt.Errorf("%d msat are held", b.Held)
		}
		return nil
	})
	return b
}

// TestCaveats enforces what a holder adds, and refuses what it does not
// understand or what would widen.
func TestCaveats(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	now := time.Now().Unix()
	passed := 0
	for _, row := range []struct {
		conditions string // separated by spaces
		status     int
		kind       string
	}{
		{"inference_models=running,plain", 200, ""},
		{"inference_models=plain,running inference_models=running", 200, ""},
		{"inference_models=plain", 403, "caveat-violation"},
		{"inference_models=", 403, "caveat-violation"},
		{"inference_models=plain inference_models=running", 403, "caveat-violation"},
		{"inference_capabilities=chat", 200, ""},
		{"inference_capabilities=embeddings", 403, "caveat-violation"},
		{fmt.Sprintf("inference_valid_until=%d", now+1000), 200, ""},
		{fmt.Sprintf("inference_valid_until=%d", now-1), 402, "payment-required"},
		{fmt.Sprintf("inference_valid_until=%d", now+400*24*3600), 403, "caveat-violation"},
		{"inference_valid_until=soon", 403, "caveat-violation"},
		{"inference_budget_msat=500 inference_budget_msat=501", 403, "caveat-violation"},
		{"inference_budget_msat=-1", 403, "caveat-violation"},
		{"inference_deposit_msat=999999", 403, "caveat-violation"},
		{"inference_rate_lock=1:9999999999", 403, "caveat-violation"},
		{"inference_modles=running", 403, "caveat-violation"},
		{"inference_models", 403, "caveat-violation"},
		{"Inference_models=running", 403, "caveat-violation"},
		{"inference_rpm=0", 403, "caveat-violation"},
		{"services=fee:0", 403, "caveat-violation"},
		{"services=inference:0", 200, ""},
		{"other_models=nothing", 200, ""},
		{"anything=else", 200, ""},
		{"inference_label=the-label", 200, ""},
		{strings.Repeat("inference_label=x ", 17), 403, "caveat-violation"},
		{strings.Repeat("inference_budget_msat=5000 ", 5), 403, "caveat-violation"},
		{"x=" + strings.Repeat("y", 9000), 403, "caveat-violation"},
	} {
		narrowed := k.attenuate(t, strings.Fields(row.conditions)...)
		a := lab.post(t, chat("model", `"running"`, "max_tokens", "2"), narrowed.header())
		if a.status != row.status {
			t.Errorf("%.60q: status %d, want %d\n%s", row.conditions, a.status, row.status, a.body)
			continue
		}
		if row.kind != "" {
			a.wantProblem(t, row.status, row.kind)
		} else {
			passed++
		}
		if row.status == http.StatusPaymentRequired && a.challenge(t).id.TokenID == k.id.TokenID {
			t.Errorf("%.60q: an attenuated token was offered its account", row.conditions)
		}
	}
	if got := len(lab.charges(t, k)); got != passed {
		t.Errorf("%d charges for %d answers", got, passed)
	}
}

// TestRateLimit counts a token's requests per minute over all of its copies.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	slow := k.attenuate(t, "inference_rpm=3")
	body := chat("model", `"running"`, "max_tokens", "2")
	passed := 0
	for range 6 {
		a := lab.post(t, body, slow.attenuate(t, "inference_label=copy").header())
		switch a.status {
		case http.StatusOK:
			passed++
		default:
			a.wantProblem(t, http.StatusTooManyRequests, "rate-limited")
			if a.header.Get("Retry-After") == "" {
				t.Error("no Retry-After with the 429")
			}
		}
	}
	if passed < 3 || passed > 4 { // the minute may turn in between
		t.Errorf("%d of 6 requests passed a limit of 3 per minute", passed)
	}
	lab.post(t, body, k.header()).want(t, http.StatusOK) // its parent has none
}

// TestExpiryOfASubToken lets a sub-token run out while it is in use.
func TestExpiryOfASubToken(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	brief := k.attenuate(t, fmt.Sprintf("inference_valid_until=%d", time.Now().Unix()+3))
	body := chat("model", `"running"`, "max_tokens", "2")
	lab.post(t, body, brief.header()).want(t, http.StatusOK)
	labtest.Eventually(t, 10*time.Second, "it expires", func() error {
		if a := lab.post(t, body, brief.header()); a.status != http.StatusPaymentRequired {
			return fmt.Errorf("status %d", a.status)
		}
		return nil
	})
	lab.post(t, body, k.header()).want(t, http.StatusOK)
}
