package gateway

import (
	"errors"
	"io"
	"net/http"
	"time"

	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/internal/gateway/problem"
)

// readBody reads the whole body, of limit bytes at most, within its time. The whole body is
// needed to bound the cost before anything is forwarded. The memory that the body takes is given
// back when the request ends.
func (x *exchange) readBody(limit int64) ([]byte, error) {
	r := x.r
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	if r.Header.Get("Content-Encoding") != "" {
		return nil, problem.New(http.StatusUnsupportedMediaType, problem.InvalidRequest, "send the body without Content-Encoding")
	}
	x.body.From(x.g.bodies, x.token != nil)
	// The buffer gets room for one byte more than allowed, so that the end can be seen. It grows
	// only with the bytes that come, whatever Content-Length claims.
	most := limit + 1
	if r.ContentLength > 0 {
		most = r.ContentLength + 1
	}
	buf := make([]byte, 0, min(most, intake.FreeBody))
	for {
		if len(buf) == cap(buf) {
			size := int(min(2*int64(cap(buf)), most))
			if !x.body.Grow(size) {
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
			_ = x.control.SetReadDeadline(time.Time{}) // from here on, reads only show whether the client is there
			return buf, nil
		case err != nil:
			p := problem.New(http.StatusRequestTimeout, problem.InvalidRequest, "the body did not arrive in time or in full")
			p.CloseClient = true
			return nil, p
		}
		x.awaitBody(len(buf))
	}
}

// awaitBody sets the deadline of the body by the bytes that have come: BodyGrace, plus a second
// for each BodyRate bytes, but BodyTimeout at most. So a body that drips ends long before a
// large body does.
func (x *exchange) awaitBody(arrived int) {
	cfg := &x.cat.Config
	allowed := cfg.BodyGrace + time.Duration(float64(arrived)/float64(cfg.BodyRate)*float64(time.Second))
	until := x.arrived.Add(min(allowed, cfg.BodyTimeout))
	if arrived == 0 || until.Sub(x.bodyUntil) > cfg.BodyGrace/8 {
		x.bodyUntil = until
		_ = x.control.SetReadDeadline(until) // the next read reports an error of this call
	}
}

// tooManyBodies returns the problem for a body for which there is no memory.
func tooManyBodies() error {
	p := problem.Retryable(problem.New(http.StatusServiceUnavailable, problem.QueueFull, "too many large requests are being read; repeat this one"), problem.BusyRetry)
	p.CloseClient, p.Expected = true, true
	return p
}
