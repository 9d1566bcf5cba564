package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402/client"
)

// answering is a paid server whose answers the test writes. n counts the requests from 0. It
// records the Idempotency-Keys of the requests.
type answering struct {
	g      *fakeGateway
	answer func(n int, r *http.Request, resp *http.Response) (*http.Response, error)
	keys   []string
}

func (a *answering) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := a.g.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	a.keys = append(a.keys, r.Header.Get("Idempotency-Key"))
	return a.answer(len(a.keys)-1, r, resp)
}

// body is the body of an answer that ends with err.
type body struct {
	text string
	err  error
}

func (b *body) Read(p []byte) (int, error) {
	if b.text == "" {
		return 0, b.err
	}
	n := copy(p, b.text)
	b.text = b.text[n:]
	return n, nil
}

func (b *body) Close() error { return nil }

// with sets the body of resp. When length is not negative, resp declares it as the Content-Length.
func with(resp *http.Response, kind, text string, length int64, err error) *http.Response {
	resp.Body, resp.ContentLength = &body{text, err}, length
	resp.Header.Set("Content-Type", kind)
	resp.TransferEncoding = nil
	if length < 0 {
		resp.TransferEncoding = []string{"chunked"}
	}
	return resp
}

// attempt sends a request and reads at most most bytes of the answer.
func attempt(ctx context.Context, c *client.Client, text string, most int64, headers ...string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, callURL, strings.NewReader(text))
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.RoundTrip(req)
	if err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, resp.Body, most)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, resp.Body.Close())
}

const all = 1 << 20

// A key is kept until the client knows that the whole answer came.
func TestKeyIsKeptUntilTheAnswerWasRead(t *testing.T) {
	const (
		events = "text/event-stream"
		object = "application/json"
		word   = `data: {"choices":[{"delta":{"content":"a"}}]}` + "\n\n"
		done   = ": l402 cost_msat=1\ndata: [DONE]\n\n"
		liar   = `data: {"choices":[{"delta":{"content":"\\ndata: [DONE]"}}]}` + "\n\n"
	)
	for _, c := range []struct {
		name, kind, text string
		length           int64
		err              error
		undelimited      bool // the end of the connection is the end of the body
		read             int64
		same             bool // the next request carries the same key
	}{
		{"a document", object, `{"a":1}`, 7, io.EOF, false, all, false},
		{"a document that is read by its length", object, `{"a":1}`, 7, io.EOF, false, 7, false},
		{"a document in chunks", object, `{"a":1}`, -1, io.EOF, false, all, false},
		{"a document that breaks off", object, `{"a"`, 7, io.ErrUnexpectedEOF, false, all, true},
		{"a document that is left", object, `{"a":1}`, 7, io.EOF, false, 3, true},
		{"a document that ends with its connection", object, `{"a":1}` + "\n", -1, io.EOF, true, all, false},
		{"half a document that ends with its connection", object, `{"a":{"b":`, -1, io.EOF, true, all, true},
		{"a text that ends with its connection", "text/plain", `text`, -1, io.EOF, true, all, false},
		{"an empty answer that ends with its connection", object, ``, -1, io.EOF, true, all, true},
		{"a stream", events, word + done, -1, io.EOF, false, all, false},
		{"a stream whose reader stops at its last event", events, word + done, -1, errLost, false, int64(len(word + done)), false},
		{"a stream that breaks off", events, word + word, -1, io.ErrUnexpectedEOF, false, all, true},
		{"a stream that breaks off behind a text like its end", events, liar, -1, io.ErrUnexpectedEOF, false, all, true},
		{"a stream that is left", events, word + word + done, -1, io.EOF, false, int64(len(word)), true},
		{"a stream that ends with its connection", events, word + done, -1, io.EOF, true, all, false},
		{"a stream that ends too early with its connection", events, word, -1, io.EOF, true, all, true},
		{"nothing", object, ``, 0, io.EOF, false, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t)
			a := &answering{g: g, answer: func(n int, _ *http.Request, resp *http.Response) (*http.Response, error) {
				if n != 1 { // the first request is for the purchase
					return resp, nil
				}
				with(resp, c.kind, c.text, c.length, c.err)
				if c.undelimited {
					resp.TransferEncoding = nil
				}
				return resp, nil
			}}
			w := &fakeWallet{g: g}
			b := buyer(t, g, w, t.TempDir(), func(cfg *client.Config) { cfg.Base = a })
			if err := attempt(t.Context(), b, "first", all); err != nil {
				t.Fatal(err)
			}
			for _, read := range []int64{c.read, all, all} {
				_ = attempt(t.Context(), b, "question", read)
			}
			k := a.keys[1:]
			if k[0] == "" || (k[1] == k[0]) != c.same || k[2] == k[1] {
				t.Errorf("keys %q, same %v", k, c.same)
			}
		})
	}
}

// The event that ends a stream may be split at any place between two reads.
func TestEndOfAStreamInPieces(t *testing.T) {
	g := newGateway(t)
	stream := "data: {}\n\ndata: [DONE]\n"
	a := &answering{g: g, answer: func(n int, _ *http.Request, resp *http.Response) (*http.Response, error) {
		return with(resp, "text/event-stream", stream, -1, errLost), nil
	}}
	b := buyer(t, g, &fakeWallet{g: g}, t.TempDir(), func(cfg *client.Config) { cfg.Base = a })
	for size := 1; size < len(stream); size++ {
		for range 2 {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, callURL, strings.NewReader(strconv.Itoa(size)))
			resp, err := b.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			piece := make([]byte, size)
			for read := 0; read < len(stream); {
				n, _ := resp.Body.Read(piece)
				read += n
			}
			resp.Body.Close()
		}
	}
	slices.Sort(a.keys)
	if n := len(slices.Compact(slices.Clone(a.keys))); n != len(a.keys) {
		t.Errorf("%d keys for %d calls", n, len(a.keys))
	}
}

// However the caller ends an attempt, the next attempt is the same call.
func TestAttemptsThatTheCallerEndsCarryOneKey(t *testing.T) {
	for name, end := range map[string]func() (context.Context, func()){
		"cancelled": func() (context.Context, func()) {
			ctx, cancel := context.WithCancel(t.Context())
			return ctx, cancel
		},
		"deadline": func() (context.Context, func()) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // by then the request is under way
			return ctx, func() { <-ctx.Done(); cancel() }
		},
		"with a cause": func() (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(t.Context())
			return ctx, func() { cancel(errLost) }
		},
	} {
		g := newGateway(t)
		ended := func() {}
		a := &answering{g: g, answer: func(n int, r *http.Request, resp *http.Response) (*http.Response, error) {
			if n == 0 || n > 2 { // the first request is for the purchase
				return resp, nil
			}
			ended()
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		}}
		w := &fakeWallet{g: g}
		b := buyer(t, g, w, t.TempDir(), func(cfg *client.Config) { cfg.Base = a })
		if err := attempt(t.Context(), b, "first", all); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			ctx, stop := end()
			ended = stop
			// The client ignores an SDK's own count of its attempts, because a loop around the SDK
			// begins a new count.
			_ = attempt(ctx, b, "question", all, "X-Stainless-Retry-Count", "0")
		}
		if k := a.keys[1:]; k[0] == "" || k[1] != k[0] || k[2] != k[0] {
			t.Errorf("%s: keys %q, want one", name, k)
		}
		_ = attempt(t.Context(), b, "question", all)
		if k := a.keys[1:]; len(k) != 4 || k[3] == k[0] {
			t.Errorf("%s: keys %q, want a new one for a new call", name, k)
		}
	}
}

// A caller that cancels an attempt and does not wait for it repeats the call. The late end of the
// cancelled attempt changes nothing.
func TestAbandonedAttemptIsRepeated(t *testing.T) {
	g := newGateway(t)
	began, release := make(chan struct{}), make(chan struct{})
	a := &answering{g: g, answer: func(n int, r *http.Request, resp *http.Response) (*http.Response, error) {
		if n == 1 {
			close(began)
			<-release
			return nil, r.Context().Err()
		}
		return resp, nil
	}}
	b := buyer(t, g, &fakeWallet{g: g}, t.TempDir(), func(cfg *client.Config) { cfg.Base = a })
	if err := attempt(t.Context(), b, "first", all); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = attempt(ctx, b, "question", all)
	}()
	<-began
	cancel()
	_ = attempt(t.Context(), b, "question", all)
	close(release)
	<-over
	_ = attempt(t.Context(), b, "question", all)
	if k := a.keys[1:]; len(k) != 3 || k[1] != k[0] || k[2] == k[0] {
		t.Errorf("keys %q, want one for two attempts and another for a new call", k)
	}
}

// A gateway answers a repetition with 409. While the first attempt runs, the call remains open.
// After the call was charged, the answer tells the caller so.
func TestAnswersToRepeatedKeys(t *testing.T) {
	g := newGateway(t)
	a := &answering{g: g, answer: func(n int, _ *http.Request, resp *http.Response) (*http.Response, error) {
		switch n {
		case 1:
			return nil, errLost
		case 2: // the first attempt still runs
			resp.StatusCode = http.StatusConflict
			resp.Header.Set("Retry-After", "1")
		case 3: // the first attempt was charged
			resp.StatusCode = http.StatusConflict
			resp.Header.Set("X-Should-Retry", "false")
		}
		return resp, nil
	}}
	b := buyer(t, g, &fakeWallet{g: g}, t.TempDir(), func(cfg *client.Config) { cfg.Base = a })
	_ = attempt(t.Context(), b, "first", all)
	for range 4 {
		_ = attempt(t.Context(), b, "question", all)
	}
	if k := a.keys[1:]; len(k) != 4 || k[1] != k[0] || k[2] != k[0] || k[3] == k[0] {
		t.Errorf("keys %q, want one until the charge was told", k)
	}
}
