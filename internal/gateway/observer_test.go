package gateway_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/metering"
)

// watcher keeps the events that it is told of.
type watcher struct {
	observe.None
	mu       sync.Mutex
	refused  []observe.Refusal
	asked    []observe.Challenge
	paid     []observe.Payment
	failed   []observe.Failure
	settled  []observe.Settlement
	first    int
	lost     int // events whose context does not come from Began
	inFlight int
	routes   []string
}

func (w *watcher) note(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

// span is what a trace would keep in the context of a request.
type span struct{}

func (w *watcher) Began(r *http.Request) context.Context {
	w.note(func() { w.inFlight++ })
	return context.WithValue(r.Context(), span{}, true)
}
func (w *watcher) Ended(ctx context.Context, route string, _ int) {
	w.note(func() { w.inFlight--; w.routes = append(w.routes, route) })
	w.inSpan(ctx)
}
func (w *watcher) inSpan(ctx context.Context) {
	if ctx.Value(span{}) == nil {
		w.note(func() { w.lost++ })
	}
}
func (w *watcher) Refused(_ context.Context, r observe.Refusal) {
	w.note(func() { w.refused = append(w.refused, r) })
}
func (w *watcher) Challenged(_ context.Context, c observe.Challenge) {
	w.note(func() { w.asked = append(w.asked, c) })
}
func (w *watcher) Paid(_ context.Context, p observe.Payment) {
	w.note(func() { w.paid = append(w.paid, p) })
}
func (w *watcher) FirstByte(context.Context, string, time.Duration) { w.note(func() { w.first++ }) }
func (w *watcher) BackendFailed(_ context.Context, f observe.Failure) {
	w.note(func() { w.failed = append(w.failed, f) })
}
func (w *watcher) Settled(ctx context.Context, s observe.Settlement) {
	w.inSpan(ctx)
	w.note(func() { w.settled = append(w.settled, s) })
}

// TestObserverSeesTheWayOfARequest: one observer is told once each of a purchase, of a paid answer,
// and of a backend that fails.
func TestObserverSeesTheWayOfARequest(t *testing.T) {
	w := new(watcher)
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.Observer = w }
	})
	k := r.buy(minPurchase)
	r.do("POST", chatPath, request("max_tokens", "4"), k.with())
	r.do("POST", chatPath, request("max_tokens", "4"), k.with("X-Fault", "status:500"))
	r.until("all is over", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.inFlight == 0 && len(w.routes) == 3
	})
	if len(w.asked) != 1 || w.asked[0].Result != observe.ChallengeMade || w.asked[0].Service != testService {
		t.Errorf("challenges: %+v, want one that was made", w.asked)
	}
	if len(w.paid) == 0 || w.paid[0].Err != nil || w.paid[0].Amount != minPurchase {
		t.Errorf("payments: %+v, want that of the token", w.paid)
	}
	if len(w.settled) != 2 || w.settled[0].Entry.Outcome != metering.OutcomeComplete || w.settled[0].Entry.Charged == 0 ||
		w.settled[1].Entry.Outcome != metering.OutcomeBackendError || w.settled[1].Entry.Charged != 0 {
		t.Errorf("settlements: %+v, want a charge and a release", w.settled)
	}
	if len(w.failed) != 1 || w.failed[0].Kind != observe.Refused || w.failed[0].Status != 500 || w.failed[0].Backend != "gpu0" {
		t.Errorf("failures: %+v, want a 500 of the backend", w.failed)
	}
	if len(w.refused) != 2 || w.refused[0].Status != 402 || w.refused[1].Status != 502 || w.refused[1].RequestID != w.settled[1].RequestID {
		t.Errorf("refusals: %+v, want a 402 and a 502 with the request's id", w.refused)
	}
	if w.lost > 0 {
		t.Errorf("%d events have another context than Began made", w.lost)
	}
	if w.first != 1 || !slices.Equal(w.routes, []string{"chat", "chat", "chat"}) {
		t.Errorf("first bytes: %d, routes: %v", w.first, w.routes)
	}
}
