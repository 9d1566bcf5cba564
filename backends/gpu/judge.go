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
	// doubtAccounts is of how many accounts failures must come, and doubtMost how
	// many in a row are enough from however few, where a failure may be the
	// request's own fault.
	doubtAccounts, doubtMost = 3, 10
	// The back-off of an ejection doubles from ejectBase to ejectMax, each
	// ±20 %. One more failure after it ejects again.
	ejectBase, ejectMax = time.Second, time.Minute
	// reachMost is the longest back-off of a backend that cannot be reached:
	// looking whether it can costs nothing.
	reachMost = 5 * time.Second
	// keyPath is asked to see whether the backend takes the gateway's key.
	// Engines and hosted services guard it like their other paths.
	keyPath = "/v1/models"
)

// ejection is why a backend gets no requests for a while.
type ejection uint8

const (
	byFailures ejection = iota // requests failed: if nothing else is left, the next may be tried
	bySilence                  // no connection can be made: nothing is sent before one can
	byDenial                   // it does not take the gateway's key: nothing is sent before it does
)

// doubts are failures in a row that may have been the requests' own fault.
type doubts struct {
	n    int
	keys []Key // of whom, doubtAccounts at most
}

func (d *doubts) add(k Key) {
	d.n++
	if len(d.keys) < doubtAccounts && !slices.Contains(d.keys, k) {
		d.keys = append(d.keys, k)
	}
}

// serious says whether so many requests, of so many accounts, cannot all have
// been at fault.
func (d *doubts) serious() bool { return len(d.keys) >= doubtAccounts || d.n >= doubtMost }

// judge takes in how a request went, and says whose fault it was.
func (b *Backend) judge(l *Lease, r Result, now time.Time) verdict {
	h := &b.health
	v := blame(r)
	switch v {
	case neutral:
	case success:
		b.served++
		if l.since.Before(h.failedAt) {
			break // began before the trouble: no proof that it is over
		}
		h.fails, h.backoffs, h.denials, h.doubts = 0, 0, 0, doubts{}
		h.servedAt = now
		if h.ejected { // tried because all were ejected, and it works
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

// fail takes in a failure of the backend.
func (b *Backend) fail(l *Lease, r Result, now time.Time) {
	h := &b.health
	b.failed++
	h.failedAt, h.failedIn = now, l.ticket.pool
	if h.lastErr = r.Err; r.Err == nil {
		h.lastErr = fmt.Errorf("backend %s: answered %d", b.cfg.Name, r.Status)
	}
	if r.Status != http.StatusUnauthorized && r.Status != http.StatusForbidden {
		h.denials = 0
	} else if h.denials++; h.denials >= ejectAfter {
		b.deny(h.lastErr, now)
		return
	} else if h.denials == 1 && !h.ejected {
		go b.confirmDenial(h.lastErr)
	}
	if r.Doubtful {
		h.doubts.add(l.ticket.key)
	} else {
		h.fails++
	}
	if h.ejected || h.fails+h.doubts.n < ejectAfter || h.fails < ejectAfter && h.doubts.n > 0 && !h.doubts.serious() {
		return
	}
	switch {
	case errors.Is(r.Err, ErrNotTaken):
		b.eject(bySilence, now)
	default:
		b.eject(byFailures, now)
	}
}

// confirmDenial asks another path whether the backend refuses the gateway's key.
// One refusal may have been about the request; of several in a row, all are not.
func (b *Backend) confirmDenial(refusal error) {
	f := b.fleet
	if !f.beginProbe() {
		return
	}
	defer f.probes.Done()
	err := b.probe(byDenial, nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	var denied deniedError
	if !f.closed && errors.As(err, &denied) {
		b.deny(refusal, time.Now())
	}
}

// deniedError is the answer to the gateway's key.
type deniedError struct {
	backend string
	asked   string
	status  int
}

func (e deniedError) Error() string {
	return fmt.Sprintf("backend %s: %s answered %d to the gateway's key", e.backend, e.asked, e.status)
}

type verdict uint8

const (
	neutral verdict = iota
	success
	failed
)

// blame judges one result: whose fault was it?
func blame(r Result) verdict {
	switch {
	case errors.Is(r.Err, ErrNotTaken), errors.Is(r.Err, ErrFirstByteTimeout), errors.Is(r.Err, ErrIdleTimeout),
		errors.Is(r.Err, ErrFirstEventTimeout):
		return failed
	case errors.Is(r.Err, context.Canceled), errors.Is(r.Err, context.DeadlineExceeded), r.RequestFault:
		return neutral // the client, or the gateway, gave up; or the request could not be served anywhere
	case r.Err != nil, r.Doubtful, r.Status >= 500, r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden:
		return failed
	case r.Refused, r.Lacks != "", r.Status >= 400:
		return neutral // a refusal shows neither that the model works nor that it does not
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
	case again: // said when it began
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
		return // nothing asks whether it is back
	}
	b.comeback = time.AfterFunc(d, b.comeBack)
	if h.unproven = cause == byFailures && b.fleet.prover != nil; h.unproven && !again {
		go b.exonerate(h.failedIn)
	}
}

// beginProbe says whether the fleet is open, and has Close wait for a probe until its
// caller says that it is done.
func (f *Fleet) beginProbe() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.probes.Add(1)
	}
	return !f.closed
}

// exonerate finds out whether a backend that was ejected serves a request at all. If
// it does, the failures were about what clients asked: it is still used last, and sold.
func (b *Backend) exonerate(p *Pool) {
	f := b.fleet
	if !f.beginProbe() {
		return
	}
	defer f.probes.Done()
	err := b.prove(p)
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := &b.health; err == nil && h.ejected && h.cause == byFailures {
		h.unproven = false
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

// comeBack ends an ejection whose time is over, if nothing speaks against it.
func (b *Backend) comeBack() {
	f := b.fleet
	f.mu.Lock()
	h := &b.health
	cause, pool, proven := h.cause, h.failedIn, !h.unproven
	// A restore and a new ejection may have come between.
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
		h.lastErr = err
		b.eject(cause, time.Now())
		return
	}
	h.fails, h.doubts = ejectAfter-1, doubts{}
	b.restore()
	f.dispatch(b)
}

// proveFor bounds a request of the gateway's own: a model may have to be loaded.
const proveFor = time.Minute

// prove sends the backend a request for the pool's model, where somebody has shown
// how. A public list of models proves nothing.
func (b *Backend) prove(p *Pool) error {
	b.fleet.mu.Lock()
	prover := b.fleet.prover
	b.fleet.mu.Unlock()
	if prover == nil || p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(b.fleet.ctx, proveFor)
	defer cancel()
	r := prover(ctx, b, p.cfg.Model)
	switch {
	case r.Err != nil:
		return r.Err
	case r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden:
		return deniedError{b.cfg.Name, "a request", r.Status}
	case r.Lacks != "":
		return fmt.Errorf("backend %s: %s", b.cfg.Name, r.Lacks)
	case blame(r) == failed:
		return fmt.Errorf("backend %s: answered %d", b.cfg.Name, r.Status)
	}
	return nil
}

// probe looks whether what ejected the backend is over. Nothing but a request
// shows that where requests failed.
func (b *Backend) probe(cause ejection, p *Pool) error {
	if cause == byFailures {
		return b.prove(p)
	}
	ctx, cancel := context.WithTimeout(b.fleet.ctx, max(b.cfg.ConnectTimeout, reachMost))
	defer cancel()
	err := b.askHealth(ctx, keyPath)
	var answered statusError
	if errors.As(err, &answered) {
		err = nil // it can be reached
		if cause == byDenial && (answered.status == http.StatusUnauthorized || answered.status == http.StatusForbidden) {
			err = deniedError{b.cfg.Name, keyPath, answered.status}
		}
	} else if cause == bySilence && !errors.Is(err, ErrNotTaken) {
		err = nil // a connection was made
	}
	if err == nil && cause == byDenial {
		err = b.prove(p)
	}
	return err
}

// restore ends an ejection.
func (b *Backend) restore() {
	b.health.ejected, b.health.unproven = false, false
	b.comeback.Stop()
	b.fleet.log.Info("ejection of backend is over", "backend", b.cfg.Name)
}
