package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestDefaultHealthPathFallsBack: Ollama and hosted services have no /health, which says nothing about
// whether they serve.
func TestDefaultHealthPathFallsBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		health, models *http.HandlerFunc
		says           string
	}{
		"404, then /v1/models": {answers(404, ""), answers(200, "{}"), "another one is asked"},
		"405, then /v1/models": {answers(405, ""), answers(200, "{}"), "another one is asked"},
		"403, then /v1/models": {answers(403, ""), answers(200, "{}"), "another one is asked"},
		"neither":              {answers(404, ""), answers(404, ""), "sees only whether it can be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newScriptedEngine(t)
			e.health.Store(c.health)
			e.models.Store(c.models)
			r, k := engineRig(t, 100*time.Millisecond, e)
			r.until("several checks were made", func() bool { return r.fleet.Status()[0].Checked })
			first := r.fleet.Status()[0].LastCheck
			r.until("another one was", func() bool { return r.fleet.Status()[0].LastCheck.After(first) })
			if s := r.fleet.Status()[0]; !s.Healthy || s.LastError != "" {
				t.Errorf("the backend is not healthy: %+v", s)
			}
			if a := r.chat(k, request()); a.status != http.StatusOK {
				t.Errorf("%d %s", a.status, a.body)
			}
			if n := strings.Count(r.log.String(), c.says); n != 1 {
				t.Errorf("%q was logged %d times, want once", c.says, n)
			}
			revive := e.die(t)
			r.until("the check sees that it is gone", func() bool { return !r.available() })
			revive()
			r.until("and that it is back", r.available)
		})
	}
}

func TestHealthPathOfTheOwnerIsObeyed(t *testing.T) {
	e := newScriptedEngine(t)
	e.health.Store(answers(404, ""))
	r := newRig(t, func(s *setup) {
		s.backendURLs = []string{e.URL}
		s.backend = func(b *gpuBackend) { b.HealthPath, b.HealthEvery = "/health", 100*time.Millisecond }
	})
	r.until("the check fails", func() bool { return !r.available() })
	r.stranger().wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	if s := r.fleet.Status()[0]; s.LastError != "backend gpu0: health check answered 404" {
		t.Errorf("status %+v", s)
	}
}

// TestChecksThatAllFailDoNotStopWhatServes: a health endpoint that hangs or fails must not stop a
// backend that serves.
func TestChecksThatAllFailDoNotStopWhatServes(t *testing.T) {
	t.Parallel()
	for name, sick := range map[string]*http.HandlerFunc{"hang": hangs(), "say no": answers(500, "")} {
		t.Run(name, func(t *testing.T) {
			e, other := newScriptedEngine(t), newScriptedEngine(t)
			r, k := engineRig(t, 200*time.Millisecond, e, other)
			r.until("both are well", func() bool { s := r.fleet.Status(); return s[0].Checked && s[1].Checked })
			e.health.Store(sick)
			other.health.Store(sick)
			answered := func() bool { return r.chat(k, request()).status == http.StatusOK }
			r.until("the checks of both fail", func() bool {
				if !answered() {
					t.Fatalf("a request failed while only the checks did\n%s", r.log)
				}
				s := r.fleet.Status()
				return !s[0].Healthy && !s[1].Healthy
			})
			for range 5 {
				if !answered() {
					t.Errorf("requests are not served by what serves:\n%s", r.log)
				}
			}
			r.stranger().wantProblem(t, http.StatusPaymentRequired, "payment-required")
			if r.metric(`sluice_pool_panic{model="demo"}`) != 1 || r.metric(`sluice_pool_unchecked_total{model="demo"}`) < 5 {
				t.Error("the metrics do not show it")
			}
			if n := strings.Count(r.log.String(), "every backend of the model fails its health check"); n != 1 {
				t.Errorf("logged %d times, want once", n)
			}
			// Once one backend passes its check, the checks decide again.
			other.health.Store(answers(200, ""))
			r.until("checks count again", func() bool { return r.metric(`sluice_pool_panic{model="demo"}`) == 0 })
			before := e.chats.Load()
			for range 4 {
				if !answered() {
					t.Error("a request failed")
				}
			}
			if e.chats.Load() != before {
				t.Error("the one whose check fails was used beside one that passes")
			}
			// If no backend can be reached, nothing is served, whatever the checks say.
			other.die(t)
			e.die(t)
			r.until("nothing is sold", func() bool { return !r.available() && !answered() })
			r.chat(k, request()).wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
		})
	}
}

// TestHangingCheckIsTriedByOneRequestAtATime: a health endpoint that hangs from the beginning does
// not show whether the backend serves. So one request at a time is sent there.
func TestHangingCheckIsTriedByOneRequestAtATime(t *testing.T) {
	t.Parallel()
	e := newScriptedEngine(t)
	e.health.Store(hangs())
	r, k := engineRig(t, 200*time.Millisecond, e)
	r.until("the first check fails", func() bool { s := r.fleet.Status()[0]; return s.Checked && !s.Healthy })
	if r.available() {
		t.Error("it is sold to strangers before anything shows that it serves")
	}
	release, inside := make(chan struct{}), make(chan struct{}, 8)
	held := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		inside <- struct{}{}
		select {
		case <-release:
			(*answers(200, served))(w, req)
		case <-req.Context().Done():
		}
	})
	e.chat.Store(&held)
	answers := make(chan int, 3)
	for range 3 {
		go func() { answers <- r.chat(k, request()).status }()
	}
	<-inside
	r.until("the others wait", func() bool { return r.metric(`sluice_queue_waiting{model="demo"}`) == 2 })
	if n := e.chats.Load(); n != 1 {
		t.Errorf("%d requests at once try a backend that may hang", n)
	}
	close(release)
	for range 3 {
		if status := <-answers; status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	}
	if !r.available() {
		t.Error("it is not sold although it serves")
	}
}
