package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// stalling sends what comes before an answer, again and again, and no answer.
func stalling(kind, sign string) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		if kind == "" {
			<-req.Context().Done() // not even a header
			return
		}
		w.Header().Set("Content-Type", kind)
		for req.Context().Err() == nil {
			io.WriteString(w, sign)
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// A backend that stalls is not the fault of a client that waits for a document,
// whatever the backend or a proxy sends before an answer, and however often an SDK
// repeats the request. Of a stream the prompt is paid: the backend may have read it.
func TestStallIsFreeForWhoLeaves(t *testing.T) {
	long := `[{"role":"user","content":"` + strings.Repeat("word ", 8000) + `"}]`
	for name, play := range map[string]http.HandlerFunc{
		"nothing":           stalling("", ""),
		"a header":          stalling("application/json", ""),
		"a header, events":  stalling(sse, ""),
		"blank lines":       stalling("application/json", "\n"),
		"blank lines, also": stalling(sse, "\n\n"),
		"comments":          stalling(sse, ": keep-alive\n\n"),
		"heartbeats":        stalling(sse, "data: ping\n\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits
			for _, engine := range []format.Engine{format.EngineGeneric, format.EngineVLLM} {
				for _, stream := range []string{"true", "false"} {
					r := playing(t, engine, play)
					k := r.buy(maxPurchase)
					for range 3 {
						r.leave(k, request("stream", stream, "max_tokens", "1024", "messages", long), 150*time.Millisecond)
					}
					r.idle(k)
					if got := r.balance(k).msat(t, "charged_msat"); (got == 0) != (stream == "false") {
						t.Errorf("%s, stream %s: charged %d", engine, stream, got)
					}
				}
			}
		})
	}
}

// A backend that answers others meanwhile works: who leaves it pays.
func TestLeavingABackendThatWorksIsNotFree(t *testing.T) {
	for _, stream := range []string{"true", "false"} {
		r := playing(t, format.EngineGeneric, func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			if strings.Contains(string(body), "WAIT") {
				<-req.Context().Done()
				return
			}
			for req.Context().Err() == nil {
				says(sse, word("one ", ""))(w, req)
				time.Sleep(10 * time.Millisecond)
			}
		})
		other, k := r.buy(maxPurchase), r.buy(maxPurchase)
		lives := r.open(t.Context(), "POST", chatPath, asStream(8000), other.with())
		readEvents(t, lives.Body, 1)
		r.leave(k, request("stream", stream, "max_tokens", "100", "messages", `[{"role":"user","content":"WAIT"}]`), 500*time.Millisecond)
		if e := r.lastCharge(k); e.Outcome != metering.OutcomeClientGone || e.Usage[pricing.InputTokens] == 0 || (e.Usage[pricing.OutputTokens] > 0) == (stream == "true") {
			t.Errorf("stream %s: %+v", stream, e)
		}
		lives.Body.Close()
	}
}
