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

// call is one open hold and the answer that the hold pays for. A call belongs to the
// goroutine that serves the request. Other goroutines may call only cancel.
type call struct {
	g    *Gateway
	x    *exchange
	o    *order
	hold *metering.Hold

	// ctx is the context of the requests to backends, so that a backend stops as soon as ctx
	// ends. ctx ends when the client hangs up, unless patience says otherwise; when a drain
	// cuts the call; and when the gateway itself cuts the answer. cancel takes the reason.
	ctx    context.Context
	cancel context.CancelCauseFunc

	ticket      *gpu.Ticket                 // the place in the pool; nil: the call has no place
	listed      bool                        // the call is among the open requests of the gateway
	lease       *gpu.Lease                  // the slot; nil until the pool gave a slot
	engine      *engine                     // of the lease's backend; nil until the request is sent there
	at          atomic.Pointer[gpu.Backend] // the backend that got the request last; nil: none did
	resp        *http.Response              // the last answer of a backend; nil: no backend has answered
	said        *refusal                    // the refusal of the backend that was tried last; nil: no refusal was read
	answerClock gpu.Answer                  // the backend's answer, told about progress; nil: no answer yet
	meter       format.Meter
	gathers     bool // the backend streams, the client wants a document
	// patience says what happens to the backend's work when the client hangs up.
	patience atomic.Int32

	arrived   time.Time   // when the request came to this gateway
	began     time.Time   // when the request was sent to the backend that was tried last
	delivered int64       // bytes of the answer's body written to the client
	tokens    int64       // output tokens of the answer at the last progress
	tokenized bool        // askTokenizer has done its work, with or without a count
	room      int         // bytes that the answer took of the memory for bodies; see roomFor
	refitted  bool        // the gateway has lowered the cap after the engine had refused it
	ending    ending      // how the call ended; see endCharged and endFree
	ended     bool        // the hold was settled or released
	unwatch   func() bool // stops the context of the request from calling left

	gpuHeld int64        // µs of GPU time that the hold covers; only watchGPU's goroutine uses it
	gpuUsed atomic.Int64 // µs of GPU time that the request had used at the last look
}

// ending is how a call ended, for the steps settle and close.
type ending struct {
	// blame is the error that the fleet is told about the backend: nil for a success, and
	// context.Canceled where the backend is not to blame. status is the HTTP status of the
	// backend's answer; 0 means that there was no answer. See slotDone.
	blame  error
	status int
	// worked says that the backend has answered, so that the backend's tokenizer counts the
	// tokens that no usage told before the slot is given back.
	worked bool

	bill    bill             // what the hold is charged for; see settle
	end     format.End       // how the answer ended, where the answer is charged
	outcome metering.Outcome // the outcome in the ledger; "": the outcome that belongs to end

	unsent  unsent // what the client has still to get; see close
	cause   error  // why the events ended early; nil: the stream is whole
	problem error  // what the client is told; context.Canceled: the client hung up
	body    []byte // the body of the document, whose headers are those of the call's resp
}

// bill says what a call is charged for.
type bill uint8

const (
	billNothing bill = iota
	billAnswer       // what was delivered, as the meter counted it
	billCall         // the call fee, where the service asks for a call fee
)

// unsent is what the client has still to get once the call is settled.
type unsent uint8

const (
	unsentProblem  unsent = iota // the problem of the ending
	unsentRefusal                // the problem of the ending, with the charge in the headers
	unsentOffer                  // a 402
	unsentEvents                 // the end of a stream
	unsentDocument               // one whole document
	unsentTrailer                // the end of a document that was passed on as it came
)

// endCharged ends a call whose answer is charged, and returns the ending. end is how the
// answer ended, blame what the fleet is told about the backend, and status the status of the
// backend's answer (0: no answer).
func (c *call) endCharged(end format.End, blame error, status int) *ending {
	c.ending = ending{blame: blame, status: status, worked: true, bill: billAnswer, end: end}
	return &c.ending
}

// endFree ends a call without a charge, and returns the ending. The client is told err. The
// fleet is told nothing that counts against the backend, unless blamed adds it.
func (c *call) endFree(outcome metering.Outcome, err error) *ending {
	c.ending = ending{blame: context.Canceled, outcome: outcome, problem: err}
	return &c.ending
}

// blamed sets what the fleet is told about the backend, and the status of its answer.
func (e *ending) blamed(err error, status int) *ending {
	e.blame, e.status = err, status
	return e
}

// cutShort ends a call whose balance ran out before any part of the answer was sent. The
// client pays for the backend's work as if the client had hung up, and gets a 402.
func (c *call) cutShort() *ending {
	e := c.endCharged(format.UnaryClientGone, context.Canceled, 0)
	e.worked, e.outcome, e.unsent = false, metering.OutcomeHoldExhausted, unsentOffer
	return e
}

// goneAway returns the problem for a request that was cut because the gateway shuts down, or
// because its backend is taken away.
func (c *call) goneAway() error {
	if context.Cause(c.ctx) == errBackendDrained {
		return problem.Retryable(problem.New(http.StatusServiceUnavailable, problem.BackendUnavailable, "the backend is taken away; repeat the request"), time.Second)
	}
	return shuttingDown()
}

// errDrained is the cause of a call's end when the gateway shuts down.
var errDrained = errors.New("the gateway shuts down")

// errBackendDrained is the cause of a call's end when its backend is taken away. It wraps
// errDrained.
var errBackendDrained = fmt.Errorf("its backend is taken away: %w", errDrained)

// errHoldExhausted is the cause of a call's end when the balance does not cover the next
// slice of GPU time.
var errHoldExhausted = errors.New("the balance does not cover more GPU time")

func newCall(x *exchange, o *order, hold *metering.Hold) *call {
	c := &call{g: x.g, x: x, o: o, hold: hold, arrived: x.started}
	x.requestID = hold.ID().String()
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(x.r.Context()))
	c.unwatch = context.AfterFunc(x.r.Context(), c.left)
	return c
}

// These constants say what a backend does after its client hung up; see call.patience.
const (
	stopsAtOnce int32 = iota // the gateway closes the connection at once, and the backend stops generating
	endsBody                 // the backend has generated the answer; the gateway reads on for unaryGrace
	awaitsAll                // the backend would generate the answer to its end, so the gateway waits for it
)

// left ends the call of a client that hung up, where that saves work of the backend.
func (c *call) left() {
	switch c.patience.Load() {
	case stopsAtOnce:
		c.cancel(context.Canceled)
	case endsBody:
		time.AfterFunc(unaryGrace, func() { c.cancel(context.Canceled) })
	}
}

// finishBody lets the gateway read a document for unaryGrace more after its client hung up.
// Without finishBody the reading would end at once.
func (c *call) finishBody() {
	if c.patience.CompareAndSwap(stopsAtOnce, endsBody) && c.clientGone() {
		c.left()
	}
}

func (c *call) clientGone() bool { return c.x.r.Context().Err() != nil }
func (c *call) drained() bool    { return errors.Is(context.Cause(c.ctx), errDrained) }

// exhausted reports whether the call was cut because the balance ran out.
func (c *call) exhausted() bool { return context.Cause(c.ctx) == errHoldExhausted }

// stalled reports whether the client stopped waiting for a document while the backend was
// silent: since the request was sent to the backend, the backend sent no part of an answer
// to any client. stalled is false for a stream, because a stream that its client left costs
// its prompt: otherwise callers who leave before the first token would get the backend's
// work on prompts for free.
func (c *call) stalled() bool {
	return !c.o.req.Stream() && c.clientGone() && c.engine.silentSince(c.began)
}

// countThenRelease is slotDone for an answer that is charged. First the backend's tokenizer
// counts the tokens that no usage told. It does so in the slot, because counting is work of
// the backend.
func (c *call) countThenRelease(err error, status int) {
	took := time.Since(c.began)
	c.askTokenizer()
	c.lease.Done(c.went(err, status, took))
}

// slotDone gives the slot back and tells the fleet how the backend did. Only the first call
// of slotDone for a lease counts.
func (c *call) slotDone(err error, status int) {
	c.lease.Done(c.went(err, status, time.Since(c.began)))
}

// went returns what the fleet is told of a request. If the backend reported a failure within
// its answer, the words of the failure decide, as the words of a refusal do.
func (c *call) went(err error, status int, took time.Duration) gpu.Result {
	result := gpu.Result{Err: err, Status: status, Doubtful: errors.Is(err, errNoEnd) || errors.Is(err, format.ErrNotWhole)}
	if errors.Is(err, errFailedInside) {
		said := saidWithin(c.meter.Failure(), c.o.model.headers)
		result = c.outcome(&said)
	}
	result.Took = took
	return result
}

// failing tells the observer how the backend of the call failed.
//
//go:noinline
func (c *call) failing(f observe.Failure) {
	f.Backend, f.Model, f.RequestID = c.x.backend, c.o.model.Name, c.x.requestID
	c.g.observer.BackendFailed(c.ctx, f)
}

// firstByte tells the observer that the first part of the answer came.
func (c *call) firstByte() {
	c.g.observer.FirstByte(c.ctx, c.o.model.Name, c.g.now().Sub(c.x.started))
}

// leave gives back the place, the slot and the hold that the call still has. If a panic ended
// the call, leave charges what was delivered, so that no hold outlives its request.
func (c *call) leave() {
	defer c.cancel(context.Canceled)
	if c.resp != nil {
		c.resp.Body.Close()
	}
	if c.lease != nil {
		c.slotDone(context.Canceled, 0) // does nothing if the slot was given back before
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
	_, _ = c.charge(format.BackendCut, "") // served answers the client after the panic
}

// gpuUse returns the request's share of the GPUs' busy time so far. Time in which the load of
// the GPUs was not known counts in full by the clock, because unknown time is not free.
func (c *call) gpuUse() gpu.GPUUse {
	if c.lease == nil || c.hold.Rates()[pricing.GPUMicros] == 0 {
		return gpu.GPUUse{}
	}
	return c.lease.GPUUse(time.Now())
}

// gpuMicros returns the total of gpuUse in µs.
func (c *call) gpuMicros() int64 { return c.gpuUse().Total().Microseconds() }

// gpuSource says whether the GPU time of a charge was measured, taken from the clock, or both.
func gpuSource(u gpu.GPUUse) string {
	switch {
	case u.Fallback == 0:
		return "measured"
	case u.Measured == 0:
		return "wall"
	}
	return "measured and wall"
}
