// Package gpu keeps fleets of inference servers: it knows which of them are well
// and how loaded, how many requests each may run at once, which requests wait
// for a slot, what part of a GPU's time a request took, and how to talk to a
// server so that "it never got the request" and "it may have worked on it" are
// told apart.
//
// A backend is one server with a number of slots; a pool is one public model
// and the backends that serve it. A backend may be in several pools: its slots
// are counted once. One request goes:
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
// What is known of a backend's load comes from this gateway's own count and,
// where they are configured, from feeds of the package telemetry: the engine's
// own metrics, and its GPUs'. A reading older than StaleAfter counts for
// nothing, and the own count stands. Pool.Load joins them for the price.
//
// A request goes where the least wait is expected: by the engine's queue, the
// requests in flight for the slots, the KV cache, and what the GPUs do. Up to
// four backends are all compared; of more, two are drawn and compared. Where
// backends ask prices of their own (Ask), the pool is a reverse auction: the
// cheapest one that can serve in time gets the request, and none that asks more
// than the request pays. The buyer's price does not depend on it.
//
// # GPU-seconds
//
// A GPU's busy time, the integral of its utilization, is shared out at every
// moment in equal parts among the requests in flight on it, over all backends
// that work on it. Lease.GPUUse is a request's sum of that over the GPUs of its
// backend. Time in which a GPU's work is not known is shared out in the same way,
// as if the GPU had worked, and counted apart: unknown is not free. The sums of
// all requests add up to the busy time. A GPU's energy is shared out among pools in
// the same way.
//
// # Health
//
// Two judges. The active one asks HealthPath every HealthEvery; a backend that
// fails there gets no requests while another one passes. The passive one watches
// the requests: a backend with several failures in a row (no connection, 5xx, a
// timeout, a cut answer) is ejected for a back-off that doubles. Answers of the
// owner's making are failures too: a redirect, no such path, no credit at a hosted
// service, a 401 or 403. Any other 4xx says nothing about the backend. An answer that
// may be the request's fault counts once several accounts have met it with different
// requests. Before that, a request of the gateway's own (see ProveWith) judges the
// backend: after a 401 or 403, after many doubtful failures in a row, and after
// refusals of several accounts each of which the backend has laid on the request. One
// account takes a backend from nobody.
//
// When every backend of a pool that is actively well has been ejected, the
// ejections are ignored and the one soonest to return is tried: a burst of
// errors must not turn a pool off that still answers its health checks. Such a
// pool is not sold (see Pool.Serves): callers with money may try it, and a request
// of the gateway's own, see ProveWith, shows when it serves again. When
// every backend fails its check, those that serve all the same are used: a
// health endpoint that hangs must not turn a pool off whose requests go well. A
// backend that refuses connections, that refuses the key, or that does not know
// the model is not used in either case; a probe notices when that is over.
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
	// ErrNoBackend reports that no backend of the pool may be used (see
	// Pool.Serves), or, from Lease.Next, that none is left that was not tried.
	ErrNoBackend = errors.New("no healthy backend")
	// ErrTooDear reports that every healthy backend asks more than the request
	// pays. It is an ErrNoBackend.
	ErrTooDear = fmt.Errorf("%w asks as little as the request pays", ErrNoBackend)
	// ErrQueueTimeout reports that no slot came free within the pool's
	// QueueTimeout.
	ErrQueueTimeout = errors.New("no slot came free in time")
	// ErrBusy reports that no slot is free, or that others wait for it.
	ErrBusy = errors.New("every slot is taken")
	// ErrSpent reports a ticket used twice.
	ErrSpent = errors.New("ticket was already used")
)

// Config describes a fleet.
type Config struct {
	Backends []BackendConfig
	Pools    []PoolConfig
	Log      *slog.Logger // changes of health; nil: nothing is logged
	// Rand draws the two candidates out of many between which a choice is
	// made; nil: seeded at random. The fleet keeps it for itself.
	Rand *rand.Rand
}

// Fleet is all backends and pools of one process. It is safe for concurrent
// use.
type Fleet struct {
	log      *slog.Logger
	prover   Prover          // nil: none
	watching context.Context // of the health checks; nil: not started
	stop     context.CancelFunc
	watchers sync.WaitGroup
	ctx      context.Context // of probes; ends with Close
	end      context.CancelFunc
	probes   sync.WaitGroup
	born     time.Time

	// mu guards every counter, queue and health state of all pools and
	// backends. One lock, because a backend's slots are shared by pools; it is
	// held for about a microsecond and never across I/O.
	mu       sync.Mutex
	backends []*Backend
	leaving  []*Backend // with requests that are open
	drained  map[string]bool
	pools    map[string]*Pool
	order    []*Pool // as configured, for Status
	retired  []*Pool // whose model is gone, with requests that wait
	rand     *rand.Rand
	dividers map[string]*divider // by the GPU's UUID
	mark     uint64              // of the last walk over the dividers
	seq      uint64              // of the last ticket that asked for a slot
	closed   bool
}

// NewFleet checks the configuration and builds the fleet. No connection is
// made, and no health checked, before Start.
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

// Prover sends a backend a request for the model of a pool that costs as little as can
// be, and says how it went. Err of the Result also reports an answer of 200 that
// answers nothing.
type Prover func(ctx context.Context, b *Backend, model string) Result

// ProveWith has p show whether a backend whose requests failed serves again. Without
// it the next request of a client finds out. It is called before the first request.
func (f *Fleet) ProveWith(p Prover) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prover = p
}

// Start begins the health checks of every backend that has a HealthPath. They
// end with ctx or with Close.
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

// watch begins the health checks of a backend, where there are any. The caller holds
// mu.
func (f *Fleet) watch(b *Backend) {
	if f.watching == nil || b.cfg.HealthPath == "" {
		return
	}
	var ctx context.Context
	ctx, b.unwatch = context.WithCancel(f.watching)
	f.watchers.Go(func() { b.watch(ctx) })
}

// Close ends the health checks, fails the requests that still wait with
// ErrNoBackend, refuses new tickets and closes idle connections. Answers
// being read go on.
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
