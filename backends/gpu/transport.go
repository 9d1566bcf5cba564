package gpu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

var (
	// ErrNotTaken reports that the backend cannot have received the request:
	// no connection could be made, or nothing was written to the one there
	// was. It is safe to try another.
	ErrNotTaken = errors.New("backend did not take the request")
	// ErrFirstByteTimeout reports that no answer began within
	// FirstByteTimeout. The backend may have worked on the request.
	ErrFirstByteTimeout = errors.New("backend did not answer in time")
	// ErrFirstEventTimeout reports that a stream began and brought no event within
	// FirstEventTimeout. Reads of a response's body return it.
	ErrFirstEventTimeout = errors.New("backend began a stream and sent no event in time")
	// ErrIdleTimeout reports that an answer stalled: nothing came for IdleTimeout, or
	// nothing but signs of life for FirstEventTimeout. Reads of a response's body
	// return it.
	ErrIdleTimeout = errors.New("backend stalled in its answer")

	errNoHeader = errors.New("timed out") // the cause net/http sees; Do says which time
)

const (
	// idleConn is how long an unused connection is kept: below the 5 s after
	// which uvicorn (vLLM, SGLang) and cpp-httplib (llama.cpp) close theirs, so
	// that it is we who close and no request meets a connection just closed.
	idleConn = 4 * time.Second
	// connBuffer is the read and write buffer per connection, in bytes: larger
	// than most events, so that each is one system call. A thousand streams hold a
	// thousand of each; the body of a long request goes past it.
	connBuffer = 4 << 10
	// maxResponseHeader bounds the header of an answer, in bytes.
	maxResponseHeader = 256 << 10
)

func newTransport(base *url.URL, cfg BackendConfig, k *keeping) (*http.Transport, error) {
	t := &http.Transport{
		DialContext:         dial(cfg.ConnectTimeout, k),
		TLSHandshakeTimeout: cfg.ConnectTimeout,
		// Usage is read from the bytes that pass, so they must be plain.
		DisableCompression:     true,
		MaxIdleConnsPerHost:    cfg.Slots + 1, // and one for the health check
		IdleConnTimeout:        idleConn,
		ReadBufferSize:         connBuffer,
		WriteBufferSize:        connBuffer,
		MaxResponseHeaderBytes: maxResponseHeader,
		Protocols:              new(http.Protocols),
		// A peer that vanished is noticed while an answer is awaited.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
	switch base.Scheme {
	case "http":
		t.Protocols.SetHTTP1(true)
	case "https":
		t.Protocols.SetHTTP1(true)
		t.Protocols.SetHTTP2(true)
	case "h2c":
		base.Scheme = "http"
		t.Protocols.SetUnencryptedHTTP2(true)
	default:
		return nil, fmt.Errorf("url scheme %q is not http, https or h2c", base.Scheme)
	}
	return t, nil
}

// Headers of the caller that must not travel on. The credentials are the
// caller's money. An Idempotency-Key would make net/http repeat a POST by itself
// on a connection that broke after the request was written.
var strip = [...]string{"Authorization", "Macaroon", "Grpc-Metadata-Macaroon", "Idempotency-Key", "X-Idempotency-Key"}

// Do sends one request and returns the answer as soon as its header is there.
// path starts with a slash and may carry a query; see Path for servers that have their
// API elsewhere. h is taken over, the caller's
// credentials in it are replaced by the backend's key; it may be nil. body must not
// be changed afterwards: it may still be on its way when an answer comes early.
// Redirects are returned, not followed. The caller closes the body of the answer;
// reading it fails with ErrIdleTimeout when the backend stalls.
//
// Errors: ErrNotTaken, also beside ctx's own where ctx ended before anything was
// written; ErrFirstByteTimeout; ctx's own; any other means that the backend may have
// received the request.
//
// A request is repeated here once, on a new connection, and only where the first
// one was kept from an earlier request and ended before the backend can have read
// this request to its end: nothing or not all of it was written, or the
// backend's system refused what was (see conn.ended). net/http repeats one in
// HTTP/2, where the server says that it did not process it.
//
// Kept connections are used only where the backend has shown that it keeps them,
// see keeping.
func (b *Backend) Do(ctx context.Context, method, path string, body []byte, h http.Header) (*http.Response, error) {
	if h == nil {
		h = make(http.Header, 2)
	}
	for _, name := range strip {
		delete(h, name)
	}
	switch {
	case b.cfg.APIKey == "":
	case b.cfg.KeyHeader == "":
		h.Set("Authorization", "Bearer "+b.cfg.APIKey.Reveal())
	default:
		h.Set(b.cfg.KeyHeader, b.cfg.APIKey.Reveal())
	}
	if len(h["User-Agent"]) == 0 {
		h.Set("User-Agent", "sluice")
	}
	kept, scout := b.keeping.use(time.Now())
	for {
		resp, stale, err := b.attempt(ctx, method, path, body, h, kept, scout)
		if stale && kept {
			kept = false
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("backend %s: %w", b.cfg.Name, err)
		}
		return resp, nil
	}
}

// attempt sends the request once. stale: the connection was a kept one and had
// ended before; nothing was sent.
func (b *Backend) attempt(ctx context.Context, method, path string, body []byte, h http.Header, kept, scout bool) (resp *http.Response, stale bool, err error) {
	call := newCall(ctx, b.cfg)
	call.scout = scout
	transport := b.transport
	if !kept && !scout {
		transport = b.fresh()
	}
	resp, err = transport.RoundTrip(b.request(call, method, path, body, h))
	timely := call.headerArrived()
	if err == nil && timely {
		if on := call.on.Load(); on != nil && on.conn != nil {
			on.conn.promise.Store(int64(promised(resp.Header)))
		}
		call.body = resp.Body
		resp.Body = call
		return resp, false, nil
	}
	if scout {
		b.keeping.unknown()
	}
	if err == nil {
		_ = resp.Body.Close()
	}
	call.cancel(nil)
	on := call.on.Load()
	switch {
	case ctx.Err() != nil && (on == nil || on.conn.untouched()):
		return nil, false, fmt.Errorf("%w: %w", ErrNotTaken, ctx.Err())
	case ctx.Err() != nil:
		return nil, false, ctx.Err()
	case on == nil:
		return nil, false, fmt.Errorf("%w: %w", ErrNotTaken, err)
	case !timely:
		return nil, false, ErrFirstByteTimeout
	case on.conn.untouched():
		return nil, on.kept, fmt.Errorf("%w: %w", ErrNotTaken, err)
	default:
		return nil, false, err
	}
}

// fresh is the transport that uses each connection once.
func (b *Backend) fresh() *http.Transport {
	b.freshOnce.Do(func() {
		b.freshOnes = b.transport.Clone()
		b.freshOnes.DisableKeepAlives = true
	})
	return b.freshOnes
}

func (b *Backend) request(call *call, method, path string, body []byte, h http.Header) *http.Request {
	u := b.address(path)
	ctx := httptrace.WithClientTrace(call.ctx, &httptrace.ClientTrace{
		// Each attempt of net/http begins here. An earlier one of the same call
		// wrote nothing, else there would be no second.
		GetConn: func(string) { call.on.Store(nil) },
		GotConn: func(info httptrace.GotConnInfo) {
			own, multiplexed := give(info.Conn, info.Reused, b.transport.Protocols.UnencryptedHTTP2())
			if multiplexed || own == nil {
				b.keeping.trust() // nothing to be seen there
			} else if call.scout {
				own.scout.Store(true)
			}
			call.on.Store(&attached{own, info.Reused})
			call.timer.Reset(b.cfg.FirstByteTimeout)
		},
		PutIdleConn: func(err error) { call.rested(err) },
	})
	r := (&http.Request{Method: method, URL: &u, Host: u.Host, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	if len(body) > 0 {
		r.ContentLength = int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return r
}

// attached is the connection that an attempt has.
type attached struct {
	conn *conn
	kept bool // from an earlier request
}

// call is one request on its way and the body of its answer. One timer watches
// the backend: for a connection, for the header, then for each wait for more of
// the body.
type call struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	on     atomic.Pointer[attached] // nil: the attempt in progress has no connection
	header atomic.Bool              // the header of the answer has arrived
	scout  bool                     // its connection is to be watched
	body   io.ReadCloser

	idle       time.Duration // between two parts of the answer
	firstEvent time.Duration // from AwaitEvent to Progress, and between two of these
	until      time.Time     // when the first event has to have come; zero: it came, or is not awaited
	reads      int           // since the last Progress
	waited     time.Duration // in all of these but the first
}

var _ Answer = (*call)(nil)

// Answer is the body of what Do returns. Its methods belong to the goroutine
// that reads it.
type Answer interface {
	io.ReadCloser
	// AwaitEvent says that the answer is a stream of which nothing has come: until
	// Progress is called, FirstEventTimeout bounds the wait in place of IdleTimeout.
	AwaitEvent()
	// Progress says that a part of the answer came, not only a sign of life. Between
	// two parts the backend may be waited for as long as FirstEventTimeout, however
	// many signs of life it gives: a model may think unseen, and an engine may hold
	// back a tool call, but a slot must not be kept for ever.
	Progress()
}

func newCall(ctx context.Context, cfg BackendConfig) *call {
	c := &call{idle: cfg.IdleTimeout, firstEvent: cfg.FirstEventTimeout}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	// The dialer and the handshake have their own deadlines: twice their sum
	// is only reached when neither ended as it should.
	c.timer = time.AfterFunc(4*cfg.ConnectTimeout, func() {
		if c.header.Load() {
			c.cancel(ErrIdleTimeout)
		} else {
			c.cancel(errNoHeader)
		}
	})
	return c
}

// headerArrived stops the clock of the first byte. False: it had run out, and
// the call is cancelled.
func (c *call) headerArrived() bool {
	c.header.Store(true)
	return c.timer.Stop()
}

// rested takes in that the connection went back to those that are kept.
func (c *call) rested(err error) {
	if on := c.on.Load(); on != nil && on.conn != nil && err == nil {
		on.conn.rest(time.Now())
	}
}

// AwaitEvent implements Answer.
func (c *call) AwaitEvent() { c.until = time.Now().Add(c.firstEvent) }

// Progress implements Answer.
func (c *call) Progress() {
	c.until = time.Time{}
	c.reads, c.waited = 0, 0
}

// Read reads the answer. The clock runs only while the backend is waited for:
// a slow client is not the backend's fault. Bytes before the first event,
// such as comments that keep the connection alive, do not turn the clock of
// the first event back.
func (c *call) Read(p []byte) (int, error) {
	wait := c.idle
	var since time.Time // of a read that may be one of many without progress
	if !c.until.IsZero() {
		wait = max(time.Until(c.until), 0)
	} else if c.reads > 0 {
		since = time.Now()
		wait = min(wait, max(c.firstEvent-c.waited, 0))
	}
	c.timer.Reset(wait)
	n, err := c.body.Read(p)
	c.timer.Stop()
	if c.reads++; !since.IsZero() {
		c.waited += time.Since(since)
	}
	if err != nil && err != io.EOF && context.Cause(c.ctx) == ErrIdleTimeout {
		if err = ErrIdleTimeout; !c.until.IsZero() {
			err = ErrFirstEventTimeout
		}
	}
	return n, err
}

// Close ends the call; before the end of the answer it makes the backend see a
// closed connection (HTTP/2: a reset stream) at once.
func (c *call) Close() error {
	c.timer.Stop()
	c.cancel(nil)
	return c.body.Close()
}
