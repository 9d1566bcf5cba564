package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/metering/format"
)

// TestSignsOfLifeKeepNoSlotForEver: signs of life keep a connection open, but not for ever. The
// answer ends if no part of it comes for as long as FirstEventTimeout.
func TestSignsOfLifeKeepNoSlotForEver(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		engine     format.Engine
		kind, body string
		sign, end  string
		stream     bool
	}{
		"comments in a stream":       {format.EngineGeneric, sse, roleEvent + word("one", ""), ": ping\n\n", "backend_cut", true},
		"empty chunks in a stream":   {format.EngineGeneric, sse, roleEvent + word("one", ""), delta(`"delta":{}`, ""), "backend_cut", true},
		"comments, gathered":         {format.EngineVLLM, sse, roleEvent + word("one", ""), ": ping\n\n", "in time", false},
		"blanks before a document":   {format.EngineGeneric, "application/json", "", "\n", "broke off", false},
		"blanks within a document":   {format.EngineGeneric, "application/json", `{"choices":[`, "\n", "broke off", false},
		"blanks in a stream's place": {format.EngineGeneric, sse, `{"choices":[`, "\n", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := playing(t, c.engine, func(w http.ResponseWriter, req *http.Request) {
				_, _ = io.Copy(io.Discard, req.Body)
				w.Header().Set("Content-Type", c.kind)
				io.WriteString(w, c.body)
				for req.Context().Err() == nil {
					io.WriteString(w, c.sign)
					w.(http.Flusher).Flush()
					time.Sleep(20 * time.Millisecond)
				}
			}, func(s *setup) {
				s.backend = func(b *gpuBackend) { b.FirstEventTimeout, b.IdleTimeout = 400*time.Millisecond, 400*time.Millisecond }
			})
			k := r.buy(maxPurchase)
			body, start := request("max_tokens", "100"), time.Now()
			if c.stream {
				body = asStream(100)
			}
			a := r.chat(k, body)
			if took := time.Since(start); took > 5*time.Second || !strings.Contains(string(a.body), c.end) {
				t.Errorf("ended after %v: %d %s", took, a.status, a.body)
			}
		})
	}
}

// TestSlowProgressIsNoStall: an answer whose parts each come in time is no stall, even if the whole
// answer takes longer than FirstEventTimeout. A client that reads slowly is no stall either.
func TestSlowProgressIsNoStall(t *testing.T) {
	r := playing(t, format.EngineGeneric, func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		w.Header().Set("Content-Type", sse)
		io.WriteString(w, roleEvent)
		for range 6 {
			io.WriteString(w, word("part ", ""))
			for range 4 {
				w.(http.Flusher).Flush()
				time.Sleep(50 * time.Millisecond)
				io.WriteString(w, ": ping\n\n")
			}
		}
		io.WriteString(w, finishEvent+usageEvent(50, 6)+doneEvent)
	}, func(s *setup) {
		s.backend = func(b *gpuBackend) { b.FirstEventTimeout, b.IdleTimeout = 800*time.Millisecond, 800*time.Millisecond }
	})
	k := r.buy(maxPurchase)
	if a := r.chat(k, asStream(100)); strings.Count(string(a.body), "part ") != 6 || !strings.Contains(string(a.body), "[DONE]") {
		t.Errorf("%d %s", a.status, a.body)
	}
}
