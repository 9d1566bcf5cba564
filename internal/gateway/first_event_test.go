package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// streams sends events, with a pause before each.
func streams(events ...any) *http.HandlerFunc {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for _, e := range events {
			switch e := e.(type) {
			case time.Duration:
				timer := time.NewTimer(e)
				select {
				case <-timer.C:
				case <-r.Context().Done():
					return
				}
			case string:
				fmt.Fprintf(w, "%s\n\n", e)
				w.(http.Flusher).Flush()
			}
		}
	})
	return &h
}

const (
	role   = `data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}`
	spoken = `data: {"choices":[{"index":0,"delta":{"content":"four"}}]}`
	ended  = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`
	used   = `data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}`
	done   = `data: [DONE]`
)

// TestFirstEventHasItsOwnLimit: the limit between two events must not cut a model that reads a long
// prompt or thinks unseen, so the time before the first text has a limit of its own.
func TestFirstEventHasItsOwnLimit(t *testing.T) {
	t.Parallel()
	const idle, first = 150 * time.Millisecond, 900 * time.Millisecond
	for name, c := range map[string]struct {
		events []any
		whole  bool
		least  time.Duration
	}{
		"a long prompt":              {[]any{3 * idle, spoken, ended, used, done}, true, 3 * idle},
		"role first, then it thinks": {[]any{role, 3 * idle, spoken, ended, used, done}, true, 3 * idle},
		"comments while it thinks":   {[]any{": ping", idle / 2, ": ping", 2 * idle, ": ping", spoken, ended, used, done}, true, 2 * idle},
		"a pause after the first":    {[]any{spoken, 4 * idle, spoken, ended, used, done}, false, idle},
		"nothing at all":             {[]any{time.Minute}, false, first},
		"comments and nothing else":  {[]any{idle, ": ping", idle, ": ping", idle, ": ping", idle, ": ping", idle, ": ping", idle, ": ping", idle, ": ping", idle, ": ping", time.Minute}, false, first},
	} {
		t.Run(name, func(t *testing.T) {
			e := newScriptedEngine(t)
			e.chat.Store(streams(c.events...))
			r := newRig(t, func(s *setup) {
				s.backendURLs = []string{e.URL}
				s.backend = func(b *gpuBackend) { b.IdleTimeout, b.FirstEventTimeout = idle, first }
			})
			k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
			began := time.Now()
			a := r.chat(k, request("stream", "true"))
			took := time.Since(began)
			status := http.StatusOK
			if name == "nothing at all" { // no header was sent either
				status = http.StatusGatewayTimeout
			}
			if whole := strings.Contains(string(a.body), "[DONE]"); a.status != status || whole != c.whole {
				t.Errorf("status %d, whole %v, want %d, %v\n%s", a.status, whole, status, c.whole, a.body)
			}
			if took < c.least || took > c.least+5*time.Second {
				t.Errorf("ended after %v, want about %v", took, c.least)
			}
			if c.least == first {
				r.wantSpent(k, 0)
				if r.metric(`sluice_backend_timeouts_total{model="demo"}`) != 1 {
					t.Error("a stream without any event is not counted")
				}
			}
		})
	}
}
