package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// mint makes a paid token with any terms, as the gateway would have made it.
func (r *rig) mint(service string, account l402.TokenID, amount l402.Msat, until time.Time) token {
	r.t.Helper()
	p := l402.NewPreimage()
	id := l402.Identifier{PaymentHash: p.Hash(), TokenID: account}
	m, err := r.keys.Mint(l402.MintParams{Service: service, PaymentHash: id.PaymentHash, TokenID: account, Deposit: amount, ValidUntil: until})
	if err != nil {
		r.t.Fatal(err)
	}
	return token{m, p, amount, id}
}

func tomorrow() time.Time { return time.Now().Add(24 * time.Hour) }

func TestStrangersGetAFreshChallenge(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	foreignKeys, err := l402.NewKeyring(r.ledger.ID(), []l402.MasterKey{{ID: "x", State: l402.KeyMint, Secret: [32]byte{9}}})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := foreignKeys.Mint(l402.MintParams{Service: testService, PaymentHash: k.id.PaymentHash, TokenID: k.id.TokenID, Deposit: 1_000_000, ValidUntil: tomorrow()})
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte{}, k.macaroon...)
	forged[len(forged)-1] ^= 1
	good := k.String()
	for name, value := range map[string]string{
		"none":             "",
		"another scheme":   "Bearer sk-12345",
		"basic":            "Basic dXNlcjpwYXNz",
		"empty":            "L402 ",
		"no preimage":      "L402 " + b64(k.macaroon),
		"short preimage":   good[:len(good)-2],
		"long preimage":    good + "00",
		"no hex":           good[:len(good)-1] + "g",
		"no base64":        "L402 !!!!:" + k.preimage.Hex(),
		"no macaroon":      "L402 " + b64([]byte("hello")) + ":" + k.preimage.Hex(),
		"forged signature": l402.FormatCredential(forged, k.preimage),
		"foreign key":      l402.FormatCredential(foreign, k.preimage),
		"another service":  r.mint("images", l402.NewTokenID(), 500_000, tomorrow()).String(),
		"truncated":        l402.FormatCredential(k.macaroon[:len(k.macaroon)-10], k.preimage),
		"trailing bytes":   l402.FormatCredential(append(append([]byte{}, k.macaroon...), 1, 2, 3), k.preimage),
	} {
		h := header{}
		if value != "" {
			h["Authorization"] = value
		}
		a := r.do("POST", chatPath, request(), h)
		a.wantProblem(t, http.StatusPaymentRequired, "payment-required")
		fresh := r.pay(a)
		if fresh.id.TokenID == k.id.TokenID {
			t.Errorf("%s: the challenge is for the account of the credential", name)
		}
	}
	r.wantSpent(k, 0)
}

func TestCredentialForms(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	std := b64(k.macaroon)
	urlSafe := strings.NewReplacer("+", "-", "/", "_").Replace(std)
	carried := k.attenuate(t, "preimage="+k.preimage.Hex())
	for name, h := range map[string]header{
		"plain":         {"Authorization": k.String()},
		"lower case":    {"Authorization": "l402 " + std + ":" + k.preimage.Hex()},
		"LSAT":          {"Authorization": "LSAT " + std + ":" + k.preimage.Hex()},
		"URL-safe":      {"Authorization": "L402 " + urlSafe + ":" + k.preimage.Hex()},
		"unpadded":      {"Authorization": "L402 " + strings.TrimRight(std, "=") + ":" + k.preimage.Hex()},
		"upper hex":     {"Authorization": "L402 " + std + ":" + strings.ToUpper(k.preimage.Hex())},
		"Macaroon":      {"Macaroon": hexOf(carried.macaroon)},
		"Grpc-Metadata": {"Grpc-Metadata-Macaroon": hexOf(carried.macaroon)},
	} {
		before := r.balance(k).msat(t, "charged_msat")
		if a := r.do("POST", chatPath, request("max_tokens", "4"), h); a.status != http.StatusOK {
			t.Errorf("%s: status %d\n%s", name, a.status, a.body)
			continue
		}
		r.wantSpent(k, before+r.trueCost())
	}
}

func TestTwoCredentialsInOneRequestAreRefused(t *testing.T) {
	r := newRig(t)
	a, b := r.buy(minPurchase), r.buy(minPurchase)
	other := b.attenuate(t, "preimage="+b.preimage.Hex())
	r.chat(a, request(), "Macaroon", hexOf(other.macaroon)).wantProblem(t, http.StatusBadRequest, "invalid-request")
	r.wantSpent(a, 0)
	r.wantSpent(b, 0)
}

func TestWrongPreimageIs401WithoutAChallenge(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	k.preimage[0] ^= 1
	for _, path := range []string{"/l402/balance", "/l402/usage"} {
		r.do("GET", path, "", k.with()).wantProblem(t, http.StatusUnauthorized, "invalid-credential")
	}
	r.chat(k, request()).wantProblem(t, http.StatusUnauthorized, "invalid-credential")
	k.preimage[0] ^= 1
	r.wantSpent(k, 0)
}

func TestExpiredTokenTopsUpItsOwnAccount(t *testing.T) {
	r := newRig(t)
	k := r.buy(70_000)
	r.balance(k)
	r.clock.advance(366 * 24 * time.Hour)
	a := r.chat(k, request())
	a.wantProblem(t, http.StatusPaymentRequired, "payment-required")
	if a.msat(t, "balance_msat") != 70_000 {
		t.Errorf("balance %s", a.body)
	}
	fresh := r.pay(a)
	if fresh.id.TokenID != k.id.TokenID {
		t.Error("another account")
	}
	if got := r.balance(k).msat(t, "available_msat"); got != 70_000 {
		t.Errorf("an expired token sees a balance of %d", got)
	}
	top := r.do("POST", "/l402/topup", `{"amount_msat":80000}`, k.with())
	top.wantProblem(t, http.StatusPaymentRequired, "payment-required")
	if r.pay(top).id.TokenID != k.id.TokenID {
		t.Error("the top-up of an expired token opens another account")
	}
	if a := r.chat(fresh, request()); a.status != http.StatusOK {
		t.Errorf("the fresh token: %d\n%s", a.status, a.body)
	}
	r.wantSpent(fresh, r.trueCost())
}

func TestAttenuatedTokenNeverTopsUpItsParent(t *testing.T) {
	r := newRig(t)
	k := r.buy(500_000)
	r.balance(k)
	poor := k.attenuate(t, "inference_budget_msat=10")
	a := r.chat(poor, request())
	a.wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	if a.msat(t, "balance_msat") != 10 || r.pay(a).id.TokenID == k.id.TokenID {
		t.Errorf("budget exhausted: %s", a.body)
	}
	past := k.attenuate(t, fmt.Sprintf("inference_valid_until=%d", time.Now().Add(-time.Hour).Unix()))
	a = r.chat(past, request())
	a.wantProblem(t, http.StatusPaymentRequired, "payment-required")
	if r.pay(a).id.TokenID == k.id.TokenID {
		t.Error("expired: the parent's account")
	}
	top := r.do("POST", "/l402/topup", `{"amount_msat":60000}`, k.attenuate(t, "inference_label=sub").with())
	top.wantProblem(t, http.StatusPaymentRequired, "payment-required")
	if r.pay(top).id.TokenID == k.id.TokenID {
		t.Error("top-up: the parent's account")
	}
	r.wantSpent(k, 0)
}

func TestCaveatsForbid(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	for _, condition := range []string{
		"inference_models=other", "inference_capabilities=embeddings", "inference_modles=demo", "inference_deposit_msat=900000",
		fmt.Sprintf("inference_valid_until=%d", time.Now().AddDate(3, 0, 0).Unix()), "inference_rate_lock=1:99999999999", "inference_rpm=0",
	} {
		r.chat(k.attenuate(t, condition), request()).wantProblem(t, http.StatusForbidden, "caveat-violation")
	}
	widened := k.attenuate(t, "inference_budget_msat=100", "inference_budget_msat=200")
	r.chat(widened, request()).wantProblem(t, http.StatusForbidden, "caveat-violation")
	r.wantSpent(k, 0)
	for _, condition := range []string{"inference_models=demo,other", "inference_capabilities=chat", "other_limit=1", "inference_label=team a"} {
		if a := r.chat(k.attenuate(t, condition), request("max_tokens", "2")); a.status != http.StatusOK {
			t.Errorf("%s: status %d\n%s", condition, a.status, a.body)
		}
	}
}

func TestRatePerMinute(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase).attenuate(t, "inference_rpm=2")
	for i := range 2 {
		if a := r.chat(k, request("max_tokens", "2")); a.status != http.StatusOK {
			t.Fatalf("request %d: %d\n%s", i, a.status, a.body)
		}
	}
	a := r.chat(k, request("max_tokens", "2"))
	a.wantProblem(t, http.StatusTooManyRequests, "rate-limited")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestFrozenAccount(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	for _, status := range []metering.Status{metering.StatusFrozen, metering.StatusRevoked} {
		if err := r.ledger.SetStatus(context.Background(), k.id.TokenID, status); err != nil {
			t.Fatal(err)
		}
		r.chat(k, request()).wantProblem(t, http.StatusForbidden, "invalid-credential")
	}
	if err := r.ledger.SetStatus(context.Background(), k.id.TokenID, metering.StatusActive); err != nil {
		t.Fatal(err)
	}
	if a := r.chat(k, request()); a.status != http.StatusOK {
		t.Errorf("unfrozen: %d", a.status)
	}
}

func TestDepositIsCreditedWhateverTheRequestsFate(t *testing.T) {
	r := newRig(t)
	for name, present := range map[string]func(k token) *answer{
		"unknown route":  func(k token) *answer { return r.do("GET", "/nowhere", "", k.with()) },
		"wrong method":   func(k token) *answer { return r.do("DELETE", chatPath, "", k.with()) },
		"models":         func(k token) *answer { return r.do("GET", "/v1/models", "", k.with()) },
		"health":         func(k token) *answer { return r.do("GET", "/healthz", "", k.with()) },
		"quote":          func(k token) *answer { return r.do("GET", "/l402/quote?model=nope", "", k.with()) },
		"bad body":       func(k token) *answer { return r.chat(k, "{") },
		"bad header":     func(k token) *answer { return r.chat(k, request(), "L402-Max-Cost-Msat", "x") },
		"unknown model":  func(k token) *answer { return r.chat(k, request("model", `"x"`)) },
		"caveat":         func(k token) *answer { return r.chat(k.attenuate(t, "inference_models=x"), request()) },
		"too expensive":  func(k token) *answer { return r.chat(k, request("max_tokens", "256", "n", "128")) },
		"above own cap":  func(k token) *answer { return r.chat(k, request(), "L402-Max-Cost-Msat", "1") },
		"backend failed": func(k token) *answer { return r.chat(k, request(), "X-Fault", "status:500") },
		"usage":          func(k token) *answer { return r.do("GET", "/l402/usage", "", k.with()) },
	} {
		k := r.buy(minPurchase)
		present(k)
		balance, err := r.ledger.Balance(context.Background(), k.id.TokenID, nil)
		if err != nil {
			t.Fatal(err)
		}
		if balance.Deposited != minPurchase || balance.Available != minPurchase {
			t.Errorf("%s: deposited %d, available %d", name, balance.Deposited, balance.Available)
		}
	}
	expired := r.mint(testService, l402.NewTokenID(), 60_000, time.Now().Add(-time.Minute))
	r.chat(expired, request())
	if b, _ := r.ledger.Balance(context.Background(), expired.id.TokenID, nil); b.Deposited != 60_000 {
		t.Errorf("expired: deposited %d", b.Deposited)
	}
}

func TestPaymentBelongsToOneAccount(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	r.balance(k)
	stolen, err := r.keys.Mint(l402.MintParams{Service: testService, PaymentHash: k.id.PaymentHash, TokenID: l402.NewTokenID(), Deposit: minPurchase, ValidUntil: tomorrow()})
	if err != nil {
		t.Fatal(err)
	}
	r.do("GET", "/l402/balance", "", header{"Authorization": l402.FormatCredential(stolen, k.preimage)}).
		wantProblem(t, http.StatusForbidden, "invalid-credential")
}

func TestTwoDepositsOneAccount(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	more := r.pay(r.do("POST", "/l402/topup", `{"amount_msat":123456}`, k.with()))
	for range 3 { // presenting the token again credits nothing more
		r.balance(more)
		r.balance(k)
	}
	if got := r.balance(k).msat(t, "deposited_msat"); got != minPurchase+124_000 {
		t.Errorf("deposited %d", got)
	}
}
