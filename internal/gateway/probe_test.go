package gateway_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/metering/format"
)

// TestEngineIsFoundByAsking: a backend whose engine the owner did not name is asked, repeatedly
// while it does not answer. The engine that is found decides the cap and the counting.
func TestEngineIsFoundByAsking(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	e := &countingEngine{tokens: capped(10, "max_tokens", "max_completion_tokens"), other: func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !up.Load():
			panic(http.ErrAbortHandler) // the engine is starting
		case r.URL.Path == "/v1/models":
			io.WriteString(w, `{"object":"list","data":[{"id":"m","owned_by":"vllm"}]}`)
		default:
			http.NotFound(w, r)
		}
	}}
	r := withEngine(t, e, format.Setting{})
	engine := func() string {
		view := r.ask("GET", "/admin/backends", adminToken).json(t)
		first := view["engines"].([]any)[0].(map[string]any)
		return first["profile"].(map[string]any)["engine"].(string) + " " + first["known_by"].(string)
	}
	if got := engine(); got != "generic nothing yet" {
		t.Errorf("before it was asked it is taken for %q", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() {
		r.gw.Probe(ctx)
		close(done)
	}()
	r.until("it was asked in vain", func() bool { return len(e.asked("/v1/models")) > 0 })
	k := r.buy(maxPurchase)
	if a := r.chat(k, request()); a.status != http.StatusOK {
		t.Errorf("a backend of an unknown engine: %d\n%s", a.status, a.body)
	}
	up.Store(true)
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		t.Fatal("the engine was not found")
	}
	if got := engine(); got != "vllm probe" {
		t.Errorf("it is taken for %q", got)
	}
	r.chat(k, request())
	bodies := e.asked(chatPath)
	if first, last := bodies[0], bodies[len(bodies)-1]; first["max_completion_tokens"] == nil || last["max_completion_tokens"] != nil || number(last, "max_tokens") != 24 {
		t.Errorf("before: %v\nafter: %v", first, last)
	}
	if n := strings.Count(r.log.String(), "engine of a backend"); n != 1 {
		t.Errorf("the log tells the engine %d times", n)
	}
}

// TestEngineThatIsNotRecognisedIsTheCarefulOne: a backend whose engine the owner named is not
// asked. A backend that is not recognised remains EngineGeneric, with one warning.
func TestEngineThatIsNotRecognisedIsTheCarefulOne(t *testing.T) {
	t.Parallel()
	named := &countingEngine{}
	r := withEngine(t, named, format.Setting{Engine: format.EngineTGI})
	r.gw.Probe(t.Context())
	if got := r.ask("GET", "/admin/backends", adminToken); !strings.Contains(string(got.body), `"engine":"tgi"`) || len(named.bodies) != 0 {
		t.Errorf("asked %v\n%s", named.bodies, got.body)
	}
	unknown := &countingEngine{}
	r = withEngine(t, unknown, format.Setting{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		r.gw.Probe(ctx)
		close(done)
	}()
	r.until("it was asked twice", func() bool { return len(unknown.asked("/api/version")) > 1 })
	stop()
	<-done
	if n := strings.Count(r.log.String(), "is not recognised"); n != 1 {
		t.Errorf("%d warnings", n)
	}
	if got := r.ask("GET", "/admin/backends", adminToken); !strings.Contains(string(got.body), `"engine":"generic"`) {
		t.Errorf("%s", got.body)
	}
}
