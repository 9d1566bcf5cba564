package gpu

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

const (
	// ejectAfter is how many failed requests in a row eject a backend.
	ejectAfter = 3
	// doubtAccounts is how many accounts must have met failures, with as many different requests,
	// before failures count that may be the requests' own fault. doubtMost is how many such failures in
	// a row, from however few accounts, put the backend on trial.
	doubtAccounts, doubtMost = 3, 10
	// The back-off of an ejection doubles from ejectBase to ejectMax. Each back-off is changed at
	// random by up to ±20 %. After the back-off, one more failure ejects the backend again.
	ejectBase, ejectMax = time.Second, time.Minute
	// reachMost is the longest back-off of a backend that cannot be reached, because trying to connect
	// costs nothing.
	reachMost = 5 * time.Second
)

// ejection is the reason why a backend gets no requests for a while.
type ejection uint8

const (
	// byFailures means that requests failed. If no other backend is left, the next request may be
	// tried.
	byFailures ejection = iota
	// bySilence means that no connection can be made. Nothing is sent before a connection can be made.
	bySilence
	// byDenial means that the backend does not take the gateway's key. No client's request is sent
	// before the backend takes the key.
	byDenial
)

// doubts counts failures in a row that may have been the requests' own fault.
type doubts struct {
	n      int
	keys   []Key    // of different accounts, at most doubtAccounts
	bodies []uint64 // of different requests, at most doubtAccounts; 0 may be there several times
}

func (d *doubts) add(k Key, body uint64) {
	d.n++
	if len(d.keys) < doubtAccounts && !slices.Contains(d.keys, k) {
		d.keys = append(d.keys, k)
	}
	if len(d.bodies) < doubtAccounts && (body == 0 || !slices.Contains(d.bodies, body)) {
		d.bodies = append(d.bodies, body)
	}
}

// serious says whether the failures come from so many accounts and so many different requests that not
// all requests can have been at fault.
func (d *doubts) serious() bool {
	return len(d.keys) >= doubtAccounts && len(d.bodies) >= doubtAccounts
}

// judge records how a request went, and returns whose fault it was.
func (b *Backend) judge(l *Lease, r Result, now time.Time) verdict {
	h := &b.health
	v := blame(r)
	switch v {
	case neutral:
		if r.RequestFault {
			b.claim(l, r, now)
		}
	case success:
		b.served++
		if l.since.Before(h.failedAt) {
			break // the request began before the trouble, so it is no proof that the trouble is over
		}
		h.fails, h.backoffs, h.doubts, h.claims = 0, 0, doubts{}, doubts{}
		h.servedAt = now
		if h.ejected { // tried because all were ejected, and the request went well
			b.restore()
		}
		*b.lackOf(l.ticket.pool) = lack{}
	case failed:
		b.fail(l, r, now)
	}
	if r.Lacks != "" {
		b.lack(l.ticket.pool, r.Lacks, now)
	}
	return v
}

// fail records a request that failed by the fault of the backend.
func (b *Backend) fail(l *Lease, r Result, now time.Time) {
	h := &b.health
	b.failed++
	h.failedAt, h.failedIn = now, l.ticket.pool
	if h.lastErr = r.Err; r.Err == nil {
		h.lastErr = fmt.Errorf("backend %s: answered %d", b.cfg.Name, r.Status)
	}
	if r.Doubtful {
		h.doubts.add(l.ticket.key, r.Body)
	} else {
		h.fails++
	}
	switch {
	case h.ejected:
	case h.fails >= ejectAfter, h.doubts.serious() && h.fails+h.doubts.n >= ejectAfter, h.doubts.n >= doubtMost && b.fleet.prover == nil:
		cause := byFailures
		if errors.Is(r.Err, ErrNotTaken) {
			cause = bySilence
		}
		b.eject(cause, now)
	case denies(r.Status), h.doubts.n >= doubtMost:
		b.suspect(l.ticket.pool, now)
	}
}

// denies says whether a status may mean that the backend does not take the gateway's key.
func denies(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// claim records that the backend refused a request and blamed the request. A backend that blames the
// requests of everybody is broken, whatever it says. For example, "FlashAttention is not supported on
// this device" is not about any request.
func (b *Backend) claim(l *Lease, r Result, now time.Time) {
	h := &b.health
	h.claims.add(l.ticket.key, r.Body)
	if !h.ejected && (len(h.claims.keys) >= doubtAccounts || h.claims.n >= doubtMost) {
		h.failedIn = l.ticket.pool
		b.suspect(l.ticket.pool, now)
	}
}

// deniedError reports the status with which the backend refused the gateway's key.
type deniedError struct {
	backend string
	status  int
}

func (e deniedError) Error() string {
	return fmt.Sprintf("backend %s: a request of one token was answered with %d", e.backend, e.status)
}

func isDenial(err error) bool {
	_, ok := errors.AsType[deniedError](err)
	return ok
}

type verdict uint8

const (
	neutral verdict = iota
	success
	failed
)

// blame returns whose fault one result is: success and neutral are not the backend's fault, failed is.
func blame(r Result) verdict {
	switch {
	case errors.Is(r.Err, ErrNotTaken), errors.Is(r.Err, ErrFirstByteTimeout), errors.Is(r.Err, ErrIdleTimeout),
		errors.Is(r.Err, ErrFirstEventTimeout):
		return failed
	case errors.Is(r.Err, context.Canceled), errors.Is(r.Err, context.DeadlineExceeded), r.RequestFault:
		// The client or the gateway gave up, or no backend could serve the request.
		return neutral
	case r.Err != nil, r.Doubtful, r.Status >= 500, denies(r.Status):
		return failed
	case r.Refused, r.Lacks != "", r.Status >= 400:
		// A refusal shows neither that the model works nor that it does not.
		return neutral
	default:
		return success
	}
}

func (b *Backend) eject(cause ejection, now time.Time) {
	h := &b.health
	most := ejectMax
	if cause == bySilence {
		most = reachMost
	}
	d := jitter(min(ejectBase<<min(h.backoffs, 16), most), 0.2)
	again := h.ejected && h.cause == cause
	h.ejected, h.cause, h.until = true, cause, now.Add(d)
	h.backoffs++
	switch {
	case again: // the log has a line from the first time
	case cause == byDenial:
		b.fleet.log.Error("backend refuses the gateway's key and gets no requests: correct its api_key",
			"backend", b.cfg.Name, "err", h.lastErr)
	case cause == bySilence:
		b.fleet.log.Warn("backend cannot be reached and gets no requests until it can",
			"backend", b.cfg.Name, "err", h.lastErr)
	default:
		b.fleet.log.Warn("backend is ejected after failed requests",
			"backend", b.cfg.Name, "for", d.String(), "failures", h.fails+h.doubts.n, "err", h.lastErr)
	}
	if b.comeback != nil {
		b.comeback.Stop()
	}
	if b.leaving {
		return // nothing asks whether a leaving backend is back
	}
	b.comeback = time.AfterFunc(d, b.comeBack)
	if h.unproven = cause == byFailures && b.fleet.prover != nil; h.unproven && !again {
		b.try(h.failedIn)
	}
}

// deny ejects a backend that does not take the gateway's key.
func (b *Backend) deny(err error, now time.Time) {
	if h := &b.health; !h.ejected || h.cause != byDenial {
		h.lastErr = err
		b.eject(byDenial, now)
	}
	b.fleet.dispatch(b)
}

// comeBack ends an ejection whose time is over, unless the probe fails.
func (b *Backend) comeBack() {
	f := b.fleet
	f.mu.Lock()
	h := &b.health
	cause, pool, proven := h.cause, h.failedIn, !h.unproven
	// Since the timer fired, restore may have ended the ejection, and a new ejection may have begun.
	if f.closed || b.leaving || !h.ejected || time.Now().Before(h.until) {
		f.mu.Unlock()
		return
	}
	f.probes.Add(1)
	f.mu.Unlock()
	defer f.probes.Done()
	var err error
	if cause != byFailures || !proven {
		err = b.probe(cause, pool)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || b.leaving || !h.ejected || h.cause != cause || time.Now().Before(h.until) {
		return
	}
	if err != nil {
		if h.lastErr = err; isDenial(err) {
			cause = byDenial
		}
		b.eject(cause, time.Now())
		f.dispatch(b)
		return
	}
	h.fails, h.doubts, h.claims = ejectAfter-1, doubts{}, doubts{}
	b.restore()
	f.dispatch(b)
}

// probe checks whether the cause of the ejection is over, and returns nil if it is. For bySilence a
// connection is enough. For the other causes only a request for a model shows it, because a server's
// list of models may be public, or may not be open to this key.
func (b *Backend) probe(cause ejection, p *Pool) error {
	switch cause {
	case byFailures:
		return b.prove(p)
	case byDenial:
		return b.proveAny(p)
	}
	ctx, cancel := context.WithTimeout(b.fleet.ctx, max(b.cfg.ConnectTimeout, reachMost))
	defer cancel()
	err := b.askHealth(ctx, modelsPath)
	if !errors.Is(err, ErrNotTaken) {
		return nil // a connection was made
	}
	return err
}

// restore ends an ejection.
func (b *Backend) restore() {
	b.health.ejected, b.health.unproven = false, false
	b.comeback.Stop()
	b.fleet.log.Info("ejection of backend is over", "backend", b.cfg.Name)
}
