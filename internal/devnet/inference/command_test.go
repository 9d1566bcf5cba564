package inference

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startMain runs Main. It returns the server's base URL and a function that waits for the exit
// status.
func startMain(t *testing.T, ctx context.Context, args ...string) (url string, wait func() int) {
	t.Helper()
	r, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- Main(ctx, args, w, io.Discard)
		w.Close()
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("printed %q, %v", line, err)
	}
	return "http://" + addr, func() int { return <-status }
}

func TestMainServesUntilItsContextEnds(t *testing.T) {
	t.Setenv("BACKEND_KEY", "k")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	url, wait := startMain(t, ctx, "--model", "demo", "--tokens-per-second", "5000", "--slots", "2", "--queue", "1",
		"--max-model-len", "500", "--seed", "4", "--api-key-env", "BACKEND_KEY", "--first-token-delay", "0s")
	first := unary(t, url, request(tenTokens), "Authorization", "Bearer k")
	if first.Usage.Completion != 10 {
		t.Errorf("%+v", first.Usage)
	}
	// A stream that would run for long does not keep the server from ending.
	resp := post(t, url+"/v1/chat/completions", request(`"stream":true,"ignore_eos":true`), "Authorization", "Bearer k")
	start := time.Now()
	cancel()
	if got := wait(); got != 0 || time.Since(start) > 5*time.Second {
		t.Errorf("status %d after %v", got, time.Since(start))
	}
	resp.Body.Close()
}

func TestMainEndsOnSIGTERM(t *testing.T) {
	url, wait := startMain(t, t.Context())
	resp, err := http.Get(url + "/health")
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := wait(); got != 0 {
		t.Errorf("status %d", got)
	}
}

func TestMainRefusesWrongFlags(t *testing.T) {
	for _, args := range [][]string{{"--nonsense"}, {"extra"}, {"--api-key-env", "NO_SUCH_VARIABLE"}, {"--slots", "many"}} {
		var stderr bytes.Buffer
		if got := Main(t.Context(), args, io.Discard, &stderr); got != 2 || stderr.Len() == 0 {
			t.Errorf("%v: status %d, %q", args, got, stderr.String())
		}
	}
	for _, args := range [][]string{{"--slots", "-3"}, {"--listen", "127.0.0.1:none"}} {
		var stderr bytes.Buffer
		if got := Main(t.Context(), args, io.Discard, &stderr); got != 1 || stderr.Len() == 0 {
			t.Errorf("%v: status %d, %q", args, got, stderr.String())
		}
	}
	if got := Main(t.Context(), []string{"--help"}, io.Discard, io.Discard); got != 0 {
		t.Errorf("--help: status %d", got)
	}
}

// Many clients stream at the same time over real connections. No client waits for another client,
// each delta is one token, and at the end every slot is free.
func TestManyStreams(t *testing.T) {
	const clients, tokens = 100, 30
	s, url := serve(t, Config{TokensPerSecond: 60, Slots: clients, Seed: 1})
	start := time.Now()
	shared := httpClient(t)
	shared.Transport.(*http.Transport).MaxIdleConnsPerHost = clients
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			body := strings.NewReader(request(`"stream":true,"max_tokens":30,"ignore_eos":true,` + withUsage))
			resp, err := shared.Post(url+"/v1/chat/completions", "application/json", body)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			c, err := collect(t, resp.Body)
			if err != nil || !c.done || c.deltas != tokens || c.usage.Completion != tokens {
				t.Errorf("%v: %d deltas, %+v", err, c.deltas, c.usage)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took < 480*time.Millisecond || took > 10*time.Second {
		t.Errorf("%d tokens at 60 per second took %v", tokens, took)
	}
	if st := s.Stats(); st.GeneratedTokens != clients*tokens || st.Running != 0 || st.Cancelled != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestHangUpStopsTheGenerationAtOnce(t *testing.T) {
	s, url := serve(t, Config{TokensPerSecond: 100, Slots: 1, Record: true, Seed: 1})
	for i, stream := range []string{"true", "false"} {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/chat/completions",
			strings.NewReader(request(`"ignore_eos":true,"stream":`+stream)))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := httpClient(t).Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body) // the body ends with the cancellation
				resp.Body.Close()
			}
		}()
		eventually(t, "tokens flow", func() bool { return len(s.Requests()) > i && s.Requests()[i].CompletionTokens > 3 })
		cancel()
		<-done
		eventually(t, "the slot is free", func() bool { st := s.Stats(); return st.Running == 0 && st.Cancelled == int64(i+1) })
		if rec := s.Requests()[i]; rec.Outcome != "cancelled" || rec.CompletionTokens > 1000 {
			t.Errorf("recorded %d tokens, %s", rec.CompletionTokens, rec.Outcome)
		}
	}
}
