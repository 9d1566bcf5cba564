package gateway_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/l402"
)

func TestChallengeHasTheExactShape(t *testing.T) {
	r := newRig(t)
	a := r.do("POST", chatPath, request(), nil)
	p := a.wantProblem(t, http.StatusPaymentRequired, "payment-required")
	values := a.header["Www-Authenticate"]
	if len(values) != 1 {
		t.Fatalf("%d challenges, want one", len(values))
	}
	c, err := l402.ParseChallenge(values)
	if err != nil {
		t.Fatal(err)
	}
	m := b64(c.Macaroon)
	if want := `L402 macaroon="` + m + `", invoice="` + c.Invoice + `", version="0", token="` + m + `"`; values[0] != want {
		t.Errorf("challenge\n%s\nwant\n%s", values[0], want)
	}
	id, conditions, err := l402.Inspect(c.Macaroon)
	if err != nil {
		t.Fatal(err)
	}
	if p["payment_hash"] != id.PaymentHash.String() {
		t.Errorf("payment_hash %v is not the macaroon's", p["payment_hash"])
	}
	if conditions[0] != "services=inference:0" || !strings.HasPrefix(conditions[1], "inference_valid_until=") ||
		conditions[len(conditions)-1] != "inference_deposit_msat="+strconv.Itoa(minPurchase) {
		t.Errorf("caveats %v", conditions)
	}
	for _, name := range []string{"amount_msat", "required_msat", "price_epoch", "quote_expires_at", "model", "rates", "reusable"} {
		if _, ok := p[name]; !ok {
			t.Errorf("the problem lacks %s: %s", name, a.body)
		}
	}
	if _, ok := p["balance_msat"]; ok {
		t.Error("a stranger was told a balance")
	}
	if p["price_epoch"] != 3.0 || p["model"] != testModel || p["reusable"] != true {
		t.Errorf("members %v", p)
	}
	if rates, _ := p["rates"].(map[string]any); rates["input_msat_per_mtok"] != 1e6 {
		t.Errorf("rates %v", p["rates"])
	}
	invoice := r.node.pay(t, c.Invoice)
	sealed := gateway.SealedMemo(invoice.Memo)
	if !strings.HasPrefix(invoice.Memo, "Sluice test ") {
		t.Errorf("memo %q", invoice.Memo)
	}
	if account, err := r.keys.OpenMemo(sealed, id.PaymentHash, invoice.Amount); err != nil || account != id.TokenID {
		t.Errorf("memo opens to %v, %v", account, err)
	}
}

func TestProbesWithoutABodyGetTheMinimumPurchase(t *testing.T) {
	r := newRig(t)
	for _, body := range []string{"", "{", "{}", "null", "hello", "[1,", `{"model":`} {
		a := r.do("POST", chatPath, body, nil)
		a.wantProblem(t, http.StatusPaymentRequired, "payment-required")
		if got := a.msat(t, "amount_msat"); got != minPurchase {
			t.Errorf("body %q: amount %d", body, got)
		}
	}
	k := r.buy(100_000)
	for _, body := range []string{"", "{", "{}", "null", "hello"} {
		r.do("POST", chatPath, body, k.with()).wantProblem(t, http.StatusBadRequest, "invalid-request")
	}
	r.wantSpent(k, 0)
}

func TestNobodyIsAskedToPayForWhatCannotBeServed(t *testing.T) {
	r := newRig(t)
	k := r.buy(100_000)
	for name, body := range map[string]string{
		"unknown model": request("model", `"gpt-9"`),
		"no messages":   request("messages", ""),
		"model twice":   strings.Replace(request(), `"model":`, `"model":"other","model":`, 1),
		"wrong type":    request("max_tokens", `"many"`),
	} {
		for who, h := range map[string]header{"stranger": nil, "holder": k.with()} {
			a := r.do("POST", chatPath, body, h)
			if a.status < 400 || a.status >= 500 || a.status == http.StatusPaymentRequired {
				t.Errorf("%s as %s: status %d\n%s", name, who, a.status, a.body)
			}
			a.wantProblem(t, a.status, "invalid-request")
		}
	}
	if a := r.chat(k, request("model", `"gpt-9"`)); a.status != http.StatusNotFound || !strings.Contains(string(a.body), "/v1/models") {
		t.Errorf("unknown model: status %d %s", a.status, a.body)
	}
	r.wantSpent(k, 0)
	if made := r.node.count(); made != 1 {
		t.Errorf("%d invoices were made, want the one that was bought", made)
	}
}

func TestAmountIsTheLargestOfMinimumWishAndLack(t *testing.T) {
	r := newRig(t)
	amount := func(body, wish string) l402.Msat {
		h := header{}
		if wish != "" {
			h["L402-Deposit-Msat"] = wish
		}
		a := r.do("POST", chatPath, body, h)
		a.wantProblem(t, http.StatusPaymentRequired, "payment-required")
		return a.msat(t, "amount_msat")
	}
	if got := amount(request(), ""); got != minPurchase {
		t.Errorf("minimum: %d", got)
	}
	if got := amount(request(), "70001"); got != 71_000 {
		t.Errorf("a wish of 70001 gives %d, want it in whole satoshis", got)
	}
	if got := amount(request(), "10"); got != minPurchase {
		t.Errorf("a small wish gives %d", got)
	}
	if got := amount(request(), "99999999999"); got != maxPurchase {
		t.Errorf("a wish is clamped to the maximum, got %d", got)
	}
	big := request("max_tokens", "200", "n", "128")
	a := r.do("POST", chatPath, big, nil)
	required := a.msat(t, "required_msat")
	if required <= minPurchase || a.msat(t, "amount_msat") != required.CeilSats() {
		t.Errorf("a request that needs %d was asked for %d", required, a.msat(t, "amount_msat"))
	}
}

func TestRequestAboveTheLargestPurchaseGetsNoInvoice(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.service = func(svc *gateway.Service) { svc.MaxPurchase = 60_000 }
	})
	a := r.do("POST", chatPath, request("max_tokens", "256", "n", "128"), nil)
	p := a.wantProblem(t, http.StatusBadRequest, "cost-above-maximum")
	if p["required_msat"].(float64) <= 60_000 {
		t.Errorf("required %v", p["required_msat"])
	}
	if r.node.count() != 0 {
		t.Error("an invoice was made")
	}
}

func TestTopUpAsksOnlyForWhatIsLacking(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	a := r.chat(k, request("max_tokens", "256", "n", "120"))
	p := a.wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	required := a.msat(t, "required_msat")
	if a.msat(t, "balance_msat") != minPurchase {
		t.Errorf("balance %v", p["balance_msat"])
	}
	if got, want := a.msat(t, "amount_msat"), max(minPurchase, required-minPurchase).CeilSats(); got != want {
		t.Errorf("amount %d, want %d", got, want)
	}
	more := r.pay(a)
	if more.id.TokenID != k.id.TokenID {
		t.Fatal("the top-up opened another account")
	}
	if got := r.balance(more).msat(t, "deposited_msat"); got != minPurchase+more.amount {
		t.Errorf("deposited %d", got)
	}
	r.wantSpent(k, 0)
}

func TestChallengeIsRepeatedOnlyToWhoProvedItself(t *testing.T) {
	r := newRig(t)
	hash := func(h header) string {
		return r.do("POST", chatPath, request(), h).json(t)["payment_hash"].(string)
	}
	if one, two := hash(nil), hash(nil); one == two {
		t.Error("two strangers got the same challenge")
	}
	one, two := header{"L402-Client-Nonce": strings.Repeat("1a", 16)}, header{"L402-Client-Nonce": strings.Repeat("2b", 16)}
	first := hash(one)
	if hash(one) != first {
		t.Error("the same nonce got another challenge")
	}
	if hash(two) == first {
		t.Error("another nonce got the same challenge")
	}
	other := r.do("POST", chatPath, request(), header{"L402-Client-Nonce": one["L402-Client-Nonce"], "L402-Deposit-Msat": "90000"})
	if other.json(t)["payment_hash"] == first {
		t.Error("another amount got the same challenge")
	}
	r.clock.advance(61 * time.Second)
	if hash(one) == first {
		t.Error("a challenge older than a minute was repeated")
	}

	k := r.buy(minPurchase)
	big := request("max_tokens", "256", "n", "120")
	a := r.chat(k, big)
	again := r.chat(k, big)
	if a.json(t)["payment_hash"] != again.json(t)["payment_hash"] {
		t.Error("a token's challenge was not repeated")
	}
	paid := r.pay(a)
	r.balance(paid) // presents the token
	if r.chat(k, request("max_tokens", "256", "n", "128")).json(t)["payment_hash"] == a.json(t)["payment_hash"] {
		t.Error("a paid challenge was given again")
	}
	if b := r.chat(k.attenuate(t, "inference_label=x"), big); b.status == http.StatusPaymentRequired {
		if b.json(t)["payment_hash"] == again.json(t)["payment_hash"] {
			t.Error("an attenuated token got the parent's challenge")
		}
	}
}

func TestPaidChallengeIsNeverGivenAgain(t *testing.T) {
	r := newRig(t)
	h := header{"L402-Client-Nonce": "0123456789abcdef0123456789abcdef"}
	a := r.do("POST", chatPath, request(), h)
	r.balance(r.pay(a))
	b := r.do("POST", chatPath, request(), h)
	if a.json(t)["payment_hash"] == b.json(t)["payment_hash"] {
		t.Error("the challenge was given again after it was paid")
	}
}

func TestLightningAway(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	r.balance(k)
	r.node.down.Store(true)
	a := r.do("POST", chatPath, request(), nil)
	a.wantProblem(t, http.StatusServiceUnavailable, "lightning-unavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if a := r.chat(k, request()); a.status != http.StatusOK {
		t.Errorf("a token with a balance got %d", a.status)
	}
	ready := r.do("GET", "/readyz", "", nil)
	if parts, _ := ready.json(t)["parts"].(map[string]any); ready.status != http.StatusServiceUnavailable || parts["lightning"] == "ok" || parts["store"] != "ok" {
		t.Errorf("readyz: %d %s", ready.status, ready.body)
	}
	r.node.down.Store(false)
	r.buy(minPurchase)
}

func TestFloodOfChallengesLeavesRoomForHolders(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.MaxInvoices = 4; c.InvoiceTimeout = 3 * time.Second }
	})
	k := r.buy(minPurchase)
	r.node.gate = make(chan struct{}, 1)
	var strangers sync.WaitGroup
	for range 12 {
		strangers.Go(func() { r.do("POST", chatPath, request(), nil) })
	}
	// Callers without a token take three of the four slots at most. The fourth is for a holder.
	topUp := make(chan *answer, 1)
	strangers.Go(func() { topUp <- r.do("POST", "/l402/topup", `{"amount_msat":60000}`, k.with()) })
	for range 13 {
		r.node.gate <- struct{}{}
	}
	strangers.Wait()
	(<-topUp).wantProblem(t, http.StatusPaymentRequired, "payment-required")
}

func TestInvalidPreferencesAreRefused(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	for name, values := range map[string][]string{
		"L402-Deposit-Msat":   {"-1", "1.5", "1k", "", "007", "99999999999999999999"},
		"L402-Max-Cost-Msat":  {"-1", "cheap", ""},
		"L402-Allow-Truncate": {"yes", "2"},
		"L402-Client-Nonce":   {"short", strings.Repeat("x", 300)},
		"Idempotency-Key":     {"", strings.Repeat("k", 256)},
	} {
		for _, value := range values {
			r.chat(k, request(), name, value).wantProblem(t, http.StatusBadRequest, "invalid-request")
		}
	}
	r.wantSpent(k, 0)
}
