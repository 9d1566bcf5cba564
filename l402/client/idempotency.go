package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

const headerIdempotency = "Idempotency-Key"

// WithIdempotencyKey returns a context for one logical call. An SDK or a loop that sends the call
// again under this context sends the same Idempotency-Key, so that the gateway charges the call at
// most once. An empty key stands for a random key. Requests under the context that differ in
// method, URL or body are different calls and get different keys.
//
// Without such a context the client takes a request for a repetition if an equal request, by
// method, URL and body, did not end well within the last ten minutes. A request did not end well
// when it got no connection, or a 408, 409, 429 or 5xx, or when its context ended, or when its
// answer was not read to its end. The client ignores an SDK's own count of its attempts, because a
// loop around the SDK begins a new count. A caller that did not read an answer to its end, and
// wants a new answer to the same request, uses a different key.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	if key == "" {
		key = rand.Text()
	}
	return context.WithValue(ctx, keyCall, key)
}

// fingerprint is the SHA-256 of a request's method, URL and body.
type fingerprint [sha256.Size]byte

// nameCall sets the Idempotency-Key of a request that may be charged, unless the caller of the
// client set one. A request without a token gets a key only if the caller chose one, because
// net/http sends a POST with an Idempotency-Key again by itself when a connection breaks. A server
// that the client does not know may not expect this.
func (t *trip) nameCall(h http.Header, token Token, have bool) {
	if h.Get(headerIdempotency) != "" || h.Get("X-Idempotency-Key") != "" {
		return
	}
	switch t.req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, "":
		return
	}
	chosen, _ := t.req.Context().Value(keyCall).(string)
	if chosen == "" && !(have && token.topsUp()) {
		return
	}
	if t.key == "" {
		t.takeFingerprint()
		t.key = t.chooseKey(chosen)
	}
	h.Set(headerIdempotency, t.key)
}

// takeFingerprint computes the fingerprint from a copy of the body. A body that is too large to
// keep gets no fingerprint, so the client does not recognise a repetition of that request.
func (t *trip) takeFingerprint() {
	if t.body != nil && (t.size < 0 || t.size > t.c.cfg.MaxBody) {
		return
	}
	sum := sha256.New()
	io.WriteString(sum, t.req.Method+" "+t.req.URL.String()+"\x00")
	if t.body != nil {
		b, err := t.body()
		if err != nil {
			return
		}
		_, err = io.Copy(sum, b)
		if errors.Join(err, b.Close()) != nil {
			return
		}
	}
	sum.Sum(t.fingerprint[:0])
}

// chooseKey returns the key of a call. When chosen is not empty, the key depends only on chosen and
// the fingerprint.
func (t *trip) chooseKey(chosen string) string {
	switch {
	case chosen != "":
		sum := sha256.Sum256(append([]byte(chosen+"\x00"), t.fingerprint[:]...))
		return "call-" + hex.EncodeToString(sum[:16])
	case t.fingerprint == (fingerprint{}):
		return "auto-" + rand.Text()
	}
	t.attempt = t.c.calls.begin(t.req.Context(), t.fingerprint, t.c.cfg.Now())
	return t.attempt.key
}

const (
	// doubtFor is how long the client remembers a call that did not end well. It is longer than any
	// SDK repeats a call.
	doubtFor = 10 * time.Minute
	// maxCalls is how many calls the client remembers. When there are more, it forgets the oldest.
	maxCalls = 4096
)

// calls remembers the keys of calls that did not end well, so that their repetitions carry the same
// key. Equal requests that run at the same time are different calls, with one exception: when the
// context of a running request has ended, an equal request is its repetition. The caller does not
// wait for the running request any more, and may send the repetition before the client has noted
// the end.
type calls struct {
	mu   sync.Mutex
	open []*attempt // oldest first
}

// attempt is one request of a call. calls.mu guards it.
type attempt struct {
	of       fingerprint
	key      string
	at       time.Time       // when the attempt began, or when it ended in doubt
	ctx      context.Context // context of the request; nil: the attempt ended in doubt
	repeated bool            // a later attempt uses this attempt's key
}

// begin records a new attempt. The attempt continues a remembered call with the same fingerprint,
// or begins a new call.
func (c *calls) begin(ctx context.Context, f fingerprint, now time.Time) *attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = slices.DeleteFunc(c.open, func(a *attempt) bool { return now.Sub(a.at) >= doubtFor })
	next := &attempt{of: f, at: now, ctx: ctx}
	i := slices.IndexFunc(c.open, func(a *attempt) bool { return a.of == f && (a.ctx == nil || a.ctx.Err() != nil) })
	if i >= 0 {
		next.key = c.open[i].key
		c.open[i].repeated = true // a further repetition must not take this key from here
		c.open = slices.Delete(c.open, i, i+1)
	} else {
		next.key = "auto-" + rand.Text()
	}
	c.add(next)
	return next
}

// add adds a, which is the newest attempt. The caller holds mu.
func (c *calls) add(a *attempt) {
	if len(c.open) >= maxCalls {
		c.open = slices.Delete(c.open, 0, 1)
	}
	c.open = append(c.open, a)
}

// end records how an attempt ended. An attempt that did not end well is remembered, so that a
// repetition gets its key.
func (c *calls) end(a *attempt, well bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.open, a); i >= 0 {
		c.open = slices.Delete(c.open, i, i+1)
	}
	if !well && !a.repeated {
		a.ctx, a.at = nil, now
		c.add(a)
	}
}

// noteEnd records how the call ended, unless that depends on the body of the answer, which nobody
// has read yet. The client assumes that the call may have been charged unless the answer says that
// it was not.
func (t *trip) noteEnd(resp *http.Response, err error) {
	if t.attempt == nil {
		return
	}
	well := false
	switch {
	case err != nil:
	case resp.StatusCode < http.StatusMultipleChoices:
		t.followBody(resp)
		return
	case resp.StatusCode == http.StatusConflict:
		// The gateway answers 409 while another attempt with this key runs. It also answers 409
		// when it has charged the call, and then sets X-Should-Retry to false.
		well = resp.Header.Get("X-Should-Retry") == "false"
	default:
		well = resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusRequestTimeout &&
			resp.StatusCode != http.StatusTooManyRequests
	}
	t.c.calls.end(t.attempt, well, t.c.cfg.Now())
}
