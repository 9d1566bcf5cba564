package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// What the backend does, as the prompt asks it.
const (
	doAnswer = "answer" // in three words
	doCut    = "cut"    // two words, then the connection ends
	doTool   = "tool"   // half a call of a tool, then the connection ends
	doFail   = "fail"   // two words, then an error within the stream
	doIdle   = "idle"   // ends in order, but for the finish reason and the marker
	doTalk   = "talk"   // goes on until it is stopped
	doDrain  = "drain"  // goes on until the gateway is shut down, once it has begun
	doBeat   = "beat"   // as cut, after signs of life
)

// script is an inference server that does what the prompt says.
type script struct{ p *place }

func (s script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		io.WriteString(w, `{"object":"list","data":[]}`)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/embeddings") {
		embed(w, r)
		return
	}
	var request struct {
		Stream   bool
		Messages []struct{ Content any }
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil || len(request.Messages) == 0 {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	prompt := contentOf(request.Messages[len(request.Messages)-1].Content)
	if request.Stream {
		s.stream(w, r, prompt)
		return
	}
	s.whole(w, r, prompt)
}

// contentOf reads a message's text, which SDKs send plain or in parts.
func contentOf(content any) string {
	if text, ok := content.(string); ok {
		return text
	}
	parts, _ := content.([]any)
	for _, part := range parts {
		if p, ok := part.(map[string]any); ok {
			if text, ok := p["text"].(string); ok {
				return text
			}
		}
	}
	return ""
}

func (s script) whole(w http.ResponseWriter, r *http.Request, prompt string) {
	switch prompt {
	case doAnswer:
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"one two three"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6}}`)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"one tw`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func (s script) stream(w http.ResponseWriter, r *http.Request, prompt string) {
	w.Header().Set("Content-Type", "text/event-stream")
	event := func(data string) {
		fmt.Fprintf(w, "data: %s\n\n", data)
		w.(http.Flusher).Flush()
	}
	delta := func(text, finish string) {
		event(fmt.Sprintf(`{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":%s,"finish_reason":%s}]}`, text, finish))
	}
	say := func(word string) { delta(fmt.Sprintf(`{"role":"assistant","content":%q}`, word), "null") }
	if prompt == doTool {
		delta(`{"role":"assistant","tool_calls":[{"index":0,"id":"t","type":"function","function":{"name":"pay","arguments":"{\"amount\": 1"}}]}`, "null")
		panic(http.ErrAbortHandler)
	}
	if prompt == doBeat || prompt == doAnswer {
		io.WriteString(w, ": ping\n\n: ping\n\n") // as engines send while they wait
	}
	before := s.p.begun()
	say("one")
	say(" two")
	switch prompt {
	case doAnswer:
		say(" three")
		delta("{}", `"stop"`)
		event(`{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6}}`)
		event("[DONE]")
	case doFail:
		event(`{"error":{"message":"CUDA out of memory","type":"server_error","code":500}}`)
		event("[DONE]")
	case doIdle:
	case doDrain:
		for r.Context().Err() == nil {
			say(" on")
			if before != "" && s.p.begun() != before {
				before = ""
				go s.p.drain()
			}
			time.Sleep(10 * time.Millisecond) // the pace of its tokens
		}
	case doTalk:
		for r.Context().Err() == nil {
			say(" on")
			time.Sleep(10 * time.Millisecond) // the pace of its tokens
		}
	default:
		panic(http.ErrAbortHandler)
	}
}

// words are what a user of a whole answer sees.
var words = strings.Join([]string{"one", "two", "three"}, " ")
