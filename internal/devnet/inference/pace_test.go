package inference

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// call runs one request through the handler, in the synctest bubble of its caller.
func call(ctx context.Context, s *Server, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body)).WithContext(ctx)
	s.Handler().ServeHTTP(w, r)
	return w
}

func bubble(t *testing.T, cfg Config, test func(t *testing.T, s *Server)) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		test(t, s)
	})
}

func within(t *testing.T, what string, got, low, high time.Duration) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s took %v, want within %v and %v", what, got, low, high)
	}
}

const sixty = `"max_tokens":60,"ignore_eos":true,"seed":1`

func TestPace(t *testing.T) {
	cfg := Config{TokensPerSecond: 60, FirstTokenDelay: 200 * time.Millisecond, PrefillPerSecond: 100, Seed: 1}
	bubble(t, cfg, func(t *testing.T, s *Server) {
		prompt := time.Duration(TemplateBase+TemplatePerMessage+len(s.Tokenizer().Encode("How does the miller pay for water?"))) * 10 * time.Millisecond
		start := time.Now()
		for _, more := range []string{sixty, sixty + `,"stream":true`, sixty + `,"n":3`} {
			call(t.Context(), s, request(more))
			within(t, more, time.Since(start), 200*time.Millisecond+prompt+980*time.Millisecond, 200*time.Millisecond+prompt+1000*time.Millisecond)
			start = time.Now()
		}
	})
}

func TestPaceFallsWithLoad(t *testing.T) {
	bubble(t, Config{TokensPerSecond: 60, Slowdown: 0.5, Slots: 4, Seed: 1}, func(t *testing.T, s *Server) {
		start := time.Now()
		call(t.Context(), s, request(sixty))
		within(t, "one of four slots", time.Since(start), 1100*time.Millisecond, 1150*time.Millisecond)
		start = time.Now()
		call(t.Context(), s, request(sixty+`,"n":4`))
		within(t, "four of four slots", time.Since(start), 1950*time.Millisecond, 2000*time.Millisecond)
	})
}

func TestQueueIsFairAndBounded(t *testing.T) {
	bubble(t, Config{TokensPerSecond: 60, Slots: 2, Queue: 3, Seed: 1}, func(t *testing.T, s *Server) {
		start := time.Now()
		ended := make(chan int, 5)
		for i := range 5 {
			go func() {
				if w := call(t.Context(), s, request(sixty)); w.Code != http.StatusOK {
					t.Errorf("request %d: %d %s", i, w.Code, w.Body)
				}
				ended <- i
			}()
			synctest.Wait()
		}
		if st := s.Stats(); st.Running != 2 || st.Waiting != 3 {
			t.Errorf("stats %+v", st)
		}
		if w := call(t.Context(), s, request(sixty)); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("full queue: %d", w.Code)
		}
		within(t, "the refusal", time.Since(start), 0, 0)
		for i := range 5 {
			if got := <-ended; got/2 != i/2 {
				t.Errorf("%d ended in place %d", got, i)
			}
		}
		within(t, "five requests on two slots", time.Since(start), 2940*time.Millisecond, 3000*time.Millisecond)
		if st := s.Stats(); st.Refused != 1 || st.Running != 0 || st.GeneratedTokens != 300 {
			t.Errorf("stats %+v", st)
		}
	})
}

// Later requests do not overtake a wide request at the head of the queue for ever.
func TestQueueKeepsOrderForWideRequests(t *testing.T) {
	bubble(t, Config{Slots: 2, Seed: 1}, func(t *testing.T, s *Server) {
		ended := make(chan string, 3)
		for _, n := range []string{"1", "2", "1"} {
			go func() {
				call(t.Context(), s, request(sixty+`,"n":`+n))
				ended <- n
			}()
			synctest.Wait()
		}
		if got := <-ended + <-ended + <-ended; got != "121" {
			t.Errorf("ended in order %s, want 121", got)
		}
	})
}

func TestCancellationFreesItsPlace(t *testing.T) {
	bubble(t, Config{TokensPerSecond: 60, Slots: 1, Record: true, Seed: 1}, func(t *testing.T, s *Server) {
		running, hangUp := context.WithCancel(t.Context())
		waiting, leave := context.WithCancel(t.Context())
		go call(running, s, request(sixty))
		synctest.Wait()
		go call(waiting, s, request(sixty))
		synctest.Wait()
		last := make(chan *httptest.ResponseRecorder)
		go func() { last <- call(t.Context(), s, request(sixty+`,"stream":true`)) }()
		synctest.Wait()
		time.Sleep(500 * time.Millisecond)
		leave()
		synctest.Wait()
		if st := s.Stats(); st.Running != 1 || st.Waiting != 1 || st.Cancelled != 1 {
			t.Errorf("after one left the queue: %+v", st)
		}
		start := time.Now()
		hangUp()
		synctest.Wait()
		if st := s.Stats(); st.Running != 1 || st.Waiting != 0 || st.Cancelled != 2 {
			t.Errorf("after one hung up: %+v", st)
		}
		if w := <-last; !bytes.Contains(w.Body.Bytes(), []byte("[DONE]")) {
			t.Errorf("the last: %s", w.Body)
		}
		within(t, "the last", time.Since(start), 980*time.Millisecond, 1000*time.Millisecond)
		if rec := s.Requests()[0]; rec.Outcome != "cancelled" || rec.CompletionTokens < 29 || rec.CompletionTokens > 31 {
			t.Errorf("hung up after half a second at 60 tokens/s: %d tokens, %s", rec.CompletionTokens, rec.Outcome)
		}
	})
}
