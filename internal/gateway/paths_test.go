package gateway_test

import (
	"net/http"
	"testing"
)

// TestPathsWithMoreSlashesAreServed: extra slashes, which a base URL may leave in a path, lead to
// the same route.
func TestPathsWithMoreSlashesAreServed(t *testing.T) {
	e := newScriptedEngine(t)
	r, k := engineRig(t, 0, e)
	for _, path := range []string{"//v1/chat/completions", "/v1/chat/completions/", "/v1//chat/completions//"} {
		if a := r.do("POST", path, request(), k.with()); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		r.do("POST", path, request(), nil).wantProblem(t, http.StatusPaymentRequired, "payment-required")
	}
	for path, want := range map[string]int{
		"/v1/models/": http.StatusOK, "//v1/models": http.StatusOK, "/l402/balance/": http.StatusOK, "//healthz": http.StatusOK,
		"/v1/models//demo": http.StatusNotFound, "/v1/./models": http.StatusNotFound, "//": http.StatusNotFound, "/v1/v1/models": http.StatusNotFound,
	} {
		if a := r.do("GET", path, "", k.with()); a.status != want {
			t.Errorf("%s: %d, want %d\n%s", path, a.status, want, a.body)
		}
	}
}
