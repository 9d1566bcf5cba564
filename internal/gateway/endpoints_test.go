package gateway_test

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/metering"
)

func TestModelsShowLivePrices(t *testing.T) {
	r := newRig(t)
	a := r.do("GET", "/v1/models", "", nil)
	var list struct {
		Object string
		Data   []struct {
			ID, Object string
			Created    int64
			OwnedBy    string `json:"owned_by"`
			L402       struct {
				Rates      map[string]int64
				Epoch      int64 `json:"price_epoch"`
				Multiplier float64
				Signal     *float64
				BoundBy    string `json:"bound_by"`
			}
		}
	}
	if err := json.Unmarshal(a.body, &list); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %v\n%s", a.status, err, a.body)
	}
	m := list.Data[0]
	if list.Object != "list" || m.ID != testModel || m.Object != "model" || m.Created != 1_700_000_000 || m.OwnedBy != "sluice" {
		t.Errorf("list %s", a.body)
	}
	if m.L402.Rates["output_msat_per_mtok"] != 2_000_000 || m.L402.Epoch != 3 || m.L402.Multiplier != 1 || m.L402.BoundBy != "fixed" || m.L402.Signal == nil {
		t.Errorf("prices %s", a.body)
	}
}

func TestQuote(t *testing.T) {
	r := newRig(t)
	a := r.do("GET", "/l402/quote?model=demo&input_tokens=100&max_tokens=50", "", nil)
	q := a.json(t)
	if a.status != http.StatusOK || a.msat(t, "bound_msat") != 200 || q["price_epoch"] != 3.0 || q["rates"] == nil {
		t.Errorf("%d %s", a.status, a.body)
	}
	if expiry, err := time.Parse(time.RFC3339, q["quote_expires_at"].(string)); err != nil || time.Until(expiry) < 30*time.Second {
		t.Errorf("expiry %v", q["quote_expires_at"])
	}
	if a := r.do("GET", "/l402/quote?model=demo", "", nil); a.msat(t, "bound_msat") != 512 {
		t.Errorf("without tokens: %s", a.body)
	}
	r.do("GET", "/l402/quote?model=nope", "", nil).wantProblem(t, http.StatusNotFound, "invalid-request")
	r.do("GET", "/l402/quote?model=demo&max_tokens=-4", "", nil).wantProblem(t, http.StatusBadRequest, "invalid-request")
	r.do("GET", "/l402/quote?model=demo&input_tokens=99999999999999999999", "", nil).wantProblem(t, http.StatusBadRequest, "invalid-request")
	r.do("GET", "/l402/quote?model=demo&input_tokens=9223372036854775807", "", nil).wantProblem(t, http.StatusBadRequest, "invalid-request")
}

func TestBalanceIsTheNumberThatAdmissionUses(t *testing.T) {
	r := newRig(t)
	body := request("max_tokens", "100")
	required := r.do("POST", chatPath, body, nil).msat(t, "required_msat")
	for _, c := range []struct {
		credit int64
		status int
	}{{int64(required), http.StatusOK}, {int64(required) - 1, http.StatusPaymentRequired}} {
		k := r.mint(testService, newTokenID(), l402Msat(int(c.credit)), tomorrow())
		a := r.balance(k)
		if got := a.msat(t, "available_msat"); int64(got) != c.credit {
			t.Errorf("available %d", got)
		}
		for _, name := range []string{"account", "held_msat", "deposited_msat", "charged_msat", "refunded_msat", "budgets"} {
			if _, ok := a.json(t)[name]; !ok {
				t.Errorf("balance lacks %s: %s", name, a.body)
			}
		}
		if a.json(t)["account"] != k.id.TokenID.String() || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("balance %s", a.body)
		}
		if a := r.chat(k, body); a.status != c.status {
			t.Errorf("with %d msat: status %d, want %d", c.credit, a.status, c.status)
		}
	}
	r.do("GET", "/l402/balance", "", nil).wantProblem(t, http.StatusPaymentRequired, "payment-required")
	other := r.mint("images", newTokenID(), 777, tomorrow()) // a token of another service
	if a := r.do("GET", "/l402/balance", "", other.with()); a.status != http.StatusOK || a.msat(t, "available_msat") != 777 {
		t.Errorf("another service's token: %d %s", a.status, a.body)
	}
}

func TestUsageIsPagedNewestFirst(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	for range 5 {
		r.chat(k, request("max_tokens", "2"))
	}
	r.idle(k)
	var seen []metering.Entry
	next := ""
	for range 5 {
		a := r.do("GET", "/l402/usage?limit=2&next="+url.QueryEscape(next), "", k.with())
		var page struct {
			Charges []metering.Entry
			Next    string
		}
		if err := json.Unmarshal(a.body, &page); err != nil || a.status != http.StatusOK {
			t.Fatalf("%d %v\n%s", a.status, err, a.body)
		}
		seen, next = append(seen, page.Charges...), page.Next
		if next == "" {
			break
		}
	}
	if len(seen) != 5 {
		t.Fatalf("%d charges over all pages", len(seen))
	}
	for i := 1; i < len(seen); i++ {
		if seen[i].At.After(seen[i-1].At) {
			t.Error("not newest first")
		}
	}
	since := seen[1].At.Format(time.RFC3339Nano)
	a := r.do("GET", "/l402/usage?since="+url.QueryEscape(since), "", k.with())
	if got := strings.Count(string(a.body), `"request_id"`); got != 2 {
		t.Errorf("since %s: %d charges\n%s", since, got, a.body)
	}
	if a := r.do("GET", "/l402/usage?since=99999999999", "", k.with()); string(a.body) != "{\"charges\":[]}\n" {
		t.Errorf("in the future: %s", a.body)
	}
	for _, query := range []string{"since=yesterday", "limit=0", "limit=x", "next=zzz", "since=-5"} {
		r.do("GET", "/l402/usage?"+query, "", k.with()).wantProblem(t, http.StatusBadRequest, "invalid-request")
	}
}

func TestTopUpEndpoint(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	a := r.do("POST", "/l402/topup", `{"amount_msat":120000}`, k.with())
	p := a.wantProblem(t, http.StatusPaymentRequired, "payment-required")
	more := r.pay(a)
	if more.id.TokenID != k.id.TokenID || more.amount != 120_000 {
		t.Errorf("top-up %+v", more.id)
	}
	if p["macaroon"] != b64(more.macaroon) || p["invoice"] == nil || p["payment_hash"] != more.id.PaymentHash.String() || p["balance_msat"] != float64(minPurchase) {
		t.Errorf("the challenge is not in the JSON: %s", a.body)
	}
	if got := r.balance(more).msat(t, "available_msat"); got != minPurchase+120_000 {
		t.Errorf("available %d", got)
	}
	for _, body := range []string{"", "{}", `{"amount_msat":0}`, `{"amount_msat":-5}`, `{"amount_msat":"many"}`, `{"amount_msat":1.5}`} {
		r.do("POST", "/l402/topup", body, k.with()).wantProblem(t, http.StatusBadRequest, "invalid-request")
	}
	r.do("POST", "/l402/topup", `{"amount_msat":5000001}`, k.with()).wantProblem(t, http.StatusBadRequest, "cost-above-maximum")
	r.do("POST", "/l402/topup", `{"amount_msat":60000}`, nil).wantProblem(t, http.StatusPaymentRequired, "payment-required")
}

func TestUnknownRoutesAndMethods(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/", "/v1/completions/x", "/v1/engines/m/completions", "/v1/chat/completions/x", "/v1/chat/./completions", "/chat/completions", "/metrics", "/admin/status", "/l402/refund"} {
		r.do("POST", path, request(), nil).wantProblem(t, http.StatusNotFound, "unknown-route")
	}
	a := r.do("PUT", chatPath, request(), nil)
	a.wantProblem(t, http.StatusMethodNotAllowed, "unknown-route")
	if a.header.Get("Allow") != "POST" {
		t.Errorf("Allow %q", a.header.Get("Allow"))
	}
	if n := len(r.backend.Requests()); n != 0 {
		t.Errorf("%d requests reached the backend", n)
	}
}

func TestHostsChooseTheService(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.service = func(svc *gatewayService) { svc.Hosts = []string{"llm.example"} }
	})
	for host, status := range map[string]int{"llm.example": 402, "LLM.example:8443": 402, "other.example": 404} {
		req := r.newRequest("POST", chatPath, request(), nil)
		req.Host = host
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		drainBody(resp)
		if resp.StatusCode != status {
			t.Errorf("host %s: status %d, want %d", host, resp.StatusCode, status)
		}
	}
}

func TestHealthAndReadiness(t *testing.T) {
	r := newRig(t)
	if a := r.do("GET", "/healthz", "", nil); a.status != http.StatusOK {
		t.Errorf("healthz %d", a.status)
	}
	a := r.do("GET", "/readyz", "", nil)
	parts, _ := a.json(t)["parts"].(map[string]any)
	if a.status != http.StatusOK || parts["store"] != "ok" || parts["lightning"] != "ok" || parts["backends"] != "ok" {
		t.Errorf("readyz %d %s", a.status, a.body)
	}
}

func TestHTTP2(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	r.client = &http.Client{Transport: &http.Transport{Protocols: protocols}, Timeout: 20 * time.Second}
	a := r.chat(k, request("stream", "true"))
	charged := r.trueCost()
	if told, _ := comment(t, a.body); a.status != http.StatusOK || told != charged || amountHeader(t, a.trailer, "L402-Cost-Msat") != charged {
		t.Errorf("%d %v %v\n%s", a.status, a.header, a.trailer, tail(a.body))
	}
	resp := r.open(t.Context(), "POST", chatPath, request("max_tokens", "4"), k.with())
	drainBody(resp)
	if resp.ProtoMajor != 2 {
		t.Errorf("protocol %s", resp.Proto)
	}
}

// TestHTTP2AnswersMayTakeTheirTime: an answer on an HTTP/2 stream may take longer than WriteStall,
// which bounds each write.
func TestHTTP2AnswersMayTakeTheirTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.WriteStall = 300 * time.Millisecond }
	})
	k := r.buy(minPurchase)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	h2 := &http.Client{Transport: &http.Transport{Protocols: protocols}, Timeout: 20 * time.Second}
	for _, r.client = range []*http.Client{r.client, h2} {
		for _, stream := range []string{"true", "false"} {
			for _, fault := range []string{"stall-headers:900ms", "stall:5:900ms"} {
				a := r.chat(k, request("stream", stream), "X-Fault", fault)
				if a.status != http.StatusOK || (stream == "true") != strings.HasSuffix(string(a.body), "data: [DONE]\n\n") {
					t.Errorf("%s: %d\n%s", fault, a.status, tail(a.body))
				}
			}
		}
	}
}

func TestTLSFromFiles(t *testing.T) {
	cert, key := selfSigned(t)
	if _, err := intake.NewServer(intake.ServerConfig{Handler: http.NotFoundHandler(), CertFile: cert}); err == nil {
		t.Error("a certificate without a key was taken")
	}
	r := newRig(t)
	srv, err := intake.NewServer(intake.ServerConfig{Handler: r.gw.Handler(), CertFile: cert, KeyFile: key})
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t)
	go srv.ServeTLS(listener, "", "")
	t.Cleanup(func() { srv.Close() })
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := (&http.Client{Transport: transport}).Get("https://" + listener.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	drainBody(resp)
	if resp.ProtoMajor != 2 || resp.StatusCode != http.StatusOK {
		t.Errorf("%s %d", resp.Proto, resp.StatusCode)
	}
}
