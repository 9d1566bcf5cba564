package gpu

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// trialPause is how long after a trial that went well the next one has to wait: each
// costs the owner a token, and callers may provoke them.
const trialPause = 10 * time.Second

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

// suspect puts a backend on trial because of failures that may have been the requests'
// own fault. It goes on as before until the verdict.
func (b *Backend) suspect(p *Pool, now time.Time) {
	if h := &b.health; b.fleet.prover != nil && (h.acquit.IsZero() || now.Sub(h.acquit) >= trialPause) {
		b.try(p)
	}
}

// try has the gateway's own request judge b, one at a time. If that request goes well,
// the failures were about what clients asked: nothing speaks against b any more, and an
// ejected b is used and sold again, after all others. Otherwise b is ejected.
func (b *Backend) try(p *Pool) {
	h := &b.health
	if h.onTrial {
		return
	}
	h.onTrial = true
	go func() {
		f := b.fleet
		if !f.beginProbe() {
			return
		}
		defer f.probes.Done()
		err := b.proveAny(p)
		f.mu.Lock()
		defer f.mu.Unlock()
		defer func() { h.onTrial = false }()
		now := time.Now()
		switch {
		case f.closed:
		case err == nil:
			h.acquit, h.doubts, h.claims = now, doubts{}, doubts{}
			h.unproven = h.unproven && h.cause != byFailures
		case isDenial(err):
			b.deny(err, now)
		case !h.ejected:
			h.lastErr = err
			b.eject(byFailures, now)
			f.dispatch(b)
		}
	}()
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
	case denies(r.Status):
		return deniedError{b.cfg.Name, r.Status}
	case r.Err != nil:
		return r.Err
	case r.Lacks != "":
		return fmt.Errorf("backend %s: %s", b.cfg.Name, r.Lacks)
	case blame(r) == failed, r.RequestFault && r.Status >= 500: // there is nothing in that request to be at fault
		return fmt.Errorf("backend %s: answered %d", b.cfg.Name, r.Status)
	}
	return nil
}

// proveAny shows whether the backend takes the gateway's key: it does if it serves any
// of its models. A model that the key may not use counts as one that the backend does
// not know.
func (b *Backend) proveAny(p *Pool) error {
	err := b.prove(p)
	if !isDenial(err) {
		return err
	}
	b.fleet.mu.Lock()
	pools := slices.Clone(b.pools) // another configuration may change them meanwhile
	b.fleet.mu.Unlock()
	for _, other := range pools {
		if other != p && b.prove(other) == nil {
			b.fleet.mu.Lock()
			b.lack(p, err.Error(), time.Now())
			b.fleet.mu.Unlock()
			return nil
		}
	}
	return err
}

// Serves says whether a request went well at the backend not long ago.
func (b *Backend) Serves() bool {
	b.fleet.mu.Lock()
	defer b.fleet.mu.Unlock()
	h, now := &b.health, time.Now()
	return !h.ejected && (now.Sub(h.servedAt) <= servesFor || now.Sub(h.acquit) <= servesFor)
}
