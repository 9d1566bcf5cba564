package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// These prompts say what the backend does.
const (
	doAnswer = "answer" // answers in three words
	doCut    = "cut"    // two words, then the connection ends
	doTool   = "tool"   // half of a tool call, then the connection ends
	doFail   = "fail"   // two words, then an error within the stream
	doIdle   = "idle"   // ends without the finish reason and the end marker
	doTalk   = "talk"   // continues until it is stopped
	doDrain  = "drain"  // continues until the gateway is shut down, which happens once it has begun
	doBeat   = "beat"   // like doCut, after signs of life
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
		Prompt   any
	}
	err := json.NewDecoder(r.Body).Decode(&request)
	prompts := promptsOf(request.Prompt)
	text := r.URL.Path == "/v1/completions"
	if !text && len(request.Messages) > 0 {
		prompts = []string{contentOf(request.Messages[len(request.Messages)-1].Content)}
	}
	if err != nil || len(prompts) == 0 {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	if request.Stream {
		s.stream(w, r, prompts, text)
		return
	}
	s.whole(w, prompts, text)
}

// promptsOf returns the prompts of a request for completions. Each byte is one token.
func promptsOf(prompt any) (prompts []string) {
	if text, ok := prompt.(string); ok {
		return []string{text}
	}
	list, _ := prompt.([]any)
	var tokens []byte
	for _, one := range list {
		switch one := one.(type) {
		case string:
			prompts = append(prompts, one)
		case float64:
			tokens = append(tokens, byte(one))
		}
	}
	if tokens != nil {
		prompts = append(prompts, string(tokens))
	}
	return prompts
}

// contentOf returns a message's text. SDKs send it as a string or in parts.
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

func (s script) whole(w http.ResponseWriter, prompts []string, text bool) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case prompts[0] == doAnswer && text:
		var choices []string
		for i := range prompts {
			choices = append(choices, fmt.Sprintf(`{"index":%d,"text":"one two three","logprobs":null,"finish_reason":"stop"}`, i))
		}
		n := 3 * len(prompts)
		fmt.Fprintf(w, `{"id":"c","object":"text_completion","created":1,"model":"m","choices":[%s],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}`,
			strings.Join(choices, ","), n, n, 2*n)
	case prompts[0] == doAnswer:
		io.WriteString(w, `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"one two three"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6}}`)
	default:
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"one tw`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func (s script) stream(w http.ResponseWriter, r *http.Request, prompts []string, text bool) {
	prompt := prompts[0]
	w.Header().Set("Content-Type", "text/event-stream")
	event := func(data string) {
		fmt.Fprintf(w, "data: %s\n\n", data)
		w.(http.Flusher).Flush()
	}
	delta := func(text, finish string) {
		event(fmt.Sprintf(`{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":%s,"finish_reason":%s}]}`, text, finish))
	}
	say := func(word string) { delta(fmt.Sprintf(`{"role":"assistant","content":%q}`, word), "null") }
	if text {
		delta = func(text, finish string) {
			for i := range prompts {
				event(fmt.Sprintf(`{"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":%d,"text":%s,"logprobs":null,"finish_reason":%s}]}`, i, text, finish))
			}
		}
		say = func(word string) { delta(fmt.Sprintf("%q", word), "null") }
	}
	if prompt == doTool {
		delta(`{"role":"assistant","tool_calls":[{"index":0,"id":"t","type":"function","function":{"name":"pay","arguments":"{\"amount\": 1"}}]}`, "null")
		panic(http.ErrAbortHandler)
	}
	if prompt == doBeat || prompt == doAnswer {
		io.WriteString(w, ": ping\n\n: ping\n\n") // engines send such comments while they wait
	}
	before := s.p.begun()
	say("one")
	say(" two")
	switch prompt {
	case doAnswer:
		say(" three")
		if text {
			delta(`""`, `"stop"`)
		} else {
			delta("{}", `"stop"`)
		}
		event(fmt.Sprintf(`{"id":"c","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":%[1]d,"completion_tokens":%[1]d,"total_tokens":%[2]d}}`, 3*len(prompts), 6*len(prompts)))
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

// words is the text that a user of a whole answer sees.
var words = strings.Join([]string{"one", "two", "three"}, " ")
