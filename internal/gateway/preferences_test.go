package gateway_test

import (
	"net/http"
	"testing"

	"sluice.example/sluice/l402"
)

func TestMaxCostRefusesBeforeAnythingIsCharged(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	required := r.do("POST", chatPath, request(), nil).msat(t, "required_msat")
	for _, h := range []header{k.with("L402-Max-Cost-Msat", amountText(required-1)), {"L402-Max-Cost-Msat": amountText(required - 1)}} {
		a := r.do("POST", chatPath, request(), h)
		p := a.wantProblem(t, http.StatusPreconditionFailed, "cost-above-maximum")
		if a.msat(t, "required_msat") != required || p["rates"] == nil || p["price_epoch"] != 3.0 || p["quote_expires_at"] == nil {
			t.Errorf("the problem lacks the quote: %s", a.body)
		}
	}
	r.wantSpent(k, 0)
	if a := r.chat(k, request(), "L402-Max-Cost-Msat", amountText(required)); a.status != http.StatusOK {
		t.Errorf("status %d", a.status)
	}
}

func TestTokenizerTightensTheBound(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.profile = does(true, false)
	})
	long := request("messages", `[{"role":"user","content":"`+repeat("the river runs to the sea and ", 200)+`"}]`)
	required := r.do("POST", chatPath, long, nil).msat(t, "required_msat")
	k := r.buy(minPurchase)
	a := r.chat(k, long, "L402-Max-Cost-Msat", amountText(required/2))
	if a.status != http.StatusOK {
		t.Fatalf("status %d: the bound was not tightened\n%s", a.status, a.body)
	}
	spent := r.trueCost()
	if spent > required/2 {
		t.Errorf("charged %d above the client's maximum %d", spent, required/2)
	}
	r.wantSpent(k, spent)

	// No backend works for a caller without a credential.
	before := len(r.backend.Requests())
	r.do("POST", chatPath, long, header{"L402-Max-Cost-Msat": amountText(required / 2)}).
		wantProblem(t, http.StatusPreconditionFailed, "cost-above-maximum")
	if len(r.backend.Requests()) != before {
		t.Error("the tokenizer was asked for a stranger")
	}

	// This balance covers the real prompt, but not the bound that comes from the prompt's bytes.
	poor := r.mint(testService, l402.NewTokenID(), spent+100, tomorrow())
	if a := r.chat(poor, long); a.status != http.StatusOK {
		t.Errorf("status %d\n%s", a.status, a.body)
	}
}

func TestTruncateOnlyWhenAllowed(t *testing.T) {
	r := newRig(t)
	body := request("max_tokens", "200")
	required := r.do("POST", chatPath, body, nil).msat(t, "required_msat")
	prompt := required - 400 // the bound of the prompt
	k := r.mint(testService, l402.NewTokenID(), prompt+2*50+1, tomorrow())
	r.chat(k, body).wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	r.chat(k, body, "L402-Allow-Truncate", "0").wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	if a := r.chat(k, body, "L402-Allow-Truncate", "1"); a.status != http.StatusOK {
		t.Fatalf("status %d\n%s", a.status, a.body)
	}
	if rec := r.truth(); rec.CompletionTokens != 50 {
		t.Errorf("%d tokens were generated, the balance covers 50", rec.CompletionTokens)
	}
	r.wantSpent(k, r.trueCost())
	tiny := r.mint(testService, l402.NewTokenID(), prompt+2*3, tomorrow()) // below min_completion
	r.chat(tiny, body, "L402-Allow-Truncate", "1").wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	r.wantSpent(tiny, 0)
}
