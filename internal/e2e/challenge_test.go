package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab/labtest"
)

// TestChallengeShape checks the 402 to the letter, as deployed clients read it.
func TestChallengeShape(t *testing.T) {
	t.Parallel()
	before := time.Now()
	a := demo.post(t, chat("max_tokens", "50"), nil)
	c := a.challenge(t)
	mac := base64.StdEncoding.EncodeToString(c.macaroon)
	want := []string{`L402 macaroon="` + mac + `", invoice="` + c.invoice + `", version="0", token="` + mac + `"`}
	if got := a.header["Www-Authenticate"]; !slices.Equal(got, want) {
		t.Errorf("WWW-Authenticate is\n%q, want\n%q", got, want)
	}
	if !strings.HasPrefix(c.invoice, "lnbcrt") {
		t.Errorf("the invoice is %s", c.invoice)
	}
	until, ok := strings.CutPrefix(c.conds[1], "inference_valid_until=")
	seconds, err := strconv.ParseInt(until, 10, 64)
	if !ok || err != nil || time.Unix(seconds, 0).Sub(before).Round(time.Hour) != 365*24*time.Hour {
		t.Errorf("the token is valid until %q, want 365 days", c.conds[1])
	}
	p := c.problem
	expires, err := time.Parse(time.RFC3339, fmt.Sprint(p["quote_expires_at"]))
	if err != nil || expires.Before(before) || expires.After(before.Add(time.Hour)) {
		t.Errorf("quote_expires_at is %v (%v)", p["quote_expires_at"], err)
	}
	lock := fmt.Sprintf("inference_rate_lock=%v:%d", p["price_epoch"], expires.Unix())
	if deposit := fmt.Sprintf("inference_deposit_msat=%d", c.msat()); len(c.conds) != 4 || c.conds[0] != "services=inference:0" || c.conds[2] != lock || c.conds[3] != deposit {
		t.Errorf("the caveats are %q for a quote %q and an invoice of %d msat", c.conds, lock, c.msat())
	}
	if p["amount_msat"] != float64(c.msat()) || p["payment_hash"] != c.id.PaymentHash.String() || p["reusable"] != true ||
		p["model"] != "demo" || p["balance_msat"] != nil {
		t.Errorf("the problem is %s", a.body)
	}
	required, _ := p["required_msat"].(float64)
	epoch, _ := p["price_epoch"].(float64)
	rates, _ := p["rates"].(map[string]any)
	if required < 4*50 || epoch < 1 || rates["input_msat_per_mtok"] != 1e6 || rates["output_msat_per_mtok"] != 4e6 || len(rates) != 2 {
		t.Errorf("required %v, epoch %v, rates %v", required, epoch, rates)
	}
	if strings.Contains(c.bolt11.Description, c.id.TokenID.String()) || len(c.bolt11.Description) < 40 {
		t.Errorf("the memo %q should carry the account, sealed", c.bolt11.Description)
	}
}

// TestChallengeIsNobodyElses gives two callers the same challenge only when
// they prove to be one.
func TestChallengeIsNobodyElses(t *testing.T) {
	t.Parallel()
	nonce := "0123456789abcdef-" + t.Name()
	one, two := lab.post(t, chat("model", `"running"`), nil).challenge(t), lab.post(t, chat("model", `"running"`), nil).challenge(t)
	if one.id.PaymentHash == two.id.PaymentHash || one.id.TokenID == two.id.TokenID {
		t.Error("two strangers got the same challenge")
	}
	first := lab.post(t, chat("model", `"running"`), header("L402-Client-Nonce", nonce)).challenge(t)
	again := lab.post(t, chat("model", `"running"`), header("L402-Client-Nonce", nonce)).challenge(t)
	other := lab.post(t, chat("model", `"running"`), header("L402-Client-Nonce", nonce+"x")).challenge(t)
	if first.invoice != again.invoice || !slices.Equal(first.macaroon, again.macaroon) {
		t.Error("the same nonce got another challenge")
	}
	if other.id.PaymentHash == first.id.PaymentHash {
		t.Error("another nonce got the same challenge")
	}
	lab.post(t, chat("model", `"running"`), header("L402-Client-Nonce", "too short")).wantProblem(t, http.StatusBadRequest, "invalid-request")

	// Who holds a valid token gets its last challenge again, nobody else does.
	k := lab.buy(t, 4000)
	big := chat("model", `"running"`, "n", "8", "max_tokens", "250")
	mine, mineAgain := lab.post(t, big, k.header()).challenge(t), lab.post(t, big, k.header()).challenge(t)
	if mine.invoice != mineAgain.invoice || mine.id.TokenID != k.id.TokenID {
		t.Error("a holder's repeated request got another challenge")
	}
	// Once it is paid it is not given out again.
	agent.pay(t, mine)
	labtest.Eventually(t, 10*time.Second, "the payment arrives", func() error {
		if b := lab.balance(t, k); b.Deposited != k.paid+mine.msat() {
			return fmt.Errorf("deposited %d msat", b.Deposited)
		}
		return nil
	})
	if next := lab.do(t, http.MethodPost, "/l402/topup", fmt.Sprintf(`{"amount_msat":%d}`, mine.msat()), k.header()).challenge(t); next.id.PaymentHash == mine.id.PaymentHash {
		t.Error("a paid invoice was offered again")
	}
}

// TestChallengeForProbes answers what directories send.
func TestChallengeForProbes(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "{", "{}", "null", "[]", `""`, "garbage", "\xff\xfe"} {
		c := lab.post(t, body, nil).challenge(t)
		if c.msat() != 4000 {
			t.Errorf("a probe with the body %q is asked for %d msat, want the smallest purchase", body, c.msat())
		}
	}
	// What says something that cannot be sold is told so, for free.
	lab.post(t, chat("model", `"no-such-model"`), nil).wantProblem(t, http.StatusNotFound, "invalid-request")
	lab.post(t, chat("messages", "7"), nil).wantProblem(t, http.StatusBadRequest, "invalid-request")
}

// TestChallengeAmount checks how much is asked for.
func TestChallengeAmount(t *testing.T) {
	t.Parallel()
	// The bound of big is about 8×250×4 msat and a prompt.
	big := chat("model", `"running"`, "n", "8", "max_tokens", "250")
	required := lab.post(t, big, nil).challenge(t).problem["required_msat"].(float64)
	for _, row := range []struct {
		name, body, wish string
		want             int64
	}{
		{"the smallest purchase", chat("model", `"running"`), "", 4000},
		{"a smaller wish", chat("model", `"running"`), "1", 4000},
		{"the buyer's wish", chat("model", `"running"`), "50000", 50_000},
		{"a wish in whole satoshis", chat("model", `"running"`), "50001", 51_000},
		{"a wish beyond the largest purchase", chat("model", `"running"`), "99000000", 10_000_000},
		{"what the request lacks", big, "5000", (int64(required) + 999) / 1000 * 1000},
	} {
		h := header()
		if row.wish != "" {
			h = header("L402-Deposit-Msat", row.wish)
		}
		if got := lab.post(t, row.body, h).challenge(t).msat(); got != row.want {
			t.Errorf("%s: asked for %d msat, want %d", row.name, got, row.want)
		}
	}
	a := lab.post(t, chat("model", `"running"`, "n", "100", "max_tokens", "256"), nil).challenge(t)
	if a.msat() < 100*256*4 {
		t.Errorf("asked for %d msat, less than the request may cost", a.msat())
	}
	// 10,000 × 256 tokens cost more than 10,000 sat: no invoice helps.
	refused := lab.post(t, chat("model", `"running"`, "n", "10000", "max_tokens", "256"), nil)
	p := refused.wantProblem(t, http.StatusBadRequest, "cost-above-maximum")
	if p["required_msat"].(float64) < 10_000_000 || p["invoice"] != nil {
		t.Errorf("the problem is %v", p)
	}
	for _, wish := range []string{"x", "-1", "1.5", "99999999999999999999"} {
		lab.post(t, chat("model", `"running"`), header("L402-Deposit-Msat", wish)).wantProblem(t, http.StatusBadRequest, "invalid-request")
	}
}

// TestPublicEndpoints checks what needs no credential.
func TestPublicEndpoints(t *testing.T) {
	t.Parallel()
	list := decode[struct {
		Object string
		Data   []struct {
			ID, Object string
			L402       struct {
				Rates      map[string]int64 `json:"rates"`
				Epoch      int64            `json:"price_epoch"`
				Multiplier float64
				BoundBy    string `json:"bound_by"`
			}
		}
	}](t, lab.do(t, http.MethodGet, "/v1/models", "", nil).want(t, http.StatusOK).body)
	if list.Object != "list" || len(list.Data) != 7 {
		t.Fatalf("the list of models is %+v", list)
	}
	for _, m := range list.Data {
		if m.Object != "model" || m.L402.Rates["output_msat_per_mtok"] != 4_000_000 || m.L402.Epoch < 1 || m.L402.Multiplier != 1 ||
			m.L402.BoundBy != "floor" && m.ID != "gone" { // whose load cannot be known
			t.Errorf("model %+v", m)
		}
	}
	quote := decode[map[string]any](t, lab.do(t, http.MethodGet, "/l402/quote?model=running&input_tokens=100&max_tokens=50", "", nil).want(t, http.StatusOK).body)
	if quote["bound_msat"] != float64(cost(100, 50)) || quote["rates"] == nil || quote["price_epoch"] == nil {
		t.Errorf("the quote is %v", quote)
	}
	for _, query := range []string{"?model=running&max_tokens=x", "?model=running&input_tokens=-1"} {
		lab.do(t, http.MethodGet, "/l402/quote"+query, "", nil).wantProblem(t, http.StatusBadRequest, "invalid-request")
	}
	lab.do(t, http.MethodGet, "/l402/quote?model=none", "", nil).wantProblem(t, http.StatusNotFound, "invalid-request")
	ready := decode[map[string]json.RawMessage](t, lab.do(t, http.MethodGet, "/readyz", "", nil).want(t, http.StatusOK).body)
	if ready["parts"] == nil {
		t.Errorf("/readyz says %v", ready)
	}
	lab.do(t, http.MethodGet, "/healthz", "", nil).want(t, http.StatusOK)
	for _, path := range []string{"/metrics", "/admin/status", "/", "/v1", "/v1/responses", "/l402/balance/1"} {
		lab.do(t, http.MethodGet, path, "", nil).wantProblem(t, http.StatusNotFound, "unknown-route")
	}
	for _, path := range []string{"/admin/status", "/admin/backends", "/admin/deposits?state=unclaimed"} {
		lab.operator(t, http.MethodGet, path).want(t, http.StatusOK)
		without := lab.unauthorized()
		without.do(t, http.MethodGet, path, "", nil).wantProblem(t, http.StatusUnauthorized, "invalid-credential")
		without.do(t, http.MethodGet, path, "", header("Authorization", "Bearer wrong")).wantProblem(t, http.StatusUnauthorized, "invalid-credential")
	}
	for _, path := range []string{"/l402/balance", "/l402/usage"} {
		lab.do(t, http.MethodGet, path, "", nil).challenge(t)
	}
}
