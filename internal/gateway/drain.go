package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway/problem"
)

// openRequests is every paid request in progress, so that a shutdown can wait
// for them and cut those that take too long.
type openRequests struct {
	mu      sync.Mutex
	calls   map[*call]struct{}
	closing bool
	empty   chan struct{} // closed when closing and nothing is left
}

func newOpenRequests() *openRequests {
	return &openRequests{calls: map[*call]struct{}{}, empty: make(chan struct{})}
}

// add registers a call. False: the gateway is shutting down.
func (o *openRequests) add(c *call) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		return false
	}
	o.calls[c] = struct{}{}
	return true
}

func (o *openRequests) remove(c *call) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.calls, c)
	if o.closing && len(o.calls) == 0 {
		close(o.empty)
	}
}

// close refuses new calls from now on. It reports false if it did so before.
func (o *openRequests) close() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		return false
	}
	o.closing = true
	if len(o.calls) == 0 {
		close(o.empty)
	}
	return true
}

// cut ends every call that is still open and returns how many.
func (o *openRequests) cut() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.calls {
		c.cancel(errDrained)
	}
	return len(o.calls)
}

// cutOn ends the calls that are at a backend and were not cut before, and returns how
// many.
func (o *openRequests) cutOn(b *gpu.Backend) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.calls {
		if c.at.Load() == b && c.ctx.Err() == nil {
			c.cancel(errBackendDrained)
			n++
		}
	}
	return n
}

// done reports whether the gateway is shut down and nothing is open any more.
func (o *openRequests) done() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing && len(o.calls) == 0
}

// draining reports whether the gateway is shutting down.
func (o *openRequests) draining() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing
}

// Drain shuts down: it stops the servers' listeners, refuses new paid requests,
// lets open ones finish until ctx ends, cuts those that are left (they are
// charged for what was delivered), and waits, DrainGrace at most, until all is
// settled. Call it once. It fails when something could not be settled or
// closed in time; the ledger's lease then covers what is left.
func (g *Gateway) Drain(ctx context.Context, servers ...*http.Server) error {
	if !g.open.close() {
		return errors.New("gateway: drained twice")
	}
	grace, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	shutdowns := make(chan error, len(servers))
	for _, s := range servers {
		go func() { shutdowns <- s.Shutdown(grace) }()
	}
	select {
	case <-g.open.empty:
	case <-ctx.Done():
		g.log.Warn("cutting requests that are still open", "requests", g.open.cut())
	}
	limit, stop := context.WithTimeout(grace, g.cfg.DrainGrace)
	defer stop()
	var errs []error
	select {
	case <-g.open.empty:
	case <-limit.Done():
		errs = append(errs, errors.New("gateway: requests are still open"))
	}
	if err := g.settler.wait(limit); err != nil {
		errs = append(errs, errors.New("gateway: charges are not settled yet"))
	}
	context.AfterFunc(limit, cancel)
	for range servers {
		if err := <-shutdowns; err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// count returns how many calls are open.
func (o *openRequests) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.calls)
}

// shuttingDown refuses what comes while the gateway shuts down.
func shuttingDown() error {
	p := problem.Retryable(problem.New(http.StatusServiceUnavailable, problem.BackendUnavailable, "this gateway is shutting down; repeat the request"), time.Second)
	p.CloseClient = true
	return p
}
