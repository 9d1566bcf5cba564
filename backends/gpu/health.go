package gpu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"
)

const (
	// downAfter and upAfter are how many active checks in a row turn a backend
	// off and on; the very first check decides alone.
	downAfter, upAfter = 2, 2
	// ejectAfter is how many failed requests in a row eject a backend.
	ejectAfter = 3
	// The back-off of an ejection doubles from ejectBase to ejectMax, each
	// ±20 %. One more failure after it ejects again.
	ejectBase, ejectMax = time.Second, time.Minute
)

// health is what is known of one backend. Guarded by fleet.mu.
type health struct {
	up      bool // by active checks; true before the first
	checked bool
	streak  int // active checks in a row that contradict up
	lastErr error
	lastAt  time.Time // of the last active check

	ejected  bool
	until    time.Time // end of the ejection
	fails    int       // requests failed in a row
	backoffs int       // ejections in a row
	failedAt time.Time // when the last failed
}

// watch runs the active checks of b until ctx ends. Checks of several backends
// and replicas spread by a jitter of ±10 %.
func (b *Backend) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := b.check(ctx)
		if ctx.Err() != nil {
			return
		}
		b.checked(err)
		timer.Reset(jitter(b.cfg.HealthEvery, 0.1))
	}
}

// check asks the health path once. It takes at most a HealthEvery, bounded to
// 1…5 s.
func (b *Backend) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(max(b.cfg.HealthEvery, time.Second), 5*time.Second))
	defer cancel()
	resp, err := b.Do(ctx, http.MethodGet, b.cfg.HealthPath, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection is kept
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("backend %s: health check answered %d", b.cfg.Name, resp.StatusCode)
	}
	return nil
}

// checked takes in the outcome of an active check.
func (b *Backend) checked(err error) {
	f := b.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &b.health
	h.lastErr, h.lastAt = err, time.Now()
	need := downAfter
	if err == nil {
		need = upAfter
	}
	if !h.checked {
		need = 1
	}
	h.checked = true
	if (err == nil) == h.up {
		h.streak = 0
		return
	}
	if h.streak++; h.streak < need {
		return
	}
	h.up, h.streak = err == nil, 0
	if h.up {
		f.log.Info("backend is healthy again", "backend", b.cfg.Name)
	} else {
		f.log.Warn("backend fails its health check and gets no requests", "backend", b.cfg.Name, "err", err)
	}
	f.dispatch(b)
}

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
		h.fails, h.backoffs = 0, 0
		if h.ejected { // tried because all were ejected, and it works
			b.restore()
		}
	case failed:
		b.failed++
		h.fails++
		h.failedAt = now
		if h.lastErr = r.Err; r.Err == nil {
			h.lastErr = fmt.Errorf("backend %s: answered %d", b.cfg.Name, r.Status)
		}
		if h.fails >= ejectAfter && !h.ejected {
			b.eject(now)
		}
	}
	return v
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
	case errors.Is(r.Err, ErrNotTaken), errors.Is(r.Err, ErrFirstByteTimeout), errors.Is(r.Err, ErrIdleTimeout):
		return failed
	case errors.Is(r.Err, context.Canceled), errors.Is(r.Err, context.DeadlineExceeded):
		return neutral // the client, or the gateway, gave up
	case r.Err != nil, r.Status >= 500:
		return failed
	case r.Refused:
		return neutral
	default:
		return success
	}
}

func (b *Backend) eject(now time.Time) {
	h := &b.health
	d := jitter(min(ejectBase<<min(h.backoffs, 16), ejectMax), 0.2)
	h.ejected, h.until = true, now.Add(d)
	h.backoffs++
	b.fleet.log.Warn("backend is ejected after failed requests", "backend", b.cfg.Name, "for", d, "failures", h.fails, "err", h.lastErr)
	b.comeback = time.AfterFunc(d, func() {
		b.fleet.mu.Lock()
		defer b.fleet.mu.Unlock()
		// A restore and a new ejection may have come between.
		if h.ejected && !time.Now().Before(h.until) {
			h.fails = ejectAfter - 1
			b.restore()
			b.fleet.dispatch(b)
		}
	})
}

// restore ends an ejection.
func (b *Backend) restore() {
	b.health.ejected = false
	b.comeback.Stop()
	b.fleet.log.Info("ejection of backend is over", "backend", b.cfg.Name)
}

// jitter spreads d by ± the fraction.
func jitter(d time.Duration, fraction float64) time.Duration {
	return time.Duration(float64(d) * (1 + fraction*(2*rand.Float64()-1)))
}
