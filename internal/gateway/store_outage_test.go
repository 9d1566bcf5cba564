package gateway_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/metering"
)

// brittleStore is a store that fails while the test wants it to.
type brittleStore struct {
	metering.Store
	down atomic.Bool
}

var errStoreAway = errors.New("store is away")

func (s *brittleStore) Apply(ctx context.Context, b *metering.Batch, decide func()) error {
	if s.down.Load() {
		return errStoreAway
	}
	return s.Store.Apply(ctx, b, decide)
}

func withBrittleStore(store *brittleStore) func(*setup) {
	return func(s *setup) {
		s.ledger = func(c *metering.Config) {
			store.Store = c.Store
			c.Store, c.Patience = store, 200*time.Millisecond
		}
	}
}

func TestStoreAwayRefusesNewRequests(t *testing.T) {
	store := new(brittleStore)
	r := newRig(t, withBrittleStore(store))
	k := r.buy(minPurchase)
	r.balance(k)
	store.down.Store(true)
	a := r.chat(k, request())
	a.wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	if a.header.Get("Retry-After") == "" || !strings.Contains(string(a.body), "ledger") {
		t.Errorf("%v %s", a.header, a.body)
	}
	r.do("POST", chatPath, request(), nil).wantProblem(t, http.StatusPaymentRequired, "payment-required") // a 402 needs no store
	if ready := r.do("GET", "/readyz", "", nil); ready.status != http.StatusServiceUnavailable || ready.json(t)["parts"].(map[string]any)["store"] == "ok" {
		t.Errorf("readyz %d %s", ready.status, ready.body)
	}
	store.down.Store(false)
	r.until("the store is back", func() bool { return r.chat(k, request()).status == http.StatusOK })
	r.idle(k)
}

func TestShortOutageOnlyDelaysTheEndOfTheAnswer(t *testing.T) {
	t.Parallel()
	store := new(brittleStore)
	r := newRig(t, slow(100, ""), withBrittleStore(store))
	k := r.buy(minPurchase)
	resp := r.open(t.Context(), "POST", chatPath, request("stream", "true"), k.with())
	begun := readEvents(t, resp.Body, 2)
	store.down.Store(true)
	time.AfterFunc(800*time.Millisecond, func() { store.down.Store(false) })
	rest, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	told, _ := comment(t, append(begun, rest...))
	if told != r.trueCost() {
		t.Errorf("told %d, want %d", told, r.trueCost())
	}
	r.wantSpent(k, told)
}

func TestLongOutageNeverLosesTheCharge(t *testing.T) {
	store := new(brittleStore)
	r := newRig(t, slow(100, ""), withBrittleStore(store), func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.SettleWait = 200 * time.Millisecond }
	})
	k := r.buy(minPurchase)
	stream := r.open(t.Context(), "POST", chatPath, request("stream", "true"), k.with())
	begun := readEvents(t, stream.Body, 2)
	store.down.Store(true)
	rest, err := io.ReadAll(stream.Body)
	stream.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	whole := string(append(begun, rest...))
	if !strings.Contains(whole, ": l402 settlement=pending\ndata: [DONE]") || strings.Contains(whole, "cost_msat") {
		t.Errorf("the stream's end:\n%s", tail([]byte(whole)))
	}
	if !strings.Contains(r.metrics(), "sluice_unsettled_charges 1") {
		t.Error("the pending charge is not in the metrics")
	}
	drained := make(chan error, 1)
	go func() { drained <- r.gw.Drain(context.Background(), r.srv) }()
	time.AfterFunc(300*time.Millisecond, func() { store.down.Store(false) })
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
	wantLedger(t, r, k, r.trueCost())
}

func TestPanicSettlesWhatWasDelivered(t *testing.T) {
	var panics atomic.Bool
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		panics.Store(true)
		w.Header().Set("Content-Type", "text/event-stream")
		w.Write([]byte("data: {\"choices\":[]}\n\n"))
	}))
	t.Cleanup(backend.Close)
	r := newRig(t, func(s *setup) {
		s.backendURLs = []string{backend.URL}
		s.gateway = func(c *gateway.Config) {
			c.Clock = func() time.Time {
				if panics.Swap(false) {
					panic("clock failure")
				}
				return time.Now()
			}
		}
	})
	k := r.buy(minPurchase)
	resp, err := r.client.Do(r.newRequest("POST", chatPath, request("stream", "true"), k.with()))
	if err == nil {
		drainBody(resp)
	}
	r.until("no hold is left", func() bool { return r.balance(k).msat(t, "held_msat") == 0 })
	if got := r.fleet.Status()[0].InFlight; got != 0 {
		t.Errorf("%d slots are still taken", got)
	}
	if !strings.Contains(r.metrics(), "sluice_panics_total 1") {
		t.Error("the panic was not counted")
	}
	if a := r.do("GET", "/healthz", "", nil); a.status != http.StatusOK {
		t.Errorf("healthz %d", a.status)
	}
}
