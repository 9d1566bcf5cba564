package gateway_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
)

// TestLogOfFailuresIsShortAndComplete: if no backend serves, every request fails in the same way.
// The log says so only a few times, and each line has what an operator needs.
func TestLogOfFailuresIsShortAndComplete(t *testing.T) {
	e := newScriptedEngine(t)
	r, k := engineRig(t, 0, e)
	e.chat.Store(answers(502, "broken"))
	first := r.chat(k, request())
	first.wantProblem(t, http.StatusBadGateway, "backend-unavailable")
	e.die(t)
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for range 50 {
				r.stranger()
				r.chat(k, request())
			}
		})
	}
	senders.Wait()
	lines := 0
	for line := range strings.SplitSeq(r.log.String(), "\n") {
		if !strings.Contains(line, `msg="request failed"`) {
			continue
		}
		if lines++; lines > 1 {
			continue
		}
		for _, part := range []string{"model=demo", "backend=gpu0", "request_id=" + first.header.Get("L402-Request-Id"), "cause=", "answered 502", "status=502"} {
			if !strings.Contains(line, part) {
				t.Errorf("the line lacks %q: %s", part, line)
			}
		}
	}
	if lines == 0 || lines > 20 {
		t.Errorf("%d lines of 801 failures", lines)
	}
	if warnings := strings.Count(r.log.String(), "level=WARN"); warnings > 60 {
		t.Errorf("%d warnings in all", warnings)
	}
}
