package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/gateway/intake"
)

const page = "https://app.example"

func withOrigins(origins ...string) func(*setup) {
	return func(s *setup) { s.service = func(svc *gatewayService) { svc.Origins = origins } }
}

// preflight sends the request with which a browser asks whether a page may send its request.
func (r *rig) preflight(origin string) *answer {
	r.t.Helper()
	return r.do("OPTIONS", chatPath, "", header{"Origin": origin, "Access-Control-Request-Method": "POST",
		"Access-Control-Request-Headers": "authorization,content-type,x-stainless-os"})
}

func TestPagesOfListedOriginsMayCallAndPay(t *testing.T) {
	r := newRig(t, withOrigins(page))
	k := r.buy(minPurchase)
	invoices := r.node.count()
	a := r.preflight(page)
	allowed := a.header.Get("Access-Control-Allow-Headers")
	if a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Origin") != page ||
		!strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "POST") || allowed != "authorization,content-type,x-stainless-os" {
		t.Errorf("preflight: %d %v", a.status, a.header)
	}
	if r.node.count() != invoices {
		t.Error("a preflight made an invoice")
	}
	for name, a := range map[string]*answer{
		"402":       r.do("POST", chatPath, request(), header{"Origin": page}),
		"200":       r.chat(k, request(), "Origin", page),
		"stream":    r.chat(k, request("stream", "true"), "Origin", page),
		"400":       r.chat(k, "{", "Origin", page),
		"404":       r.do("GET", "/nowhere", "", header{"Origin": page}),
		"a refusal": r.chat(k, request(), "Origin", page, "X-Fault", "status:400"),
		"models":    r.do("GET", "/v1/models", "", header{"Origin": page}),
	} {
		exposed := strings.ToLower(a.header.Get("Access-Control-Expose-Headers"))
		if a.header.Get("Access-Control-Allow-Origin") != page || len(a.header["Access-Control-Allow-Origin"]) != 1 || !strings.Contains(a.header.Get("Vary"), "Origin") {
			t.Errorf("%s: %v", name, a.header)
		}
		for _, header := range []string{"www-authenticate", "l402-cost-msat", "l402-balance-msat", "l402-price-epoch", "l402-request-id", "payment-receipt", "x-request-id", "retry-after"} {
			if !strings.Contains(exposed, header) {
				t.Errorf("%s: the page may not read %s", name, header)
			}
		}
	}
}

func TestOtherPagesAreToldNothing(t *testing.T) {
	for _, r := range []*rig{newRig(t), newRig(t, withOrigins(page))} {
		for _, origin := range []string{"https://evil.example", "null", "https://app.example.evil.example", ""} {
			for _, a := range []*answer{r.preflight(origin), r.do("POST", chatPath, request(), header{"Origin": origin})} {
				for name := range a.header {
					if strings.HasPrefix(name, "Access-Control-") {
						t.Errorf("origin %q: %s: %v", origin, name, a.header[name])
					}
				}
			}
		}
	}
	if a := newRig(t, withOrigins("*")).preflight("https://any.example"); a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("all origins: %d %v", a.status, a.header)
	}
}

// TestBackendsDoNotOpenTheGatewayToPages: a backend's own CORS headers, which let every page in, do
// not reach the client.
func TestBackendsDoNotOpenTheGatewayToPages(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}`)
	}))
	t.Cleanup(backend.Close)
	r := newRig(t, func(s *setup) { s.backendURLs = []string{backend.URL} })
	a := r.chat(r.buy(minPurchase), request(), "Origin", page)
	if a.status != http.StatusOK || a.header.Get("Access-Control-Allow-Origin") != "" || a.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%d %v", a.status, a.header)
	}
}

func TestPreflightsAreLimited(t *testing.T) {
	r := newRig(t, withOrigins(page), func(s *setup) {
		s.gateway = func(c *gateway.Config) {
			c.Challenges = &intake.ChallengeLimits{Address: intake.Rate{PerSecond: 0.001, Burst: 2}}
		}
	})
	for range 2 {
		if a := r.preflight(page); a.status != http.StatusNoContent {
			t.Fatalf("status %d", a.status)
		}
	}
	a := r.preflight(page)
	a.wantProblem(t, http.StatusTooManyRequests, "rate-limited")
	if a.header.Get("Access-Control-Allow-Origin") != page {
		t.Error("the page cannot read why")
	}
	long := header{"Origin": page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": repeat("x-header,", 1000)}
	newRig(t, withOrigins(page)).do("OPTIONS", chatPath, "", long).wantProblem(t, http.StatusBadRequest, "invalid-request")
}

// TestProbesOfPaidRoutes: directories probe a paid route with GET or HEAD, and get the challenge.
func TestProbesOfPaidRoutes(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	for _, method := range []string{"GET", "HEAD"} {
		a := r.do(method, chatPath, "", nil)
		if a.status != http.StatusPaymentRequired || r.pay(a).amount != minPurchase {
			t.Errorf("%s: status %d %v", method, a.status, a.header)
		}
		a = r.do(method, chatPath, "", k.with())
		if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "POST" || a.header["Www-Authenticate"] != nil {
			t.Errorf("%s with a token: status %d %v", method, a.status, a.header)
		}
		bad := k
		bad.preimage[0] ^= 1
		if a := r.do(method, chatPath, "", bad.with()); a.status != http.StatusUnauthorized {
			t.Errorf("%s with a wrong preimage: status %d", method, a.status)
		}
		expired := r.mint(testService, newTokenID(), 60_000, tomorrow().AddDate(0, 0, -2))
		if a := r.do(method, chatPath, "", expired.with()); a.status != http.StatusPaymentRequired || r.pay(a).id.TokenID != expired.id.TokenID {
			t.Errorf("%s with an expired token: status %d", method, a.status)
		}
	}
	if a := r.do("HEAD", "/", "", nil); a.status != http.StatusOK || len(a.body) != 0 {
		t.Errorf("HEAD /: %d %q", a.status, a.body)
	}
	for _, path := range []string{"/v1/models", "/v1/models/" + testModel, "/healthz", "/readyz"} {
		if a := r.do("HEAD", path, "", nil); a.status != http.StatusOK {
			t.Errorf("HEAD %s: %d", path, a.status)
		}
	}
	r.wantSpent(k, 0)
}

func TestProbesAreLimited(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) {
			c.Challenges = &intake.ChallengeLimits{Address: intake.Rate{PerSecond: 0.001, Burst: 1}}
		}
	})
	for _, want := range []int{http.StatusPaymentRequired, http.StatusTooManyRequests} {
		if a := r.do("GET", chatPath, "", nil); a.status != want {
			t.Errorf("status %d, want %d", a.status, want)
		}
	}
}

func TestOneModel(t *testing.T) {
	r := newRig(t)
	a := r.do("GET", "/v1/models/"+testModel, "", nil)
	if p := a.json(t); a.status != http.StatusOK || p["id"] != testModel || p["object"] != "model" || p["l402"] == nil {
		t.Errorf("%d %s", a.status, a.body)
	}
	r.do("GET", "/v1/models/no/such", "", nil).wantProblem(t, http.StatusNotFound, "invalid-request")
	if a := r.do("GET", "/v1/models/", "", nil); a.status != http.StatusOK || a.json(t)["object"] != "list" {
		t.Errorf("the list with a slash: %d %s", a.status, a.body)
	}
}
