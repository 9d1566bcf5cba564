package gateway_test

import (
	"net/http"
	"testing"

	"sluice.example/sluice/metering"
)

func TestIdempotencyKeyIsGoodForOneCharge(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	if a := r.chat(k, request(), "Idempotency-Key", "order-1", "X-Fault", "status:500"); a.status != http.StatusBadGateway {
		t.Fatalf("status %d", a.status)
	}
	first := r.chat(k, request(), "Idempotency-Key", "order-1") // runs anew, because the failed request cost nothing
	if first.status != http.StatusOK {
		t.Fatalf("status %d\n%s", first.status, first.body)
	}
	charged := r.trueCost()
	again := r.chat(k, request(), "Idempotency-Key", "order-1")
	p := again.wantProblem(t, http.StatusConflict, "duplicate-request")
	if again.header.Get("x-should-retry") != "false" {
		t.Error("no x-should-retry")
	}
	entry, _ := p["entry"].(map[string]any)
	if entry["request_id"] != first.header.Get("L402-Request-Id") || entry["charged_msat"] != float64(charged) {
		t.Errorf("entry %v", entry)
	}
	r.chat(k, request("max_tokens", "3"), "Idempotency-Key", "order-1").wantProblem(t, http.StatusUnprocessableEntity, "duplicate-request")
	r.wantSpent(k, charged)
	if a := r.chat(k, request(), "Idempotency-Key", "order-2"); a.status != http.StatusOK {
		t.Errorf("another key: %d", a.status)
	}
	sub := k.attenuate(t, "inference_budget_msat=5000")
	if a := r.chat(sub, request(), "Idempotency-Key", "order-1"); a.status != http.StatusOK {
		t.Errorf("another chain: %d", a.status)
	}
}

func TestIdempotencyKeyOfARunningRequest(t *testing.T) {
	r := newRig(t, slow(20, ""))
	k := r.buy(minPurchase)
	running := r.open(t.Context(), "POST", chatPath, request("stream", "true", "max_tokens", "200"), k.with("Idempotency-Key", "a"))
	readEvents(t, running.Body, 1)
	a := r.chat(k, request("stream", "true", "max_tokens", "200"), "Idempotency-Key", "a")
	a.wantProblem(t, http.StatusConflict, "duplicate-request")
	if a.header.Get("x-should-retry") != "" || a.header.Get("Retry-After") == "" {
		t.Errorf("headers %v", a.header)
	}
	running.Body.Close()
	if e := r.lastCharge(k); e.Outcome != metering.OutcomeClientGone {
		t.Errorf("entry %+v", e)
	}
}
