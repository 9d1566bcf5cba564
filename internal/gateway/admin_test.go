package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// ask sends a request to the operator's listener.
func (r *rig) ask(method, path, bearer string) *answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.admin+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return &answer{resp.StatusCode, resp.Header, resp.Trailer, body}
}

func TestAdminNeedsItsToken(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/admin/status", "/admin/backends", "/admin/deposits?state=unclaimed", "/admin/accounts/" + strings.Repeat("0", 64)} {
		for _, bearer := range []string{"", "wrong", adminToken + "x"} {
			r.ask("GET", path, bearer).wantProblem(t, http.StatusUnauthorized, "invalid-credential")
		}
		if a := r.ask("GET", path, adminToken); a.status != http.StatusOK {
			t.Errorf("%s: %d\n%s", path, a.status, a.body)
		}
	}
	r.ask("GET", "/admin/nothing", adminToken).wantProblem(t, http.StatusNotFound, "unknown-route")
	r.ask("GET", "/admin/deposits", adminToken).wantProblem(t, http.StatusBadRequest, "invalid-request")
	r.ask("GET", "/admin/accounts/xyz", adminToken).wantProblem(t, http.StatusBadRequest, "invalid-request")
	if a := r.ask("GET", "/", ""); a.status != http.StatusOK || !strings.Contains(string(a.body), "/admin/status") {
		t.Errorf("page: %d", a.status)
	}
}

func TestAdminFreezesAnAccount(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	r.chat(k, request())
	r.idle(k)
	account := "/admin/accounts/" + k.id.TokenID.String()
	a := r.ask("GET", account, adminToken)
	if v := a.json(t); v["status"] != "active" || v["available_msat"] != float64(minPurchase-r.trueCost()) || len(v["recent"].([]any)) != 1 {
		t.Errorf("account %s", a.body)
	}
	if a := r.ask("POST", account+"/freeze", adminToken); a.status != http.StatusOK || a.json(t)["status"] != "frozen" {
		t.Errorf("freeze %d %s", a.status, a.body)
	}
	r.chat(k, request()).wantProblem(t, http.StatusForbidden, "invalid-credential")
	r.ask("POST", account+"/unfreeze", adminToken)
	if a := r.chat(k, request()); a.status != http.StatusOK {
		t.Errorf("unfrozen: %d", a.status)
	}
	r.ask("POST", account+"/revoke", adminToken)
	r.chat(k, request()).wantProblem(t, http.StatusForbidden, "invalid-credential")
	r.ask("POST", account+"/delete", adminToken).wantProblem(t, http.StatusNotFound, "unknown-route")
}

func TestMetricsTellNoSecretsAndStayBounded(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	r.chat(k, request("stream", "true"))
	for _, model := range []string{"a", "b", "c"} {
		r.chat(k, request("model", `"`+model+`"`))
		r.do("GET", "/"+model, "", nil)
	}
	m := r.metrics()
	for _, want := range []string{
		`sluice_requests_total{model="demo",outcome="complete"} 1`,
		`sluice_charged_msat_total{model="demo"} ` + amountText(r.trueCost()),
		`sluice_tokens_total{direction="output",model="demo",source="reported"} 24`,
		`sluice_challenges_total{result="made"} 1`,
		`sluice_backend_up{backend="gpu0"} 1`,
		`sluice_ledger_open_holds 0`,
		`sluice_first_byte_seconds_count{model="demo"} 1`,
		`sluice_price_epoch{model="demo"} 3`,
		`sluice_http_answers_total{class="4xx",route="unknown"} 3`,
	} {
		if !strings.Contains(m, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	for _, secret := range []string{k.preimage.Hex(), b64(k.macaroon), adminToken, "backend-key", k.id.TokenID.String(), `model="a"`} {
		if strings.Contains(m, secret) || strings.Contains(r.log.String(), secret) && secret != `model="a"` && secret != k.id.TokenID.String() {
			t.Errorf("%q is in the metrics or the log", secret)
		}
	}
}
