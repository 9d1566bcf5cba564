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

// stainlessRetry is the header in which SDKs that Stainless generates (those of
// OpenAI and Anthropic) number the attempts of a call, from 0.
const stainlessRetry = "X-Stainless-Retry-Count"

// WithIdempotencyKey returns a context for one logical call: whatever sends it
// again, an SDK or a loop of the caller's own, sends the same Idempotency-Key, so
// that the gateway charges it once at most. An empty key stands for a random one.
// Requests under the context that differ in method, URL or body are different
// calls and get different keys.
//
// Without it the client recognises a repetition where it can: a request like one
// that ended without a clear answer (no connection, a time-out, 408, 409, 429 or
// 5xx) within the last ten minutes, or one that an SDK numbers as an attempt.
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
		t.key = t.c.calls.key(t.fingerprint, chosen, h.Get(stainlessRetry), t.c.cfg.Now())
	}
	h.Set(headerIdempotency, t.key)
}

// takeFingerprint reads a copy of the body. One that is too large to keep has none:
// its repetition is not recognised.
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

const (
	// doubtFor is how long a call without a clear answer is remembered: longer than
	// any SDK goes on trying.
	doubtFor = 10 * time.Minute
	// maxDoubts bounds the calls remembered. Beyond it the oldest is forgotten.
	maxDoubts = 1024
)

// calls remembers the keys of calls that ended without a clear answer, so that
// their repetitions carry the same. Calls that are still running are not in it:
// equal requests made at the same time are different calls.
type calls struct {
	mu   sync.Mutex
	open []openCall // oldest first
}

type openCall struct {
	of  fingerprint
	key string
	at  time.Time
}

// key chooses the key of a call. attempt is its number if an SDK told one.
func (c *calls) key(f fingerprint, chosen, attempt string, now time.Time) string {
	if chosen != "" {
		sum := sha256.Sum256(append([]byte(chosen+"\x00"), f[:]...))
		return "call-" + hex.EncodeToString(sum[:16])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = slices.DeleteFunc(c.open, func(o openCall) bool { return now.Sub(o.at) >= doubtFor })
	i := slices.IndexFunc(c.open, func(o openCall) bool { return o.of == f })
	if i < 0 || attempt == "0" {
		return "auto-" + rand.Text()
	}
	key := c.open[i].key
	c.open = slices.Delete(c.open, i, i+1) // another repetition belongs to another call
	return key
}

// doubt notes a call that ended without a clear answer.
func (c *calls) doubt(f fingerprint, key string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) == maxDoubts {
		c.open = slices.Delete(c.open, 0, 1)
	}
	c.open = append(c.open, openCall{f, key, now})
}

// noteEnd remembers the call if it may have been charged, or is charged yet,
// without an answer that says so. A caller that gives up on its own account is not
// expected to repeat.
func (t *trip) noteEnd(resp *http.Response, err error) {
	if t.key == "" || t.fingerprint == (fingerprint{}) {
		return
	}
	switch {
	case err != nil:
		if errors.Is(t.req.Context().Err(), context.Canceled) {
			return
		}
	case resp.StatusCode == http.StatusConflict:
		if resp.Header.Get("X-Should-Retry") == "false" {
			return // it was charged, and the answer says so
		}
	case resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusRequestTimeout && resp.StatusCode != http.StatusTooManyRequests:
		return
	}
	t.c.calls.doubt(t.fingerprint, t.key, t.c.cfg.Now())
}
