package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// call is one open reservation and the answer that it pays for. It belongs to
// the goroutine that serves the request; only cancel may be called by others.
type call struct {
	g    *Gateway
	x    *exchange
	o    *order
	hold *metering.Hold

	// ctx ends with the client unless the call is patient, with a drain that cuts, or
	// when the answer was cut here; the backend sees that at once. cancel says why.
	ctx    context.Context
	cancel context.CancelCauseFunc

	ticket      *gpu.Ticket                 // the place in the pool; nil: none was given
	listed      bool                        // among the open requests of the gateway
	lease       *gpu.Lease                  // nil until a slot was given
	engine      *engine                     // of the lease's backend, once the request goes there
	at          atomic.Pointer[gpu.Backend] // where the request went last; nil: nowhere yet
	resp        *http.Response              // the last answer; nil: none yet
	said        *refusal                    // what its backend refused with; nil: nothing that was read
	answerClock gpu.Answer                  // the body of the answer as the backend sends it; nil: none yet
	meter       format.Meter
	gathers     bool // the backend was asked for a stream, the client for a document
	// patience says what becomes of the backend's work when the client hangs up.
	patience atomic.Int32

	arrived   time.Time   // at this gateway
	began     time.Time   // when the request went to the backend that took it
	delivered int64       // bytes of the answer's body written to the client
	tokens    int64       // of the answer, as last looked at
	tokenized bool        // what no usage told was counted, or could not be
	room      int         // bytes of the memory for bodies that the answer may fill; see roomFor
	refitted  bool        // the cap was lowered after the engine had refused it
	ending    ending      // see endCharged and endFree
	ended     bool        // settled or released
	unwatch   func() bool // stops left from being called

	gpuHeld int64        // µs of GPU time that the hold has room for; the goroutine of watchGPU has it
	gpuUsed atomic.Int64 // µs of it used, as last looked at
}

// ending is how a call ended, as its last steps have to know it.
type ending struct {
	// blame is what the fleet is told of the backend, and status what that answered with,
	// 0 without an answer; see slotDone.
	blame  error
	status int
	// worked: the backend has answered, so that its tokenizer counts what no usage told.
	worked bool

	bill    bill             // what the hold is charged; see settle
	end     format.End       // of an answer that is charged
	outcome metering.Outcome // in the ledger; empty: end's

	unsent  unsent // what the client still gets; see close
	cause   error  // why events are cut
	problem error  // that the client is told, or that nobody is left to be told
	body    []byte // of a document, made of the call's resp
}

// bill is what a call costs.
type bill uint8

const (
	billNothing bill = iota
	billAnswer       // what was delivered, by the meter
	billCall         // the call fee, where the service asks for one
)

// unsent is what the client still gets once the call is settled.
type unsent uint8

const (
	unsentProblem  unsent = iota // an answer of the gateway's own, or none
	unsentRefusal                // that, with the charge in its header
	unsentOffer                  // a 402
	unsentEvents                 // the end of a stream
	unsentDocument               // one document
	unsentTrailer                // the end of a document that was passed on as it came
)

// endCharged says that an answer ended so. Its status is the backend's, and blame what
// the fleet is told.
func (c *call) endCharged(end format.End, blame error, status int) *ending {
	c.ending = ending{blame: blame, status: status, worked: true, bill: billAnswer, end: end}
	return &c.ending
}

// endFree says that a call ended without a charge, and what the client is told. The fleet is
// told nothing that would count against the backend; see also blamed.
func (c *call) endFree(outcome metering.Outcome, err error) *ending {
	c.ending = ending{blame: context.Canceled, outcome: outcome, problem: err}
	return &c.ending
}

// blamed adds what the fleet is told.
func (e *ending) blamed(err error, status int) *ending {
	e.blame, e.status = err, status
	return e
}

// cutShort ends a call before anything of its answer was sent: what the backend
// did costs as much as if the client had hung up.
func (c *call) cutShort() *ending {
	e := c.endCharged(format.UnaryClientGone, context.Canceled, 0)
	e.worked, e.outcome, e.unsent = false, metering.OutcomeHoldExhausted, unsentOffer
	return e
}

// goneAway refuses a request that was cut while the gateway shuts down, or because its
// backend is taken away.
func (c *call) goneAway() error {
	if context.Cause(c.ctx) == errBackendDrained {
		return problem.Retryable(problem.New(http.StatusServiceUnavailable, problem.BackendUnavailable, "the backend is taken away; repeat the request"), time.Second)
	}
	return shuttingDown()
}

// errDrained cancels a call because the gateway shuts down.
var errDrained = errors.New("the gateway shuts down")

// errBackendDrained cancels a call because its backend is taken away. It is an
// errDrained.
var errBackendDrained = fmt.Errorf("its backend is taken away: %w", errDrained)

// errHoldExhausted cancels a call whose next slice the balance does not cover.
var errHoldExhausted = errors.New("the balance does not cover more GPU time")

func newCall(x *exchange, o *order, hold *metering.Hold) *call {
	c := &call{g: x.g, x: x, o: o, hold: hold, arrived: x.started}
	x.requestID = hold.ID().String()
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(x.r.Context()))
	c.unwatch = context.AfterFunc(x.r.Context(), c.left)
	return c
}

// The degrees of patience with a backend whose client hung up.
const (
	stopsAtOnce int32 = iota // the backend stops generating when its connection is closed
	endsBody                 // it has generated the answer, which is being read
	awaitsAll                // it generates the answer all the same
)

// left ends the call of a client that hung up, as far as that saves work.
func (c *call) left() {
	switch c.patience.Load() {
	case stopsAtOnce:
		c.cancel(context.Canceled)
	case endsBody:
		time.AfterFunc(unaryGrace, func() { c.cancel(context.Canceled) })
	}
}

// finishBody makes a client that hangs up not end the reading of a document at
// once.
func (c *call) finishBody() {
	if c.patience.CompareAndSwap(stopsAtOnce, endsBody) && c.clientGone() {
		c.left()
	}
}

func (c *call) clientGone() bool { return c.x.r.Context().Err() != nil }
func (c *call) drained() bool    { return errors.Is(context.Cause(c.ctx), errDrained) }

// exhausted says whether the call was cut because its balance ran out.
func (c *call) exhausted() bool { return context.Cause(c.ctx) == errHoldExhausted }

// stalled reports whether the client stopped waiting for a document, and the backend
// showed nobody a sign of life since the request went to it. A stream that its client
// left costs its prompt all the same: otherwise an idle backend would read prompts for
// free, for callers who leave before its first token.
func (c *call) stalled() bool {
	return !c.o.req.Stream() && c.clientGone() && c.engine.silentSince(c.began)
}

// countThenRelease is slotDone for an answer that is charged. What its backend's tokenizer has
// to count is counted first, in the slot: it is work of the backend like any other.
func (c *call) countThenRelease(err error, status int) {
	took := time.Since(c.began)
	c.askTokenizer()
	c.lease.Done(c.went(err, status, took))
}

// slotDone gives the slot back and tells the fleet how the backend did, once.
func (c *call) slotDone(err error, status int) {
	c.lease.Done(c.went(err, status, time.Since(c.began)))
}

// went is how a request went. Of what the backend said within its answer the words
// decide, as those of a refusal do.
func (c *call) went(err error, status int, took time.Duration) gpu.Result {
	result := gpu.Result{Err: err, Status: status, Doubtful: errors.Is(err, errNoEnd)}
	if errors.Is(err, errFailedInside) {
		said := saidWithin(c.meter.Failure())
		result = c.outcome(&said)
	}
	result.Took = took
	return result
}

// failing tells how the backend of the call failed.
//
//go:noinline
func (c *call) failing(f observe.Failure) {
	f.Backend, f.Model, f.RequestID = c.x.backend, c.o.model.Name, c.x.requestID
	c.g.observer.BackendFailed(c.ctx, f)
}

// firstByte tells that the first part of the answer came.
func (c *call) firstByte() {
	c.g.observer.FirstByte(c.ctx, c.o.model.Name, c.g.now().Sub(c.x.started))
}

// leave gives back what the call still has. Of a call that left its path, by a panic,
// what was delivered is charged: no hold outlives its request.
func (c *call) leave() {
	defer c.cancel(context.Canceled)
	if c.resp != nil {
		c.resp.Body.Close()
	}
	if c.lease != nil {
		c.slotDone(context.Canceled, 0) // does nothing where the outcome is known
	}
	if c.listed {
		c.g.open.remove(c)
	}
	if c.ticket != nil {
		c.ticket.Cancel()
	}
	c.unwatch()
	if c.ended {
		return
	}
	c.cancel(context.Canceled)
	if c.lease == nil || c.meter == nil {
		_, _ = c.release(metering.OutcomeBackendError)
		return
	}
	c.askTokenizer()
	_, _ = c.charge(format.BackendCut, "") // the panic answers the client
}

// gpuUse is the request's share of the GPUs' busy time so far. What passed while
// nothing was known of it counts by the clock: it is not free.
func (c *call) gpuUse() gpu.GPUUse {
	if c.lease == nil || c.hold.Rates()[pricing.GPUMicros] == 0 {
		return gpu.GPUUse{}
	}
	return c.lease.GPUUse(time.Now())
}

// gpuMicros is gpuUse in microseconds.
func (c *call) gpuMicros() int64 { return c.gpuUse().Total().Microseconds() }

// gpuSource says where a charge's GPU time came from.
func gpuSource(u gpu.GPUUse) string {
	switch {
	case u.Fallback == 0:
		return "measured"
	case u.Measured == 0:
		return "wall"
	}
	return "measured and wall"
}
