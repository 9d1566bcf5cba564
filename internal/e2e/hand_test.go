package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/l402"
)

// TestUnaryByHand does what the README's tour does: a 402, a payment with the
// agent's wallet, the same request with the credential.
func TestUnaryByHand(t *testing.T) {
	t.Parallel()
	c := demo.post(t, chat(), nil).challenge(t)
	paid := decode[struct {
		Preimage string `json:"preimage"`
		Hash     string `json:"payment_hash"`
		Amount   int64  `json:"amount_msat"`
		Fee      *int64 `json:"fee_msat"`
	}](t, runClient(t, 0, demo.AgentConfig, "wallet", "pay", "--json", c.invoice))
	if paid.Hash != c.id.PaymentHash.String() || paid.Amount != c.msat() || paid.Fee == nil {
		t.Errorf("wallet pay says %+v", paid)
	}
	credential := "L402 " + base64.StdEncoding.EncodeToString(c.macaroon) + ":" + paid.Preimage
	a := demo.post(t, chat(), header("Authorization", credential)).want(t, http.StatusOK)
	usage := decode[struct {
		Usage struct {
			Prompt     int64 `json:"prompt_tokens"`
			Completion int64 `json:"completion_tokens"`
		}
	}](t, a.body).Usage
	want := cost(usage.Prompt, usage.Completion)
	if got := a.msat(t, "L402-Cost-Msat"); got != want || usage.Completion != 24 {
		t.Errorf("charged %d msat for %d + %d tokens, want %d", got, usage.Prompt, usage.Completion, want)
	}
	if got := a.msat(t, "L402-Balance-Msat"); got != c.msat()-want {
		t.Errorf("balance %d msat after %d of %d were spent", got, want, c.msat())
	}
	if a.msat(t, "L402-Price-Epoch") < 1 || a.header.Get("L402-Request-Id") == "" {
		t.Errorf("no price epoch or request id: %v", a.header)
	}
	p, err := l402.ParsePreimage(paid.Preimage)
	if err != nil {
		t.Fatal(err)
	}
	entry := demo.entry(t, keyOf(c, p), a.header.Get("L402-Request-Id"))
	if entry.Charged != want || entry.Source != "reported" || entry.Outcome != "complete" || entry.Model != "demo" || entry.Service != "inference" {
		t.Errorf("the ledger says %+v", entry)
	}
}

func keyOf(c challenge, p l402.Preimage) credential { return credential{c.macaroon, p, c.id, c.msat()} }

// TestStreamByHand checks the end of a stream, and who gets to see the usage.
func TestStreamByHand(t *testing.T) {
	t.Parallel()
	k := demo.buy(t, 10_000)
	for _, row := range []struct {
		name, options string
		usages        int
	}{
		{"not asked", "", 0},
		{"asked not to", `{"include_usage":false}`, 0},
		{"asked", `{"include_usage":true}`, 1},
	} {
		body := chat("stream_options", row.options, "stream", "true")
		request, e := demo.all(t, k, body)
		e.complete(t)
		if got := strings.Count(e.raw, `"usage":{`); got != row.usages {
			t.Errorf("%s: %d events carry a usage, want %d:\n%s", row.name, got, row.usages, tail(e.raw))
		}
		if n, _ := e.content(t); n == 0 {
			t.Errorf("%s: no text came", row.name)
		}
		entry := demo.entry(t, k, request)
		wantPriced(t, entry)
		if entry.Charged != e.cost || entry.Usage.Output != 24 || entry.Source != "reported" {
			t.Errorf("%s: the stream says %d msat, the ledger %+v", row.name, e.cost, entry)
		}
		if b := demo.idle(t, k); b.Available != e.balance {
			t.Errorf("%s: the stream says a balance of %d, /l402/balance %d", row.name, e.balance, b.Available)
		}
	}
	if got := len(demo.charges(t, k)); got != 3 {
		t.Errorf("%d charges, want 3", got)
	}
}

// TestTopUp buys more for the same account.
func TestTopUp(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 5000)
	more := agent.pay(t, lab.do(t, http.MethodPost, "/l402/topup", `{"amount_msat":7000}`, k.header()).challenge(t))
	if more.id.TokenID != k.id.TokenID || more.paid != 7000 {
		t.Fatalf("the top-up is %d msat for account %s, want 7000 for %s", more.paid, more.id.TokenID, k.id.TokenID)
	}
	if more.id.PaymentHash == k.id.PaymentHash {
		t.Error("the top-up has the payment hash of the first purchase")
	}
	for i, c := range []credential{more, k} { // either of them spends from it
		if b := lab.balance(t, c); b.Available != 12_000 || b.Deposited != 12_000 || b.Account != k.id.TokenID.String() {
			t.Errorf("credential %d sees %+v", i, b)
		}
	}
	for _, body := range []string{"", "{}", `{"amount_msat":0}`, `{"amount_msat":-1}`, `{"amount_msat":"7000"}`, "[]"} {
		lab.do(t, http.MethodPost, "/l402/topup", body, k.header()).wantProblem(t, http.StatusBadRequest, "invalid-request")
	}
	lab.do(t, http.MethodPost, "/l402/topup", `{"amount_msat":10001000}`, k.header()).wantProblem(t, http.StatusBadRequest, "cost-above-maximum")
	stranger := lab.do(t, http.MethodPost, "/l402/topup", `{"amount_msat":7000}`, nil).challenge(t)
	if stranger.id.TokenID == k.id.TokenID {
		t.Error("a stranger was given somebody's account")
	}
}

// TestExhaustedBalance spends an account until it is short, tops it up with the
// 402 that follows, and goes on.
func TestExhaustedBalance(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 4000)
	spent := lab.post(t, chat("model", `"running"`, "n", "9", "max_tokens", "90"), k.header()).want(t, http.StatusOK)
	left := spent.msat(t, "L402-Balance-Msat")
	if left < 300 || left > 1000 {
		t.Fatalf("%d msat are left, which does not serve this test", left)
	}
	body := chat("model", `"running"`, "max_tokens", "256")
	a := lab.post(t, body, k.header())
	a.wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	c := a.challenge(t)
	if c.id.TokenID != k.id.TokenID {
		t.Errorf("the 402 is for account %s, want the caller's own", c.id.TokenID)
	}
	if c.problem["balance_msat"] != float64(left) || c.problem["amount_msat"] != float64(4000) {
		t.Errorf("balance_msat %v, amount_msat %v, want %d and the smallest purchase", c.problem["balance_msat"], c.problem["amount_msat"], left)
	}
	cut := lab.post(t, body, k.header("L402-Allow-Truncate", "1")).want(t, http.StatusOK)
	rest := cut.msat(t, "L402-Balance-Msat")
	if rest < 0 || cut.msat(t, "L402-Cost-Msat") != left-rest || cut.msat(t, "L402-Cost-Msat") < left/2 {
		t.Errorf("truncated to a cost of %d of the %d msat that were left; %d are left now", cut.msat(t, "L402-Cost-Msat"), left, rest)
	}
	if got := lab.balance(t, k).Available; got != rest {
		t.Errorf("%d msat are left, the answer said %d", got, rest)
	}
	// Nothing above has cost anything but the two answers; the token id stays.
	more := agent.pay(t, lab.post(t, body, k.header()).challenge(t))
	lab.post(t, body, more.header()).want(t, http.StatusOK)
	if b := lab.idle(t, more); b.Deposited != k.paid+more.paid || len(lab.charges(t, k)) != 3 {
		t.Errorf("after the top-up: %+v, %d charges", b, len(lab.charges(t, k)))
	}
}

// TestCredentialForms presents one credential in every form that is read.
func TestCredentialForms(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	hexed := func(m []byte) string { return hex.EncodeToString(m) }
	with := k.attenuate(t, "preimage="+k.preimage.Hex())
	std, url := base64.StdEncoding, base64.URLEncoding
	forms := map[string]http.Header{
		"L402":                   header("Authorization", "L402 "+std.EncodeToString(k.macaroon)+":"+k.preimage.Hex()),
		"lower case scheme":      header("Authorization", "l402 "+std.EncodeToString(k.macaroon)+":"+k.preimage.Hex()),
		"LSAT":                   header("Authorization", "LSAT "+std.EncodeToString(k.macaroon)+":"+k.preimage.Hex()),
		"lSaT":                   header("Authorization", "lSaT "+std.EncodeToString(k.macaroon)+":"+k.preimage.Hex()),
		"URL-safe":               header("Authorization", "L402 "+url.EncodeToString(k.macaroon)+":"+k.preimage.Hex()),
		"unpadded":               header("Authorization", "L402 "+std.WithPadding(base64.NoPadding).EncodeToString(k.macaroon)+":"+k.preimage.Hex()),
		"URL-safe unpadded":      header("Authorization", "L402 "+url.WithPadding(base64.NoPadding).EncodeToString(k.macaroon)+":"+k.preimage.Hex()),
		"upper case hex":         header("Authorization", "L402 "+std.EncodeToString(k.macaroon)+":"+strings.ToUpper(k.preimage.Hex())),
		"Macaroon":               header("Macaroon", hexed(with.macaroon)),
		"Grpc-Metadata-Macaroon": header("Grpc-Metadata-Macaroon", hexed(with.macaroon)),
		"Bearer":                 header("Authorization", "Bearer "+std.EncodeToString(k.macaroon)+":"+k.preimage.Hex()),
		"X-Api-Key":              header("X-Api-Key", std.EncodeToString(k.macaroon)+":"+k.preimage.Hex()),
		"Token":                  header("Token", hexed(with.macaroon)),
		"the same one twice":     header("Authorization", k.String(), "Macaroon", hexed(with.macaroon)),
		"after a foreign scheme": header("Authorization", "Bearer sk-1234", "Authorization", k.String()),
	}
	spent := int64(0)
	for name, h := range forms {
		a := lab.post(t, chat("model", `"running"`, "max_tokens", "4"), h)
		if a.status != http.StatusOK {
			t.Errorf("%s: status %d\n%s", name, a.status, a.body)
			continue
		}
		spent += a.msat(t, "L402-Cost-Msat")
		b := decode[balance](t, lab.do(t, http.MethodGet, "/l402/balance", "", h).want(t, http.StatusOK).body)
		if b.Account != k.id.TokenID.String() || b.Charged != spent {
			t.Errorf("%s: the account is %s, charged %d, want %s, %d", name, b.Account, b.Charged, k.id.TokenID, spent)
		}
	}
	for _, r := range lab.server.Requests() {
		for _, name := range []string{"Authorization", "Macaroon", "Grpc-Metadata-Macaroon", "Accept-Encoding"} {
			if r.Header.Get(name) != "" {
				t.Fatalf("the backend saw the client's %s", name)
			}
		}
	}
}

// TestIdempotencyKey charges a repeated request once.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	body := chat("model", `"running"`)
	first := lab.post(t, body, k.header("Idempotency-Key", "one")).want(t, http.StatusOK)
	again := lab.post(t, body, k.header("Idempotency-Key", "one"))
	p := again.wantProblem(t, http.StatusConflict, "duplicate-request")
	entry, _ := p["entry"].(map[string]any)
	if entry["request_id"] != first.header.Get("L402-Request-Id") || again.header.Get("X-Should-Retry") != "false" {
		t.Errorf("the duplicate's entry is %v, x-should-retry %q", entry, again.header.Get("X-Should-Retry"))
	}
	lab.post(t, chat("model", `"running"`, "max_tokens", "25"), k.header("Idempotency-Key", "one")).
		wantProblem(t, http.StatusUnprocessableEntity, "duplicate-request")

	running := lab.stream(t, k, chat("model", `"running"`, "max_tokens", "40"), "Idempotency-Key", "two", "X-Fault", "stall:3:1500ms")
	running.read(3)
	lab.post(t, chat("model", `"running"`, "max_tokens", "40"), k.header("Idempotency-Key", "two")).
		wantProblem(t, http.StatusUnprocessableEntity, "duplicate-request") // the stream's body has "stream":true
	streamed := `{"stream":true,` + strings.TrimPrefix(chat("model", `"running"`, "max_tokens", "40"), "{")
	lab.post(t, streamed, k.header("Idempotency-Key", "two")).wantProblem(t, http.StatusConflict, "duplicate-request")
	running.rest().complete(t)

	// What ended without a charge may be tried again.
	lab.post(t, body, k.header("Idempotency-Key", "three", "X-Fault", "status:500")).want(t, http.StatusBadGateway)
	lab.post(t, body, k.header("Idempotency-Key", "three")).want(t, http.StatusOK)
	lab.idle(t, k)
	if got := len(lab.charges(t, k)); got != 3 {
		t.Errorf("%d charges, want 3", got)
	}
}

// TestMaxCost refuses what could cost more than the client's own limit.
func TestMaxCost(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 4000)
	body := chat("model", `"running"`, "max_tokens", "100")
	p := lab.post(t, body, k.header("L402-Max-Cost-Msat", "399")).wantProblem(t, http.StatusPreconditionFailed, "cost-above-maximum")
	bound, _ := p["required_msat"].(float64)
	if bound < 400 || p["rates"] == nil || p["price_epoch"] == nil || p["model"] != "running" {
		t.Fatalf("the problem does not carry the quote: %v", p)
	}
	lab.wantFree(t, k)
	lab.post(t, body, k.header("L402-Max-Cost-Msat", fmt.Sprint(int64(bound)))).want(t, http.StatusOK)
}
