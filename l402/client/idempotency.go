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

// WithIdempotencyKey returns a context for one logical call: an SDK, or a loop of
// the caller's own, that sends it again sends the same Idempotency-Key, so that
// the gateway charges it once at most. An empty key stands for a random one.
// Requests under the context that differ in method, URL or body are different
// calls and get different keys.
//
// Without it the client takes a request for a repetition if an equal one, by method,
// URL and body, did not end well within the last ten minutes: without a connection,
// with 408, 409, 429 or 5xx, at the end of its context, or with an answer that was
// not read to its end. An SDK's own count of its attempts is no sign, because a loop
// around the SDK begins to count anew. A caller that left an answer and wants
// another one for the same request says so with a key of its own.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	if key == "" {
		key = rand.Text()
	}
	return context.WithValue(ctx, keyCall, key)
}

// fingerprint is the SHA-256 of a request's method, URL and body.
type fingerprint [sha256.Size]byte

// nameCall sets the Idempotency-Key of a request that may be charged, unless the
// caller set one. A request that goes out without a token gets none on our own
// account: net/http sends a POST with such a key again by itself when a connection
// breaks, which a server that we do not know may not expect.
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

// takeFingerprint reads a copy of the body. A body that is too large to keep has no
// fingerprint, so a repetition of that request is not recognised.
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

// chooseKey chooses the key of a call. A chosen word of the caller's decides it.
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
	// doubtFor is how long a call that did not end well is remembered: longer than
	// any SDK goes on trying.
	doubtFor = 10 * time.Minute
	// maxCalls bounds the calls remembered. Beyond it the oldest is forgotten.
	maxCalls = 4096
)

// calls remembers the keys of calls that did not end well, so that their
// repetitions carry the same. Equal requests that run at the same time are
// different calls, unless the caller has ended the context of one: it does not wait
// for that one any more, and the next may come before the first is noted as ended.
type calls struct {
	mu   sync.Mutex
	open []*attempt // oldest first
}

// attempt is one request of a call. calls guards it.
type attempt struct {
	of       fingerprint
	key      string
	at       time.Time       // when it began, or ended in doubt
	ctx      context.Context // of the request; nil: it ended in doubt
	repeated bool            // another attempt goes on with its key
}

// begin notes an attempt, of a call that is open or of a new one.
func (c *calls) begin(ctx context.Context, f fingerprint, now time.Time) *attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = slices.DeleteFunc(c.open, func(a *attempt) bool { return now.Sub(a.at) >= doubtFor })
	next := &attempt{of: f, at: now, ctx: ctx}
	i := slices.IndexFunc(c.open, func(a *attempt) bool { return a.of == f && (a.ctx == nil || a.ctx.Err() != nil) })
	if i >= 0 {
		next.key = c.open[i].key
		c.open[i].repeated = true // another repetition belongs to another call
		c.open = slices.Delete(c.open, i, i+1)
	} else {
		next.key = "auto-" + rand.Text()
	}
	c.add(next)
	return next
}

// add adds the newest attempt. The caller holds mu.
func (c *calls) add(a *attempt) {
	if len(c.open) >= maxCalls {
		c.open = slices.Delete(c.open, 0, 1)
	}
	c.open = append(c.open, a)
}

// end notes how an attempt ended. An attempt that did not end well stays on
// record, for a repetition.
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

// noteEnd notes how the call ended, as far as it is known before the body of its
// answer was read. It may have been charged unless an answer says that it was not.
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
		// The key is in use, by an attempt that runs still; or the call was charged,
		// and the answer says so.
		well = resp.Header.Get("X-Should-Retry") == "false"
	default:
		well = resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusRequestTimeout &&
			resp.StatusCode != http.StatusTooManyRequests
	}
	t.c.calls.end(t.attempt, well, t.c.cfg.Now())
}
