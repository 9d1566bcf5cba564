package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// TestCountingAfterAHangUpKeepsTheSlot: what a stream delivered before its client hung up is
// counted in the slot of the stream. So a backend with one slot is never asked to count while it
// generates, or twice at once.
func TestCountingAfterAHangUpKeepsTheSlot(t *testing.T) {
	const words = 20
	no, yes := false, true
	var counting, counted, beside atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if counting.Load() > 0 {
			beside.Add(1)
		}
		_, _ = io.Copy(io.Discard, req.Body)
		if req.URL.Path != chatPath {
			counting.Add(1)
			defer counting.Add(-1)
			counted.Add(1)
			time.Sleep(50 * time.Millisecond)
			fmt.Fprintf(w, `{"count":%d}`, words)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for range words {
			io.WriteString(w, `data: {"choices":[{"index":0,"delta":{"content":"abcd"}}]}`+"\n\n")
		}
		w.(http.Flusher).Flush()
		<-req.Context().Done()
	}))
	t.Cleanup(s.Close)
	r := newRig(t, func(x *setup) {
		x.backendURLs, x.rates = []string{s.URL}, &dialectRates
		x.profile = format.Setting{Engine: format.EngineVLLM, Tokenize: &yes, ContinuousUsage: &no}
		x.backend = func(b *gpuBackend) { b.Slots = 1 }
	})
	k := r.buy(maxPurchase)
	for range 6 {
		r.hangUp(k, request("stream", "true", "max_tokens", "1000"), "abcd", words)
	}
	r.idle(k)
	if n := beside.Load(); n > 0 {
		t.Errorf("a backend with one slot was asked for something else %d times while it counted", n)
	}
	if counted.Load() == 0 {
		t.Error("nothing was counted")
	}
}

// slowStore is a store that takes a while for each batch.
type slowStore struct{ metering.Store }

func (s slowStore) Apply(ctx context.Context, b *metering.Batch, decide func()) error {
	time.Sleep(20 * time.Millisecond)
	return s.Store.Apply(ctx, b, decide)
}

// TestCountingForThePoorHoldsNoMoreThanTheSlots: however many accounts cannot pay the bound, and
// however slow the ledger is, only few of these accounts have a hold for counting at once. These
// are the accounts in the slots, and the accounts whose hold is being raised or released. Raising
// and releasing take as long as the hold took, for which the slot was kept.
func TestCountingForThePoorHoldsNoMoreThanTheSlots(t *testing.T) {
	e := &countingEngine{other: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"count":5900}`) }}
	r := withEngine(t, e, format.Setting{Engine: format.EngineVLLM}, func(x *setup) {
		x.backend = func(b *gpuBackend) { b.Slots = 2 }
		x.ledger = func(c *metering.Config) { c.Store = slowStore{c.Store} }
	})
	body := longPrompt(6000)
	required := r.do("POST", chatPath, body, nil).msat(t, "required_msat")
	var poor [16]token
	for i := range poor {
		poor[i] = r.mint(testService, l402.NewTokenID(), required/2, tomorrow())
		r.balance(poor[i])
	}
	var callers sync.WaitGroup
	for _, k := range poor {
		callers.Go(func() {
			for range 5 {
				r.chat(k, body).wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		callers.Wait()
	}()
	var most int64
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(2 * time.Millisecond):
		}
		report, err := r.ledger.Audit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, report.OpenHolds)
	}
	if most == 0 || most > 3*2 {
		t.Errorf("%d were held for at once, with 2 slots", most)
	}
	if len(e.asked("/tokenize")) == 0 {
		t.Error("nothing was counted")
	}
}
