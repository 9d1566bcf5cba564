package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402/client"
)

// stream is an answer in events, read as it comes.
type stream struct {
	t      testing.TB
	resp   *http.Response
	body   io.Reader // fills raw
	events *client.EventReader
	cancel context.CancelFunc
	raw    bytes.Buffer // all that was read
}

// stream opens a streamed chat and wants it to begin.
func (g *gateway) stream(t testing.TB, k credential, body string, more ...string) *stream {
	t.Helper()
	s, a := g.tryStream(t, body, k.header(more...))
	if a != nil {
		a.want(t, http.StatusOK)
		t.Fatalf("no event stream: %v\n%s", a.header, a.body)
	}
	return s
}

// tryStream opens a streamed chat; where the answer is no stream it returns
// the whole answer.
func (g *gateway) tryStream(t testing.TB, body string, h http.Header) (*stream, *answer) {
	t.Helper()
	if !strings.Contains(body, `"stream":`) {
		body = `{"stream":true,` + strings.TrimPrefix(body, "{")
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	t.Cleanup(cancel)
	resp, err := g.Open(ctx, http.MethodPost, chatPath, body, h)
	if err != nil {
		t.Fatalf("open a stream: %v", err)
	}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		defer resp.Body.Close()
		content, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return nil, &answer{resp.StatusCode, resp.Header, resp.Trailer, content}
	}
	s := &stream{t: t, resp: resp, cancel: cancel}
	s.body = io.TeeReader(resp.Body, &s.raw)
	s.events = client.NewEventReader(s.body)
	return s, nil
}

func (s *stream) requestID() string { return s.resp.Header.Get("L402-Request-Id") }

// event returns the data of the next event; false: the stream ended, in good
// order or not.
func (s *stream) event() (string, bool) {
	for {
		event, err := s.events.Next()
		if err != nil {
			return "", false
		}
		if event.Data != nil {
			return string(event.Data), true
		}
	}
}

// read reads so many events.
func (s *stream) read(n int) (events []string) {
	s.t.Helper()
	for range n {
		e, ok := s.event()
		if !ok {
			s.t.Fatalf("the stream ended after %d of %d events:\n%s", len(events), n, tail(s.raw.String()))
		}
		events = append(events, e)
	}
	return events
}

// hangUp closes the connection in the middle of the stream.
func (s *stream) hangUp() {
	s.cancel()
	s.resp.Body.Close()
}

// ended is a stream that was read to its end.
type ended struct {
	events        []string // data of each event
	raw           string
	cost, balance int64  // of the cost comment; -1: there was none
	outcome       string // in the comment of a stream that was cut
	trailer       http.Header
	whole         bool // HTTP says that nothing is missing
}

// rest reads to the end.
func (s *stream) rest() ended {
	s.t.Helper()
	_, err := io.Copy(io.Discard, s.body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		s.t.Fatalf("read the stream: %v", err)
	}
	return s.ended(err == nil)
}

// ended takes apart what was read until now.
func (s *stream) ended(whole bool) ended {
	e := ended{raw: s.raw.String(), cost: -1, balance: -1, trailer: s.resp.Trailer, whole: whole}
	for events := client.NewEventReader(strings.NewReader(e.raw)); ; {
		event, err := events.Next()
		if err != nil { // the end
			return e
		}
		if event.Data != nil {
			e.events = append(e.events, string(event.Data))
		}
		for _, comment := range event.Comments {
			if _, outcome, ok := strings.Cut(comment, " outcome="); ok && strings.HasPrefix(comment, ": l402 ") {
				e.outcome = outcome
			}
			fmt.Sscanf(comment, ": l402 cost_msat=%d balance_msat=%d", &e.cost, &e.balance)
		}
	}
}

// all opens a stream and reads all of it.
func (g *gateway) all(t testing.TB, k credential, body string, more ...string) (string, ended) {
	t.Helper()
	s := g.stream(t, k, body, more...)
	return s.requestID(), s.rest()
}

// complete checks a stream that ended as the format wants: the cost comment
// right before [DONE], and the same cost in the trailer.
func (e ended) complete(t testing.TB) {
	t.Helper()
	want := fmt.Sprintf(": l402 cost_msat=%d balance_msat=%d\ndata: [DONE]\n\n", e.cost, e.balance)
	if !strings.HasSuffix(e.raw, want) || !e.whole {
		t.Fatalf("the stream does not end with its cost and [DONE], want %q:\n%s", want, tail(e.raw))
	}
	if got := e.trailer.Get("L402-Cost-Msat"); got != fmt.Sprint(e.cost) {
		t.Errorf("the trailer says a cost of %q, the comment %d", got, e.cost)
	}
}

// content counts the events that carry text, and joins it.
func (e ended) content(t testing.TB) (n int, text string) {
	t.Helper()
	for _, data := range e.events {
		if piece := textOf(t, data); piece != "" {
			n++
			text += piece
		}
	}
	return n, text
}

// textOf is the text of all choices of one event.
func textOf(t testing.TB, data string) (text string) {
	t.Helper()
	if data == "[DONE]" || !strings.HasPrefix(data, "{") {
		return ""
	}
	chunk := decode[struct {
		Choices []struct {
			Delta struct {
				Content   string
				Reasoning string `json:"reasoning_content"`
				ToolCalls []struct {
					Function struct{ Name, Arguments string }
				} `json:"tool_calls"`
			}
		}
	}](t, []byte(data))
	for _, c := range chunk.Choices {
		text += c.Delta.Content + c.Delta.Reasoning
		for _, call := range c.Delta.ToolCalls {
			text += call.Function.Name + call.Function.Arguments
		}
	}
	return text
}

func tail(s string) string { return s[max(0, len(s)-800):] }

// patience is how long the backend may take to see that a client is gone.
const patience = 5 * time.Second
