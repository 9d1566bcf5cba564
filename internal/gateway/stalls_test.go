package gateway_test

import (
	"context"
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

// What servers send of a document before they make it.
const (
	beginning   = `{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[`
	upToContent = `{"index":0,"message":{"role":"assistant","content":"`
)

// A backend that stalls is not the fault of a client that waits for a document,
// whatever the backend or a proxy sends before an answer, and however often an SDK
// repeats the request. Of a stream the prompt is paid: the backend may have read it.
func TestStallIsFreeForWhoLeaves(t *testing.T) {
	t.Parallel()
	long := `[{"role":"user","content":"` + strings.Repeat("word ", 8000) + `"}]`
	for name, play := range map[string]http.HandlerFunc{
		"nothing":           stalling("", ""),
		"a header":          stalling("application/json", ""),
		"a header, events":  stalling(sse, ""),
		"blank lines":       stalling("application/json", "\n"),
		"blank lines, also": stalling(sse, "\n\n"),
		"comments":          stalling(sse, ": keep-alive\n\n"),
		"heartbeats":        stalling(sse, "data: ping\n\n"),
		"a brace":           saysAndWaits("application/json", "{"),
		"a beginning":       saysAndWaits("application/json", beginning),
		"up to the content": saysAndWaits("application/json", beginning+upToContent),
		"an error's start":  saysAndWaits("application/json", `{"error":`),
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
	t.Parallel()
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

// Where a backend works, a document that it has begun says what there is of it: the
// prompt is paid, and the text that came.
func TestLeavingADocumentThatHasBegun(t *testing.T) {
	t.Parallel()
	for sent, tokens := range map[string]int{"{": 0, beginning: 0, beginning + upToContent: 0,
		beginning + upToContent + strings.Repeat("many words ", 50): 138} {
		r := playing(t, format.EngineGeneric, func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			if strings.Contains(string(body), "WAIT") {
				saysAndWaits("application/json", sent)(w, req)
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
		r.leave(k, request("max_tokens", "1000", "messages", `[{"role":"user","content":"WAIT"}]`), 2*time.Second)
		if e := r.wantAbout(k, sent, 5, tokens); e.Usage[pricing.InputTokens] == 0 {
			t.Errorf("%s: %+v", sent, e)
		}
		lives.Body.Close()
	}
}

// So it is with texts to embed: nothing is paid before a vector has begun.
func TestStallOfVectorsIsFreeForWhoLeaves(t *testing.T) {
	t.Parallel()
	for sent, free := range map[string]bool{"{": true, `{"object":"list","data":[`: true, `{"object":"list","data":[{"object":"embedding","index":0,"embedding":`: true,
		`{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,`: false} {
		r := readingFrom(t, saysAndWaits("application/json", sent))
		k := r.buy(maxPurchase)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		resp, err := r.client.Do(r.newRequest("POST", embeddingsPath, `{"model":"demo","input":"a text to embed"}`, k.with()).WithContext(ctx))
		if err == nil {
			resp.Body.Close()
			t.Fatalf("%s: answered with %d", sent, resp.StatusCode)
		}
		cancel()
		r.idle(k)
		if got := r.balance(k).msat(t, "charged_msat"); (got == 0) != free {
			t.Errorf("%s: charged %d", sent, got)
		}
	}
}
