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
	// downAfter and upAfter are how many active checks in a row turn a backend off and on. The very
	// first check decides alone.
	downAfter, upAfter = 2, 2
)

// health is what is known of one backend's health. All fields are guarded by fleet.mu.
type health struct {
	up      bool // by active checks; true before the first check
	checked bool
	streak  int // active checks in a row that contradict up
	lastErr error
	lastAt  time.Time // time of the last active check
	// path is the index of the configured path that the check asks. The number of paths means that the
	// backend knows none of them.
	path int

	sickness sickness  // how the last failed check failed
	sickAt   time.Time // when the checks began to fail

	ejected bool
	cause   ejection
	// unproven says that the backend is ejected byFailures, and that the gateway's own request has not
	// yet shown that other requests may go well.
	unproven bool
	until    time.Time // when the ejection ends
	fails    int       // requests failed in a row
	doubts   doubts    // failed requests in a row that may have been at fault themselves
	claims   doubts    // requests in a row that were at fault, according to the backend
	onTrial  bool      // the gateway's own request is under way
	acquit   time.Time // when the gateway's own request went well last
	backoffs int       // ejections in a row
	failedAt time.Time // when the last failed request ended
	failedIn *Pool     // the pool of the last failed request
	servedAt time.Time // when the last request ended that went well
}

// sickness is how a backend fails its check.
type sickness uint8

const (
	saysNo      sickness = iota // the backend answers that it is not well, or breaks off
	silent                      // the backend takes the connection and does not answer
	unreachable                 // no connection can be made
)

// watch runs the active checks of b until ctx ends. A jitter of ±10 % spreads the checks of several
// backends and gateway replicas over time.
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

// statusError reports that the backend answered a check with a status other than 2xx.
type statusError struct {
	path   string
	status int
}

func (e statusError) Error() string {
	return fmt.Sprintf("health check answered %d", e.status)
}

// absent says whether the answer means that the check cannot ask this path: the path does not exist, is
// at another address, or is only for others. A server that is not well answers with a 5xx, or with a
// 429 while it is busy.
func (e statusError) absent() bool {
	return e.status < 500 && e.status != http.StatusTooManyRequests || e.status == http.StatusNotImplemented
}

// check asks for the backend's health once. The check takes at most HealthEvery, but at least 1 s and
// at most 5 s. If the backend does not know the path, the same check asks the next path of
// HealthFallback.
func (b *Backend) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(max(b.cfg.HealthEvery, time.Second), 5*time.Second))
	defer cancel()
	paths := b.healthPaths()
	b.fleet.mu.Lock()
	at := min(b.health.path, len(paths)-1)
	b.fleet.mu.Unlock()
	for ; ; at++ {
		err := b.askHealth(ctx, paths[at])
		var answered statusError
		last := at == len(paths)-1
		switch {
		case !errors.As(err, &answered) || !answered.absent() || len(paths) == 1, last && answered.status == http.StatusUnauthorized:
			b.settlePath(at)
			return b.named(err)
		case last:
			b.settlePath(len(paths))
			return nil // any answer shows that the backend can be reached
		}
	}
}

// healthPaths returns the configured paths, in the order in which the check tries them.
func (b *Backend) healthPaths() []string {
	return append([]string{b.cfg.HealthPath}, b.cfg.HealthFallback...)
}

func (b *Backend) named(err error) error {
	if answered, ok := errors.AsType[statusError](err); ok {
		return fmt.Errorf("backend %s: %w", b.cfg.Name, answered)
	}
	return err
}

// settlePath remembers which path the backend knows. If that changed, settlePath logs what the change
// means.
func (b *Backend) settlePath(at int) {
	f := b.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if b.health.path == at {
		return
	}
	b.health.path = at
	if paths := b.healthPaths(); at < len(paths) {
		f.log.Info("backend does not know the default health path, another one is asked",
			"backend", b.cfg.Name, "path", paths[at])
	} else {
		f.log.Info("backend knows no health path: the check sees only whether it can be reached, the rest shows in its requests",
			"backend", b.cfg.Name)
	}
}

// askHealth asks one path with GET. Any 2xx means that the backend is well.
func (b *Backend) askHealth(ctx context.Context, path string) error {
	resp, err := b.Do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection is kept for the next check
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return statusError{path, resp.StatusCode}
	}
	return nil
}

// sicknessOf returns what a failed check says about the backend.
func sicknessOf(err error) sickness {
	switch {
	case errors.Is(err, ErrNotTaken):
		return unreachable
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrFirstByteTimeout), errors.Is(err, ErrIdleTimeout):
		return silent
	}
	return saysNo
}

// checked records the outcome of an active check. A nil err means that the check passed.
func (b *Backend) checked(err error) {
	f := b.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &b.health
	now := time.Now()
	h.lastErr, h.lastAt = err, now
	need := downAfter
	if err == nil {
		need = upAfter
		if h.ejected && h.cause == bySilence { // the check reached the backend
			h.fails, h.doubts = ejectAfter-1, doubts{}
			b.restore()
			f.dispatch(b)
		}
	} else {
		if h.sickAt.IsZero() {
			h.sickAt = now
		}
		h.sickness = sicknessOf(err)
	}
	if !h.checked {
		need = 1
	}
	h.checked = true
	if (err == nil) == h.up {
		h.streak = 0
		if h.up {
			h.sickAt = time.Time{}
		}
		return
	}
	if h.streak++; h.streak < need {
		return
	}
	h.up, h.streak = err == nil, 0
	if h.up {
		h.sickAt = time.Time{}
		f.log.Info("backend is healthy again", "backend", b.cfg.Name)
	} else {
		f.log.Warn("backend fails its health check and gets no requests while another one passes",
			"backend", b.cfg.Name, "err", err)
	}
	f.calm(b)
	f.dispatch(b)
}

// jitter returns d, changed at random by at most ± the fraction.
func jitter(d time.Duration, fraction float64) time.Duration {
	return time.Duration(float64(d) * (1 + fraction*(2*rand.Float64()-1)))
}
