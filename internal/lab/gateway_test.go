package lab_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice.example/sluice/internal/lab"
)

// told returns a gateway whose server answers each path with one text, and other paths with 404.
func told(t *testing.T, answers map[string]string) *lab.Gateway {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := answers[r.URL.RequestURI()]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Trailer", "L402-Cost-Msat")
		fmt.Fprint(w, strings.NewReplacer("AUTH", r.Header.Get("Authorization"), "HOST", r.Host).Replace(text))
		w.Header().Set("L402-Cost-Msat", "12")
	}))
	t.Cleanup(s.Close)
	return lab.NewGateway(s.URL, s.URL, "secret")
}

func TestGateway(t *testing.T) {
	g := told(t, map[string]string{
		"/l402/balance":                  `{"account":"AUTH","available_msat":7,"held_msat":3}`,
		"/l402/usage?limit=500&next=":    `{"charges":[{"request_id":"b","charged_msat":2}],"next":"x y"}`,
		"/l402/usage?limit=500&next=x+y": `{"charges":[{"request_id":"a","charged_msat":1}]}`,
		"/metrics":                       "# HELP one\none{model=\"a b\"} 1.5\ntwo 2\n",
		"/hello":                         "HOST AUTH",
	})
	ctx := t.Context()
	b, err := g.Balance(ctx, http.Header{"Authorization": {"L402 me"}})
	if err != nil || b.Account != "L402 me" || b.Available != 7 || b.Held != 3 {
		t.Errorf("balance %+v, %v", b, err)
	}
	charges, err := g.Charges(ctx, nil)
	if err != nil || len(charges) != 2 || charges[0].Request != "b" || charges[1].Charged != 1 {
		t.Errorf("charges %+v, %v", charges, err)
	}
	samples, err := g.Metrics(ctx)
	if err != nil || samples[`one{model="a b"}`] != 1.5 || samples["two"] != 2 {
		t.Errorf("metrics %v, %v", samples, err)
	}
	a, err := g.Do(ctx, http.MethodGet, "/hello", "", http.Header{"Host": {"other.test"}})
	if err != nil || string(a.Body) != "other.test " {
		t.Errorf("another host: %v, %v", a, err)
	}
	if n, err := a.Msat("L402-Cost-Msat"); n != 12 || err != nil {
		t.Errorf("the cost in the trailer: %d, %v", n, err)
	}
	if a, err = g.Operator(ctx, http.MethodGet, "/hello", ""); err != nil || !strings.HasSuffix(string(a.Body), "Bearer secret") {
		t.Errorf("operator: %v, %v", a, err)
	}
	if err := g.Ready(ctx); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("not ready: %v", err)
	}
}
