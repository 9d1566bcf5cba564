package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// dialectRates are 1 msat per prompt token and 10 msat per completion token.
var dialectRates = pricing.Rates{pricing.InputTokens: 1_000_000, pricing.OutputTokens: 10_000_000}

// playing returns a rig with one backend, an engine of the given kind. The backend answers chat
// requests with play, and the model has room for long answers.
func playing(t testing.TB, engine format.Engine, play http.HandlerFunc, more ...func(*setup)) *rig {
	t.Helper()
	return newRig(t, append([]func(*setup){func(s *setup) {
		s.backendURLs = []string{serving(t, play)}
		s.profile = format.Setting{Engine: engine}
		s.rates = &dialectRates
		s.service = func(svc *gatewayService) {
			limits := &svc.Models[0].Limits
			limits.ContextTokens, limits.MaxCompletion, limits.TemplateBase = 100_000, 8192, 100
		}
	}}, more...)...)
}

// serving returns the address of a backend that answers requests for chat and completions with
// play, and all others with 404.
func serving(t testing.TB, play http.HandlerFunc) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != chatPath && req.URL.Path != textPath {
			http.NotFound(w, req)
			return
		}
		play(w, req)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// says answers with a content type and a body.
func says(kind string, parts ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		w.Header()["Content-Type"] = nil
		if kind != "" {
			w.Header().Set("Content-Type", kind)
		}
		for _, part := range parts {
			io.WriteString(w, part)
			w.(http.Flusher).Flush()
		}
	}
}

// saysAndWaits answers like says, and then waits until its caller hangs up.
func saysAndWaits(kind string, parts ...string) http.HandlerFunc {
	say := says(kind, parts...)
	return func(w http.ResponseWriter, req *http.Request) {
		say(w, req)
		<-req.Context().Done()
	}
}

const sse = "text/event-stream"

// word returns an event with one word, and with more members behind its choices.
func word(text, more string) string { return delta(`"delta":{"content":"`+text+`"}`, more) }

// delta returns an event whose choice has these members, and with more members behind its choices.
func delta(members, more string) string {
	return `data: {"id":"c1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,` + members + `,"finish_reason":null}]` + more + "}\n\n"
}

const (
	roleEvent   = `data: {"id":"c1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n"
	finishEvent = `data: {"id":"c1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	doneEvent   = "data: [DONE]\n\n"
)

// usageEvent returns a chunk that has only a usage.
func usageEvent(prompt, completion int) string {
	return fmt.Sprintf(`data: {"id":"c1","object":"chat.completion.chunk","created":7,"model":"m","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}`+"\n\n",
		prompt, completion, prompt+completion)
}

// hangUp sends a streamed request, reads until the text has come this many times, and closes the
// connection.
func (r *rig) hangUp(k token, body, text string, times int) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	resp := r.open(ctx, "POST", chatPath, body, k.with())
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		r.t.Fatalf("status %d", resp.StatusCode)
	}
	buf, seen := make([]byte, 64<<10), ""
	for strings.Count(seen, text) < times {
		n, err := resp.Body.Read(buf)
		seen += string(buf[:n])
		if err != nil {
			r.t.Fatalf("the stream ended after %d times %q: %v", strings.Count(seen, text), text, err)
		}
	}
}

// wantAbout checks that the newest charge is within a quarter of the right charge.
func (r *rig) wantAbout(k token, what string, prompt, completion int) metering.Entry {
	r.t.Helper()
	e := r.lastCharge(k)
	right := float64(prompt + 10*completion)
	if got := float64(e.Charged); got < 0.75*right-10 || got > 1.25*right+10 {
		r.t.Errorf("%s: charged %v (%+v, %s), right are %v", what, e.Charged, e.Usage, e.Source, right)
	}
	return e
}

// wantCharged checks that the newest charge is exact.
func (r *rig) wantCharged(k token, what string, charged l402.Msat) {
	r.t.Helper()
	if e := r.lastCharge(k); e.Charged != charged {
		r.t.Errorf("%s: charged %v (%+v, %s), right are %v", what, e.Charged, e.Usage, e.Source, charged)
	}
}

// leave sends a request, and hangs up after a while without an answer.
func (r *rig) leave(k token, body string, after time.Duration) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), after)
	defer cancel()
	resp, err := r.client.Do(r.newRequest("POST", chatPath, body, k.with()).WithContext(ctx))
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		r.t.Fatalf("answered with %d", resp.StatusCode)
	}
}

// asStream returns a request for a stream of at most this many tokens.
func asStream(most int, more ...string) string {
	return request(append([]string{"stream", "true", "max_tokens", strconv.Itoa(most)}, more...)...)
}

// cost10 returns what tokens cost at dialectRates, in msat.
func cost10(prompt, completion int) l402.Msat { return l402.Msat(prompt + 10*completion) }
