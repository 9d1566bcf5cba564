package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/metering/chat"
)

// What a hung-up stream delivered is counted in the slot that it had: a backend with
// one slot is never asked to count while it generates, or twice at once.
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
		x.profile = chat.Setting{Engine: chat.EngineVLLM, Tokenize: &yes, ContinuousUsage: &no}
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
