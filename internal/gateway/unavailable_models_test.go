package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestModelWithoutABackendIsNotSold: a request for a model that no backend serves gets a 503 and no
// challenge, whatever its credential, so that nobody pays for nothing.
func TestModelWithoutABackendIsNotSold(t *testing.T) {
	t.Parallel()
	for name, break_ := range map[string]func(*scriptedEngine){
		"its check fails":     func(e *scriptedEngine) { e.health.Store(answers(http.StatusServiceUnavailable, "{}")) },
		"nobody is there":     func(e *scriptedEngine) { e.die(t) },
		"its key is refused":  func(e *scriptedEngine) { e.models.Store(answers(401, "{}")); e.health.Store(answers(404, "")) },
		"the check hangs too": func(e *scriptedEngine) { e.health.Store(hangs()); e.chat.Store(hangs()) },
	} {
		t.Run(name, func(t *testing.T) {
			e := newScriptedEngine(t)
			r, k := engineRig(t, 100*time.Millisecond, e)
			r.until("the first check", func() bool { status, _, _, _ := r.ready(); return status == http.StatusOK })
			if !r.available() {
				t.Error("a model that is served is not available")
			}
			r.stranger().wantProblem(t, http.StatusPaymentRequired, "payment-required")
			break_(e)
			r.until("the model is not sold", func() bool { return !r.available() })
			r.chat(k, request()) // if it is not known whether the model can be served, one request may find out
			other := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
			other.preimage[0] ^= 1
			invoices := r.node.count()
			for what, a := range map[string]*answer{
				"a stranger":               r.stranger(),
				"a blank body":             r.do("POST", "/v1/chat/completions", "", nil),
				"a probe":                  r.do("GET", "/v1/chat/completions", "", nil),
				"a holder":                 r.chat(k, request()),
				"an expired token":         r.chat(r.mint(testService, newTokenID(), maxPurchase, time.Now().Add(-time.Hour)), request()),
				"a wrong preimage":         r.do("POST", "/v1/chat/completions", request(), other.with()),
				"a token that narrows":     r.chat(k.attenuate(t, "inference_models=other"), request()),
				"a top-up":                 r.do("POST", "/l402/topup", `{"amount_msat":100000}`, k.with()),
				"a stranger's balance":     r.do("GET", "/l402/balance", "", nil),
				"a quote":                  r.do("GET", "/l402/quote?model="+testModel, "", nil),
				"a limit on its cost":      r.chat(k, request(), "L402-Max-Cost-Msat", "1"),
				"an account that is empty": r.chat(r.mint(testService, newTokenID(), 1000, tomorrow()), request("max_tokens", "256")),
			} {
				if a.status != http.StatusServiceUnavailable {
					t.Errorf("%s: status %d\n%s", what, a.status, a.body)
					continue
				}
				a.wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
				if a.header.Get("Retry-After") == "" || a.header.Get("Www-Authenticate") != "" {
					t.Errorf("%s: headers %v", what, a.header)
				}
			}
			if n := r.node.count(); n != invoices {
				t.Errorf("%d invoices were made", n-invoices)
			}
			if a := r.balance(k); a.status != http.StatusOK {
				t.Errorf("a holder cannot see the balance: %d\n%s", a.status, a.body)
			}
			r.until("readiness says so", func() bool { status, _, _, _ := r.ready(); return status == http.StatusServiceUnavailable })
			if _, parts, models, _ := r.ready(); !strings.Contains(parts["backends"], testModel) || models[testModel] == "" {
				t.Errorf("readiness does not name the model: %v %v", parts, models)
			}
			if r.metric(`sluice_model_available{model="demo"}`) != 0 {
				t.Error("the metric says that it is available")
			}
		})
	}
}

// TestModelIsSoldAgainWhenItsBackendIsBack: a model is sold again once a backend serves it again.
func TestModelIsSoldAgainWhenItsBackendIsBack(t *testing.T) {
	t.Parallel()
	for name, every := range map[string]time.Duration{"checked": 100 * time.Millisecond, "unchecked": 0} {
		t.Run(name, func(t *testing.T) {
			e := newScriptedEngine(t)
			r, k := engineRig(t, every, e)
			if a := r.chat(k, request()); a.status != http.StatusOK {
				t.Fatalf("%d %s", a.status, a.body)
			}
			revive := e.die(t)
			r.until("its requests or checks show that it is gone", func() bool {
				return r.chat(k, request()).status == http.StatusServiceUnavailable && !r.available()
			})
			r.stranger().wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
			revive()
			r.until("it is sold again", r.available)
			r.stranger().wantProblem(t, http.StatusPaymentRequired, "payment-required")
			if a := r.chat(k, request()); a.status != http.StatusOK {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
}
