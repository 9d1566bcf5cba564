package gateway

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// freeBody is how much of each body, in bytes, is not counted against
// bodyMemory: a usual chat fits, so that it is quoted and served even while
// large bodies are refused. The number of requests bounds the sum.
const freeBody = 16 << 10

// bodyMemory bounds the bytes of all bodies that are in memory at once, and of
// answers that are kept beyond what each may take. Callers
// without a token share a part of their own, so that strangers with large
// bodies take nothing from those who pay.
type bodyMemory struct {
	holders, strangers pool
}

type pool struct {
	used, most atomic.Int64
}

func newBodyMemory(most int64) *bodyMemory {
	m := new(bodyMemory)
	m.limit(most)
	return m
}

// limit sets the bound; what is in memory stays there.
func (m *bodyMemory) limit(most int64) {
	m.holders.most.Store(most - most/8)
	m.strangers.most.Store(most / 8)
}

// take takes n bytes, or none.
func (p *pool) take(n int64) bool {
	if p.used.Add(n) > p.most.Load() {
		p.used.Add(-n)
		return false
	}
	return true
}

// bodyUse is what one request took of a pool.
type bodyUse struct {
	pool  *pool
	bytes int64
}

// grow makes the use cover a buffer of size bytes.
func (u *bodyUse) grow(size int) bool {
	more := int64(size) - freeBody - u.bytes
	return more <= 0 || u.take(more)
}

// take takes n bytes more, or none.
func (u *bodyUse) take(n int64) bool {
	if !u.pool.take(n) {
		return false
	}
	u.bytes += n
	return true
}

// release gives everything back; nothing may refer to the body any more.
func (u *bodyUse) release() {
	if u.bytes > 0 {
		u.pool.used.Add(-u.bytes)
		u.bytes = 0
	}
}

// readBody reads the whole body, limit bytes at most, within its time. Metering
// needs all of it before anything is forwarded. What it takes of bodyMemory is
// given back when the request ends.
func (x *exchange) readBody(limit int64) ([]byte, error) {
	r := x.r
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	if r.Header.Get("Content-Encoding") != "" {
		return nil, newProblem(http.StatusUnsupportedMediaType, typeInvalidRequest, "send the body without Content-Encoding")
	}
	x.body.pool = &x.g.bodies.holders
	if x.token == nil {
		x.body.pool = &x.g.bodies.strangers
	}
	// Room for a byte more than there may be, so as to see the end. A claimed
	// length is believed only as far as the bytes have come.
	most := limit + 1
	if r.ContentLength > 0 {
		most = r.ContentLength + 1
	}
	buf := make([]byte, 0, min(most, freeBody))
	for {
		if len(buf) == cap(buf) {
			size := int(min(2*int64(cap(buf)), most))
			if !x.body.grow(size) {
				return nil, tooManyBodies()
			}
			buf = append(make([]byte, 0, size), buf...)
		}
		n, err := r.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > limit:
			return nil, &http.MaxBytesError{Limit: limit}
		case errors.Is(err, io.EOF):
			_ = x.control.SetReadDeadline(time.Time{}) // from here on a read only tells whether the client is there
			return buf, nil
		case err != nil:
			p := newProblem(http.StatusRequestTimeout, typeInvalidRequest, "the body did not arrive in time or in full")
			p.closeClient = true
			return nil, p
		}
		x.awaitBody(len(buf))
	}
}

// awaitBody moves the deadline of the body on by what has come of it: BodyGrace
// and a second for each BodyRate bytes, BodyTimeout at most. So a body that
// drips in ends long before one that is large.
func (x *exchange) awaitBody(arrived int) {
	cfg := &x.cat.Config
	allowed := cfg.BodyGrace + time.Duration(float64(arrived)/float64(cfg.BodyRate)*float64(time.Second))
	until := x.arrived.Add(min(allowed, cfg.BodyTimeout))
	if arrived == 0 || until.Sub(x.bodyUntil) > cfg.BodyGrace/8 {
		x.bodyUntil = until
		_ = x.control.SetReadDeadline(until) // there is no way to fail that the next read would not report
	}
}

// tooManyBodies refuses a body that there is no memory for.
func tooManyBodies() error {
	p := retryable(newProblem(http.StatusServiceUnavailable, typeQueueFull, "too many large requests are being read; repeat this one"), busyRetry)
	p.closeClient, p.expected = true, true
	return p
}
