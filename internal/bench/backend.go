package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
)

// These are the model and the path that all parts request.
const (
	modelName = "bench"
	chatPath  = "/v1/chat/completions"
)

const unaryBody = `{"model":"bench","messages":[{"role":"system","content":"You are a terse assistant."},` +
	`{"role":"user","content":"Name the longest river of Europe, the country in which it rises, and the sea into which it flows. One sentence."}],"max_tokens":64}`

const streamBody = `{"model":"bench","stream":true,"messages":[{"role":"system","content":"You are a terse assistant."},` +
	`{"role":"user","content":"Tell me about the rivers of Europe, in as many words as you like."}],"max_tokens":256}`

// unaryAnswer is the backend's answer to each unary request.
const unaryAnswer = `{"id":"chatcmpl-0","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,` +
	`"message":{"role":"assistant","content":"The Volga, which rises in Russia, is the longest river of Europe and flows into the Caspian Sea."},` +
	`"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":52,"completion_tokens":24,"total_tokens":76}}`

// backendPlan describes an inference server that takes almost no time. It sends a fixed answer or a
// script of events.
type backendPlan struct {
	Events int           // of a stream, without the end
	Every  time.Duration // pause between two events
}

// eventMark precedes the time at which an event was sent, in ns since 1970. Each event has one.
const eventMark = `"content":"@`

func serveBackend(ctx context.Context, plan []byte, tell func(any) error) error {
	var p backendPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return err
	}
	answer := []byte(unaryAnswer)
	length := []string{strconv.Itoa(len(answer))}
	kind := []string{"application/json"}
	return serveHTTP(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var buf [4096]byte
		n, err := io.ReadFull(r.Body, buf[:])
		if err != io.EOF && err != io.ErrUnexpectedEOF {
			http.Error(w, "the request is too long", http.StatusRequestEntityTooLarge)
			return
		}
		if bytes.Contains(buf[:n], []byte(`"stream":true`)) {
			p.stream(w, r)
			return
		}
		h := w.Header()
		h["Content-Type"], h["Content-Length"] = kind, length
		_, _ = w.Write(answer) // an error means that the client hung up
	}), tell)
}

// stream sends the script. Each stream begins at a random time within one interval, so that the
// events of all streams are spread over time.
func (p backendPlan) stream(w http.ResponseWriter, r *http.Request) {
	w.Header()["Content-Type"] = []string{"text/event-stream"}
	control := http.NewResponseController(w)
	if control.Flush() != nil {
		return
	}
	timer := time.NewTimer(rand.N(p.Every))
	defer timer.Stop()
	for range p.Events {
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
		timer.Reset(p.Every)
		_, err := fmt.Fprintf(w, `data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":[{"index":0,"delta":{%s%d"},"finish_reason":null}]}`+"\n\n",
			eventMark, time.Now().UnixNano())
		if err != nil || control.Flush() != nil {
			return
		}
	}
	_, _ = io.WriteString(w, `data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\n"+
		`data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":[],"usage":{"prompt_tokens":52,"completion_tokens":`+strconv.Itoa(p.Events)+`}}`+"\n\ndata: [DONE]\n\n") // a client that hung up needs no end
}

// serveHTTP serves a handler on a free port of the loopback until ctx ends.
func serveHTTP(ctx context.Context, h http.Handler, tell func(any) error) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return serveUntil(ctx, &http.Server{Handler: h}, listener, tell, server{Addr: listener.Addr().String()})
}

func serveUntil(ctx context.Context, srv *http.Server, listener net.Listener, tell func(any) error, where server) error {
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	if err := tell(where); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	if err := srv.Close(); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
