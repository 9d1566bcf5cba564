package inference

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402/client"
)

// fast configures a server that answers within milliseconds.
func fast() Config { return Config{TokensPerSecond: 20000, Seed: 1, Record: true} }

// serve runs a server on a real listener until the test ends.
func serve(t *testing.T, cfg Config) (*Server, string) {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, "http://" + ln.Addr().String()
}

// request returns the body of a chat request. more has further members.
func request(more string) string {
	body := `{"model":"demo","messages":[{"role":"user","content":"How does the miller pay for water?"}]`
	if more != "" {
		body += "," + more
	}
	return body + "}"
}

// httpClient returns a client that uses no compression and follows no redirects.
func httpClient(t *testing.T) *http.Client {
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func post(t *testing.T, url, body string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := httpClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func readAll(t *testing.T, resp *http.Response) []byte {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

type usageJSON struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
	Details    *struct {
		Cached int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

type chunkJSON struct {
	Choices []struct {
		Index int
		Delta struct {
			Role             string
			Content          string
			ReasoningContent string                            `json:"reasoning_content"`
			ToolCalls        []struct{ Function functionCall } `json:"tool_calls"`
		}
		FinishReason *string `json:"finish_reason"`
	}
	Usage *usageJSON
	Error *struct{ Message string }
}

// collected is what an ordinary client reads from a stream.
type collected struct {
	payloads  []string
	chunks    []chunkJSON
	text      map[int]string
	reasoning string
	arguments string
	deltas    int // deltas with content
	finish    map[int]string
	usage     *usageJSON
	done      bool
}

// collect reads a stream to its end. err says why the stream broke off; nil means that it did not.
func collect(t *testing.T, body io.Reader) (c collected, err error) {
	t.Helper()
	c.text, c.finish = map[int]string{}, map[int]string{}
	for events := client.NewEventReader(body); ; {
		event, err := events.Next()
		switch {
		case errors.Is(err, io.EOF):
			return c, nil
		case err != nil:
			return c, err
		case event.Data != nil:
			c.take(t, string(event.Data))
		}
	}
}

func (c *collected) take(t *testing.T, payload string) {
	t.Helper()
	c.payloads = append(c.payloads, payload)
	if payload == "[DONE]" {
		c.done = true
		return
	}
	var chunk chunkJSON
	if err := json.Unmarshal([]byte(payload), &chunk); err != nil {
		t.Logf("not a chunk (%v): %.80s", err, payload)
		return
	}
	c.chunks = append(c.chunks, chunk)
	if chunk.Usage != nil {
		c.usage = chunk.Usage
	}
	for _, choice := range chunk.Choices {
		c.text[choice.Index] += choice.Delta.Content
		c.reasoning += choice.Delta.ReasoningContent
		for _, call := range choice.Delta.ToolCalls {
			c.arguments += call.Function.Arguments
		}
		if choice.Delta.Content != "" {
			c.deltas++
		}
		if choice.FinishReason != nil {
			c.finish[choice.Index] = *choice.FinishReason
		}
	}
}

// stream asks for a stream and reads all of it.
func streamed(t *testing.T, url, more string, header ...string) collected {
	t.Helper()
	resp := post(t, url+"/v1/chat/completions", request(`"stream":true,`+more), header...)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", resp.StatusCode, readAll(t, resp))
	}
	c, err := collect(t, resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type answerJSON struct {
	Choices []choiceJSON
	Usage   *usageJSON
}

func unary(t *testing.T, url, body string, header ...string) answerJSON {
	t.Helper()
	resp := post(t, url+"/v1/chat/completions", body, header...)
	raw := readAll(t, resp)
	var a answerJSON
	if err := json.Unmarshal(raw, &a); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v: %s", resp.StatusCode, err, raw)
	}
	return a
}

func tokenCount(t *testing.T, url, body string) int {
	t.Helper()
	resp := post(t, url+"/tokenize", body)
	var answer struct {
		Count  int
		Max    int `json:"max_model_len"`
		Tokens []int
	}
	raw := readAll(t, resp)
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v: %s", resp.StatusCode, err, raw)
	}
	if answer.Count != len(answer.Tokens) || answer.Max != 8192 {
		t.Fatalf("tokenize: %s", raw)
	}
	return answer.Count
}

// eventually waits for another goroutine of the server.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never happened: " + what)
		}
	}
}
