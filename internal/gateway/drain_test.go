package gateway_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

func TestDrainLetsStreamsFinish(t *testing.T) {
	r := newRig(t, slow(100, ""))
	k := r.buy(minPurchase)
	resp := r.open(t.Context(), "POST", chatPath, request("stream", "true", "max_tokens", "40"), k.with())
	begun := readEvents(t, resp.Body, 1)
	drained := make(chan error, 1)
	go func() { drained <- r.gw.Drain(context.Background(), r.srv) }()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.HasSuffix(rest, []byte("data: [DONE]\n\n")) {
		t.Errorf("the stream was cut: %v\n%s", err, tail(append(begun, rest...)))
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if _, err := r.client.Get(r.url + "/healthz"); err == nil {
		t.Error("the listener is still open")
	}
	wantLedger(t, r, k, r.trueCost())
}

func TestDrainCutsWhatTakesTooLong(t *testing.T) {
	r := newRig(t, slow(50, ""), func(s *setup) { s.profile = does(false, true) })
	k := r.buy(minPurchase)
	resp := r.open(t.Context(), "POST", chatPath, request("stream", "true", "max_tokens", "250"), k.with())
	begun := readEvents(t, resp.Body, 3)
	other := r.newRequest("POST", chatPath, request("max_tokens", "250"), r.buy(minPurchase).with())
	unary := make(chan int, 1)
	go func() {
		resp, err := r.client.Do(other)
		if err != nil {
			unary <- 0
			return
		}
		drainBody(resp)
		unary <- resp.StatusCode
	}()
	r.until("both run", func() bool { return r.fleet.Status()[0].InFlight == 2 })
	limit, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- r.gw.Drain(limit, r.srv) }()
	rest, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("the cut stream did not end in order: %v", err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if status := <-unary; status != http.StatusServiceUnavailable {
		t.Errorf("the unary request got %d", status)
	}
	stream := append(begun, rest...)
	if !strings.HasSuffix(string(stream), " outcome=drained\n\n") || strings.Contains(string(stream), "[DONE]") {
		t.Errorf("the stream's end:\n%s", tail(stream))
	}
	told, _ := comment(t, stream)
	entries, _, err := r.ledger.Entries(context.Background(), metering.EntryQuery{Account: k.id.TokenID})
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v %v", entries, err)
	}
	if e := entries[0]; e.Outcome != metering.OutcomeDrained || e.Charged != told || e.Usage[pricing.OutputTokens] != int64(contentEvents(stream)) {
		t.Errorf("entry %+v, told %d, %d tokens delivered", e, told, contentEvents(stream))
	}
}

func TestDrainingRefusesNewRequests(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	r.balance(k)
	if err := r.gw.Drain(context.Background()); err != nil { // the listener remains open
		t.Fatal(err)
	}
	a := r.chat(k, request())
	a.wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	ready := r.do("GET", "/readyz", "", nil)
	if ready.status != http.StatusServiceUnavailable || !strings.Contains(string(ready.body), "shutting down") {
		t.Errorf("readyz %d %s", ready.status, ready.body)
	}
	r.wantSpent(k, 0)
}

// wantLedger checks an account in the ledger itself, without the listener.
func wantLedger(t *testing.T, r *rig, k token, charged interface{ String() string }) {
	t.Helper()
	b, err := r.ledger.Balance(context.Background(), k.id.TokenID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.Charged.String() != charged.String() || b.Held != 0 {
		t.Errorf("charged %v, held %v, want %v and nothing", b.Charged, b.Held, charged)
	}
}
