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
	// ErrNotTaken reports that the backend cannot have received the request, because no connection
	// could be made, or because not all of the request reached the backend. The caller may safely try
	// another backend.
	ErrNotTaken = errors.New("backend did not take the request")
	// ErrFirstByteTimeout reports that no answer began within FirstByteTimeout. The backend may have
	// worked on the request.
	ErrFirstByteTimeout = errors.New("backend did not answer in time")
	// ErrFirstEventTimeout reports that a stream began and brought no event within FirstEventTimeout.
	// Reads of the answer's body return it.
	ErrFirstEventTimeout = errors.New("backend began a stream and sent no event in time")
	// ErrIdleTimeout reports that an answer stalled. Nothing came for IdleTimeout, or only signs of
	// life came for FirstEventTimeout. Reads of the answer's body return it.
	ErrIdleTimeout = errors.New("backend stalled in its answer")

	errNoHeader = errors.New("timed out") // the cause that net/http sees; Do returns an error that names the timeout
)

const (
	// idleConn is how long an unused connection is kept. It is below the 5 s after which uvicorn (vLLM,
	// SGLang) and cpp-httplib (llama.cpp) close their connections. So the gateway closes first, and no
	// request meets a connection that was just closed.
	idleConn = 4 * time.Second
	// connBuffer is the size of the read buffer and of the write buffer of a connection, in bytes. It
	// is larger than most events, so that each event is one system call. A thousand streams hold a
	// thousand of both buffers. The body of a long request bypasses the buffer.
	connBuffer = 4 << 10
	// maxResponseHeader bounds the header of an answer, in bytes.
	maxResponseHeader = 256 << 10
)

func newTransport(base *url.URL, cfg BackendConfig, k *keeping) (*http.Transport, error) {
	t := &http.Transport{
		DialContext:         dial(cfg.ConnectTimeout, k),
		TLSHandshakeTimeout: cfg.ConnectTimeout,
		// The gateway reads usage from the bytes of the answer, so the bytes must not be compressed.
		DisableCompression:     true,
		MaxIdleConnsPerHost:    cfg.Slots + 1, // the extra connection is for the health check
		IdleConnTimeout:        idleConn,
		ReadBufferSize:         connBuffer,
		WriteBufferSize:        connBuffer,
		MaxResponseHeaderBytes: maxResponseHeader,
		Protocols:              new(http.Protocols),
		// The pings notice a peer that vanished while an answer is awaited.
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

// strip lists headers of the caller that Do does not send. The caller's credentials are removed because
// they are worth the caller's money. An Idempotency-Key would make net/http repeat a POST by itself if
// a connection breaks after the request was written.
var strip = [...]string{"Authorization", "Macaroon", "Grpc-Metadata-Macaroon", "Idempotency-Key", "X-Idempotency-Key"}

// Do sends one request and returns the answer as soon as its header has come. path starts with a slash
// and may hold a query. See Path for servers that have their API under other paths. h may be nil. The
// caller must not use h afterwards, because Do changes h: it replaces the caller's credentials with the
// backend's key. The caller must not change body afterwards, because body may still be being sent when
// an answer comes early. Do returns redirects and does not follow them. The caller closes the body of
// the answer. Reading the body fails with ErrIdleTimeout if the backend stalls.
//
// The errors are ErrNotTaken (which also wraps the error of ctx if ctx ended before the backend can
// have got the request), ErrFirstByteTimeout, and the error of ctx. Any other error means that the
// backend may have received the request.
//
// Do repeats a request once, on a new connection. It does so only if the first connection was kept from
// an earlier request and ended before the backend can have read this request to its end: nothing or not
// all of the request was written, or the backend's system refused what was written (see conn.ended). In
// HTTP/2 net/http also repeats a request if the server says that it did not process the request.
//
// Do uses kept connections only if the backend has shown that it keeps connections: see keeping.
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

// attempt sends the request once. stale means that the connection was a kept connection which had
// ended, so the backend did not get the request.
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

// fresh returns the transport that uses each connection once.
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
		// Each attempt of net/http begins here. If there was an earlier attempt of the same call, that
		// attempt wrote nothing, because otherwise net/http would make no second attempt.
		GetConn: func(string) { call.on.Store(nil) },
		GotConn: func(info httptrace.GotConnInfo) {
			own, multiplexed := give(info.Conn, info.Reused, b.transport.Protocols.UnencryptedHTTP2())
			if multiplexed || own == nil {
				b.keeping.trust() // such a connection shows nothing about keeping
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
	kept bool // the connection is kept from an earlier request
}

// call is one request under way and the body of its answer. One timer bounds each wait for the backend:
// first for a connection, then for the header, then for each next part of the body.
type call struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	on     atomic.Pointer[attached] // nil means that the attempt in progress has no connection
	header atomic.Bool              // the header of the answer has arrived
	scout  bool                     // the connection is to be watched: see keeping.use
	body   io.ReadCloser

	idle       time.Duration // longest wait between two parts of the answer
	firstEvent time.Duration // longest time from AwaitEvent to Progress, and between two calls of Progress
	until      time.Time     // deadline of the first event; zero means that the event came, or is not awaited
	reads      int           // number of reads since the last Progress
	waited     time.Duration // time waited in these reads, without the first of them
}

var _ Answer = (*call)(nil)

// Answer is the body of the answer that Do returns. Only the goroutine that reads the body may call its
// methods.
type Answer interface {
	io.ReadCloser
	// AwaitEvent says that the answer is a stream of which nothing has come. Until the caller calls
	// Progress, FirstEventTimeout bounds the wait in place of IdleTimeout.
	AwaitEvent()
	// Progress says that a part of the answer came, and not only a sign of life. Between two parts the
	// backend may take as long as FirstEventTimeout, however many signs of life it gives. A model may
	// think without output, and an engine may hold back a tool call, but a request must not keep a slot
	// for ever.
	Progress()
}

func newCall(ctx context.Context, cfg BackendConfig) *call {
	c := &call{idle: cfg.IdleTimeout, firstEvent: cfg.FirstEventTimeout}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	// The dialer and the TLS handshake have deadlines of their own. This timer is twice the sum of
	// these deadlines, so it fires only if neither deadline worked.
	c.timer = time.AfterFunc(4*cfg.ConnectTimeout, func() {
		if c.header.Load() {
			c.cancel(ErrIdleTimeout)
		} else {
			c.cancel(errNoHeader)
		}
	})
	return c
}

// headerArrived stops the timer of the header. It returns false if the timer had already fired, which
// cancelled the call.
func (c *call) headerArrived() bool {
	c.header.Store(true)
	return c.timer.Stop()
}

// rested notes that net/http put the connection back among the kept connections, if err is nil.
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

// Read reads the answer. The timer runs only during a wait for the backend, because a slow client is
// not the backend's fault. Bytes before the first event, such as comments that keep the connection
// alive, do not extend the deadline of the first event.
func (c *call) Read(p []byte) (int, error) {
	wait := c.idle
	var since time.Time // start of a read that may be one of many without progress
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

// Close ends the call. Before the end of the answer it makes the backend see a closed connection at
// once (in HTTP/2, a reset stream).
func (c *call) Close() error {
	c.timer.Stop()
	c.cancel(nil)
	return c.body.Close()
}
