package gateway

import (
	"io"
	"net/http"
	"time"

	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/internal/gateway/problem"
)

// admitStranger counts a caller without a token by address, before the gateway reads any of the
// body. admitChallenge counts a caller with a token when a challenge is made for its account.
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

// admitChallenge counts a new invoice for a caller with a token by account.
func (x *exchange) admitChallenge() error {
	if x.token == nil {
		return nil // admitStranger has counted the caller
	}
	wait := x.g.limits.Account(x.token.ID, x.g.now())
	if wait == 0 {
		return nil
	}
	return x.limited(wait, intake.LevelAccount, "too many invoices were asked for this account; pay one of them, or wait")
}

// limited returns the 429 of a caller that came too often. The connection is closed if the request
// has a body, because reading the rest of the body is the work that the refusal saves.
func (x *exchange) limited(wait time.Duration, level int, detail string) error {
	x.g.observer.Limited(x.r.Context(), intake.LevelName(level))
	p := problem.Retryable(problem.New(http.StatusTooManyRequests, problem.RateLimited, detail), wait)
	p.CloseClient = x.r.ProtoMajor < 2 && x.r.ContentLength != 0
	return p
}

// overloaded returns the problem for a request that finds MaxRequests requests being served.
func (x *exchange) overloaded() error {
	p := problem.Retryable(problem.New(http.StatusServiceUnavailable, problem.QueueFull, "the gateway serves as many requests as it can; repeat this one"), problem.BusyRetry)
	p.CloseClient, p.Expected = x.r.ProtoMajor < 2, true
	return p
}

// These constants bound how long the gateway reads, and drops, what a refused client still sends.
// If the gateway closed the connection at once, the connection would be reset, and the client
// would not get the answer.
const (
	linger         = time.Second     // the longest wait for the next byte; in all, for most refusals
	lingerTooLarge = 5 * time.Second // in all, for a body that is too large
	lingerBytes    = 64 << 20
)

// dismiss sends a problem to a client whose connection is not kept, and reads for a moment what
// that client still sends.
func (x *exchange) dismiss(p *problem.Problem) {
	_ = x.control.EnableFullDuplex() // lets the answer go out before the body has come
	p.WriteAs(x, dialectOf(x.r))
	until := time.Now().Add(linger)
	if p.Status == http.StatusRequestEntityTooLarge {
		until = time.Now().Add(lingerTooLarge)
	}
	_ = x.control.SetReadDeadline(time.Now().Add(linger))
	if x.r.Body == nil || x.r.Header.Get("Expect") != "" || x.FlushError() != nil {
		return // a client with Expect has sent no body yet
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
