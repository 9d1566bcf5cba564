package gpu

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// trialPause is how long the next trial has to wait after a trial that went well. The pause is needed
// because each trial costs the owner a token, and callers may provoke trials.
const trialPause = 10 * time.Second

// beginProbe says whether the fleet is open. If the fleet is open, Close waits until the caller of
// beginProbe calls probes.Done.
func (f *Fleet) beginProbe() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.probes.Add(1)
	}
	return !f.closed
}

// suspect puts a backend on trial because of failures that may have been the requests' own fault. The
// backend keeps getting requests until the verdict.
func (b *Backend) suspect(p *Pool, now time.Time) {
	if h := &b.health; b.fleet.prover != nil && (h.acquit.IsZero() || now.Sub(h.acquit) >= trialPause) {
		b.try(p)
	}
}

// try lets the gateway's own request judge b. One such request runs at a time. If that request goes
// well, the earlier failures were about what clients asked. Then nothing speaks against b any more, and
// if b is ejected, b is sold again, but used only after all other backends. If the request fails, b is
// ejected.
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

// proveFor bounds a request of the gateway's own. It is long, because the server may first have to load
// the model.
const proveFor = time.Minute

// prove sends the backend a request for the pool's model, if the fleet has a prover. It returns nil if
// the request went well or there is no prover. A public list of models would prove nothing.
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
	case blame(r) == failed, r.RequestFault && r.Status >= 500: // the gateway's own request cannot be at fault
		return fmt.Errorf("backend %s: answered %d", b.cfg.Name, r.Status)
	}
	return nil
}

// proveAny returns nil if the backend takes the gateway's key and serves the pool's model, or takes the
// key for another of its models. A model that the key may not use counts as a model that the backend
// does not know.
func (b *Backend) proveAny(p *Pool) error {
	err := b.prove(p)
	if !isDenial(err) {
		return err
	}
	b.fleet.mu.Lock()
	pools := slices.Clone(b.pools) // Commit may change b.pools meanwhile
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

// Serves says whether a request went well at the backend in the last servesFor, and the backend is not
// ejected.
func (b *Backend) Serves() bool {
	b.fleet.mu.Lock()
	defer b.fleet.mu.Unlock()
	h, now := &b.health, time.Now()
	return !h.ejected && (now.Sub(h.servedAt) <= servesFor || now.Sub(h.acquit) <= servesFor)
}
