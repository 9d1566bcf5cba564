// Package gpu keeps fleets of inference servers. It knows which servers are well and how loaded they
// are, how many requests each server may run at once, which requests wait for a slot, and what part of
// a GPU's time a request took. It sends requests so that the caller can tell "the server never got the
// request" from "the server may have worked on it".
//
// A backend is one server with a number of slots. A pool is one public model and the backends that
// serve the model. A backend may be in several pools, which then share its slots. A request passes
// these steps:
//
//	ticket, err := fleet.Pool("llama").Admit(account) // *FullError: 429, before money moves; or AdmitBid
//	…reserve the money…                             // refused: ticket.Cancel()
//	lease, err := ticket.Wait(ctx)                  // a slot; *FullError, ErrQueueTimeout, ErrNoBackend
//	start := time.Now()
//	resp, err := lease.Backend().Do(ctx, "POST", "/v1/chat/completions", body, header)
//	if errors.Is(err, gpu.ErrNotTaken) {
//		lease, err = lease.Next(ctx)                // gives the slot back, takes one elsewhere
//	}
//	…stream resp.Body, close it; now and then lease.GPUUse(time.Now())…
//	lease.Done(gpu.Result{Status: resp.StatusCode, Took: time.Since(start)})
//
// # Load and choice
//
// The load of a backend is known from this gateway's own count and, if they are configured, from feeds
// of the package telemetry: the engine's own metrics, and the metrics of its GPUs. A reading older than
// StaleAfter is not used, and then only the gateway's own count is. Pool.Load joins the count and the
// readings for the price.
//
// A request is sent to the backend with the least expected wait. The wait is estimated from the
// engine's queue, the requests in flight for the slots, the KV cache, and the work of the GPUs. Up to
// four backends are all compared. Of more backends, two are drawn and compared. If backends ask prices
// of their own (Ask), the pool is a reverse auction: the cheapest backend that can serve in time gets
// the request, and a backend that asks more than the request pays does not get it. The price that the
// buyer pays does not depend on what backends ask.
//
// # GPU-seconds
//
// A GPU's busy time is the integral of its utilization. At every moment the busy time is shared out in
// equal parts among the requests in flight on the GPU, over all backends that work on it. Lease.GPUUse
// sums the shares of a request over the GPUs of its backend. Time in which a GPU's work is not known is
// shared out in the same way, as if the GPU had worked, and is counted separately, because unknown time
// is not free. The sums of all requests add up to the busy time. A GPU's energy is shared out among
// pools in the same way.
//
// # Health
//
// Two checks judge a backend. The active check asks HealthPath every HealthEvery. A backend that fails
// the active check gets no requests while another backend passes. The passive check watches the
// requests. It ejects a backend with several failures in a row (no connection, 5xx, a timeout, a cut
// answer) for a back-off that doubles. Answers that the owner causes are failures too: a redirect, no
// such path, no credit at a hosted service, a 401 or 403. Any other 4xx says nothing about the backend.
// An answer that may be the request's fault counts once several accounts have got such an answer to
// different requests. Earlier than that, a request of the gateway's own (see ProveWith) judges the
// backend in three cases: after a 401 or 403, after many doubtful failures in a row, and after the
// backend has refused requests of several accounts and blamed each request. So one account cannot take
// a backend from the others.
//
// If all backends of a pool that pass their active check are ejected, the pool ignores the ejections
// and tries the backend that returns soonest, because a burst of errors must not turn off a pool that
// still answers its health checks. Such a pool is not sold (see Pool.Serves). Callers with money may
// try it, and a request of the gateway's own, see ProveWith, shows when the pool serves again. If every
// backend fails its check, the pool uses those backends whose requests still go well, because a health
// endpoint that hangs must not turn off a pool that serves. In either case the pool does not use a
// backend that refuses connections, refuses the key or does not know the model. A probe notices when
// that is over.
package gpu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

var (
	// ErrNoBackend reports that no backend of the pool may be used (see Pool.Serves). From Lease.Next
	// it reports that the request has been to every backend that may be used.
	ErrNoBackend = errors.New("no healthy backend")
	// ErrTooDear reports that every backend that may be used asks more than the request pays. It wraps
	// ErrNoBackend.
	ErrTooDear = fmt.Errorf("%w asks as little as the request pays", ErrNoBackend)
	// ErrQueueTimeout reports that no slot came free within the pool's QueueTimeout.
	ErrQueueTimeout = errors.New("no slot came free in time")
	// ErrBusy reports that no slot is free, or that other requests wait for a slot.
	ErrBusy = errors.New("every slot is taken")
	// ErrSpent reports that a ticket was used twice.
	ErrSpent = errors.New("ticket was already used")
)

// Config describes a fleet.
type Config struct {
	Backends []BackendConfig
	Pools    []PoolConfig
	Log      *slog.Logger // gets changes of health; nil means that nothing is logged
	// Rand draws the two candidates out of many that are compared. Nil means a generator that is seeded
	// at random. The caller must not use Rand after NewFleet.
	Rand *rand.Rand
}

// Fleet holds all backends and pools of one process. It is safe for concurrent use.
type Fleet struct {
	log      *slog.Logger
	prover   Prover          // nil means that there is none
	watching context.Context // of the health checks; nil means that Start was not called
	stop     context.CancelFunc
	watchers sync.WaitGroup
	ctx      context.Context // of probes; Close ends it
	end      context.CancelFunc
	probes   sync.WaitGroup
	born     time.Time

	// mu guards every counter, queue and health state of all pools and backends. There is one lock,
	// because pools share the slots of a backend. It is held for about a microsecond, and never during
	// I/O.
	mu       sync.Mutex
	backends []*Backend
	leaving  []*Backend // backends that have left the configuration and have open requests
	drained  map[string]bool
	pools    map[string]*Pool
	order    []*Pool // in the order of the configuration, for Status
	retired  []*Pool // pools whose model is no longer sold, kept for their open requests
	rand     *rand.Rand
	dividers map[string]*divider // by the GPU's UUID
	mark     uint64              // number of the last walk over the dividers
	seq      uint64              // number of the last ticket that asked for a slot
	closed   bool
}

// NewFleet checks the configuration and builds the fleet. The fleet makes no connection and checks no
// health before Start.
func NewFleet(cfg Config) (*Fleet, error) {
	f := &Fleet{log: cfg.Log, drained: map[string]bool{}, rand: cfg.Rand, dividers: map[string]*divider{}, born: time.Now()}
	f.ctx, f.end = context.WithCancel(context.Background())
	if f.rand == nil {
		f.rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	plan, err := f.Prepare(cfg)
	if err != nil {
		return nil, err
	}
	plan.Commit()
	return f, nil
}

// Prover sends a backend a request for the model of a pool, as cheap a request as possible, and returns
// how the request went. Err of the Result also reports an answer with status 200 that holds no answer
// to the request.
type Prover func(ctx context.Context, b *Backend, model string) Result

// ProveWith sets the prover p, which shows whether a backend whose requests failed serves again.
// Without a prover the next request of a client shows it. The caller calls ProveWith before the first
// request.
func (f *Fleet) ProveWith(p Prover) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prover = p
}

// Start begins the health checks of every backend that has a HealthPath. The checks run until ctx ends
// or Close is called.
func (f *Fleet) Start(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.stop != nil {
		stop()
		return
	}
	f.watching, f.stop = ctx, stop
	for _, b := range f.backends {
		f.watch(b)
	}
}

// watch begins the health checks of a backend if Start was called and the backend has a HealthPath. The
// caller holds mu.
func (f *Fleet) watch(b *Backend) {
	if f.watching == nil || b.cfg.HealthPath == "" {
		return
	}
	var ctx context.Context
	ctx, b.unwatch = context.WithCancel(f.watching)
	f.watchers.Go(func() { b.watch(ctx) })
}

// Close ends the health checks, fails the waiting requests with ErrNoBackend, refuses new tickets and
// closes idle connections. Answers that are being read continue.
func (f *Fleet) Close() {
	f.mu.Lock()
	f.closed = true
	f.end()
	if f.stop != nil {
		f.stop()
	}
	for _, p := range slices.Concat(f.order, f.retired) {
		for w := p.queue.head; w != nil; w = p.queue.head {
			p.fail(w, ErrNoBackend)
		}
	}
	all := slices.Concat(f.backends, f.leaving)
	for _, b := range all {
		if b.comeback != nil {
			b.comeback.Stop()
		}
	}
	f.mu.Unlock()
	f.watchers.Wait()
	f.probes.Wait()
	for _, b := range all {
		b.transport.CloseIdleConnections()
	}
}

// Pool returns the pool of a public model name, or nil.
func (f *Fleet) Pool(model string) *Pool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pools[model]
}
