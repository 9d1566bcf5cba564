package gateway

import (
	"io"
	"net/http"
	"time"

	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/internal/gateway/problem"
)

// admitStranger counts a caller without a token, before anything of its body is
// read. A caller with one is counted when a challenge is made for its account.
func (x *exchange) admitStranger() error {
	if x.token != nil {
		return nil
	}
	wait, level := x.g.limits.Stranger(x.cat.addresses.Of(x.r), x.g.now())
	if wait == 0 {
		return nil
	}
	return x.limited(wait, level, "too many requests without a token come from your network; pay for one, or wait")
}

// admitChallenge counts a new invoice for a caller with a token.
func (x *exchange) admitChallenge() error {
	if x.token == nil {
		return nil // counted by admitStranger
	}
	wait := x.g.limits.Account(x.token.ID, x.g.now())
	if wait == 0 {
		return nil
	}
	return x.limited(wait, intake.LevelAccount, "too many invoices were asked for this account; pay one of them, or wait")
}

// limited is the 429 of a bucket. A connection whose request was not read to
// its end is of no more use: reading on is what the refusal saves.
func (x *exchange) limited(wait time.Duration, level int, detail string) error {
	x.g.observer.Limited(x.r.Context(), intake.LevelName(level))
	p := problem.Retryable(problem.New(http.StatusTooManyRequests, problem.RateLimited, detail), wait)
	p.CloseClient = x.r.ProtoMajor < 2 && x.r.ContentLength != 0
	return p
}

// overloaded refuses a request because as many are being served as may.
func (x *exchange) overloaded() error {
	p := problem.Retryable(problem.New(http.StatusServiceUnavailable, problem.QueueFull, "the gateway serves as many requests as it can; repeat this one"), problem.BusyRetry)
	p.CloseClient, p.Expected = x.r.ProtoMajor < 2, true
	return p
}

// Bounds on reading, and throwing away, what a refused client is still sending.
// Closed at once, the connection would be reset, and the client never see why.
const (
	linger         = time.Second     // without a byte of it
	lingerTooLarge = 5 * time.Second // in all, for a body that is merely too large; for others linger
	lingerBytes    = 64 << 20
)

// dismiss sends a problem to a client whose connection is not kept, and waits a
// moment for what that client is still sending.
func (x *exchange) dismiss(p *problem.Problem) {
	_ = x.control.EnableFullDuplex() // the answer does not wait for the body
	p.WriteAs(x, dialectOf(x.r))
	until := time.Now().Add(linger)
	if p.Status == http.StatusRequestEntityTooLarge {
		until = time.Now().Add(lingerTooLarge)
	}
	_ = x.control.SetReadDeadline(time.Now().Add(linger))
	if x.r.Body == nil || x.r.Header.Get("Expect") != "" || x.FlushError() != nil {
		return // a client that asks first has sent nothing
	}
	for left := int64(lingerBytes); left > 0 && time.Now().Before(until); {
		n, err := io.CopyN(io.Discard, x.r.Body, min(left, 1<<20))
		if err != nil {
			return
		}
		left -= n
		_ = x.control.SetReadDeadline(time.Now().Add(min(linger, time.Until(until))))
	}
}
