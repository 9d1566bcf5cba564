package gateway

import (
	"net/http"
	"time"
)

// admitStranger counts a caller without a token, before anything of its body is
// read. A caller with one is counted when a challenge is made for its account.
func (x *exchange) admitStranger() error {
	if x.token != nil {
		return nil
	}
	wait, level := x.g.limits.stranger(x.cat.addresses.of(x.r), x.g.now())
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
	wait := x.g.limits.account(x.token.ID, x.g.now())
	if wait == 0 {
		return nil
	}
	return x.limited(wait, levelAccount, "too many invoices were asked for this account; pay one of them, or wait")
}

// limited is the 429 of a bucket. A connection whose request was not read to
// its end is of no more use: reading on is what the refusal saves.
func (x *exchange) limited(wait time.Duration, level int, detail string) error {
	x.g.observer.Limited(x.r.Context(), levelNames[level])
	p := retryable(newProblem(http.StatusTooManyRequests, typeRateLimited, detail), wait)
	p.closeClient = x.r.ProtoMajor < 2 && x.r.ContentLength != 0
	return p
}

// overloaded refuses a request because as many are being served as may.
func (x *exchange) overloaded() error {
	p := retryable(newProblem(http.StatusServiceUnavailable, typeQueueFull, "the gateway serves as many requests as it can; repeat this one"), busyRetry)
	p.closeClient, p.expected = x.r.ProtoMajor < 2, true
	return p
}
