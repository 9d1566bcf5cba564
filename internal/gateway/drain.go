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

// openRequests is the set of all paid requests in progress. A shutdown waits for them, and cuts
// requests that take too long.
type openRequests struct {
	mu      sync.Mutex
	calls   map[*call]struct{}
	closing bool
	empty   chan struct{} // closed once closing is set and no call is open
}

func newOpenRequests() *openRequests {
	return &openRequests{calls: map[*call]struct{}{}, empty: make(chan struct{})}
}

// add adds a call. It returns false if the gateway is shutting down.
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

// close refuses new calls from now on. It returns false if close was called before.
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

// cut cancels every open call, and returns how many calls are open.
func (o *openRequests) cut() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.calls {
		c.cancel(errDrained)
	}
	return len(o.calls)
}

// cutOn cancels the calls whose request is at the backend b and that were not cancelled before.
// It returns how many calls it cancelled.
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

// done reports whether the gateway is shutting down and no call is open.
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

// Drain shuts the gateway down. It stops the servers' listeners and refuses new paid requests. Open
// requests may finish until ctx ends. Then Drain cuts the requests that are still open, which are
// charged for what was delivered, and waits DrainGrace at most until everything is settled. Drain
// may be called once. It returns an error if something could not be settled or closed in time; the
// lease of the holds then covers the rest.
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

// shuttingDown returns the problem for a request that comes while the gateway shuts down.
func shuttingDown() error {
	p := problem.Retryable(problem.New(http.StatusServiceUnavailable, problem.BackendUnavailable, "this gateway is shutting down; repeat the request"), time.Second)
	p.CloseClient = true
	return p
}
