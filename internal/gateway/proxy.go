package gateway

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
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

	lease   *gpu.Lease                  // nil until a slot was given
	engine  *engine                     // of the lease's backend, once the request goes there
	at      atomic.Pointer[gpu.Backend] // where the request went last; nil: nowhere yet
	said    *refusal                    // what its backend refused with; nil: nothing that was read
	clock   gpu.Answer                  // the body of the answer as the backend sends it; nil: none yet
	meter   format.Meter
	gathers bool // the backend was asked for a stream, the client for a document
	// patience says what becomes of the backend's work when the client hangs up.
	patience atomic.Int32

	arrived   time.Time   // at this gateway
	began     time.Time   // when the request went to the backend that took it
	delivered int64       // bytes of the answer's body written to the client
	tokens    int64       // of the answer, as last looked at
	tokenized bool        // what no usage told was counted, or could not be
	room      int         // bytes of the memory for bodies that the answer may fill; see roomFor
	refitted  bool        // the cap was lowered after the engine had refused it
	ended     bool        // settled or released
	unwatch   func() bool // stops left from being called

	gpuHeld int64        // µs of GPU time that the hold has room for; the goroutine of watchGPU has it
	gpuUsed atomic.Int64 // µs of it used, as last looked at
}

// errDrained cancels a call because the gateway shuts down.
var errDrained = errors.New("the gateway shuts down")

// errBackendDrained cancels a call because its backend is taken away. It is an
// errDrained.
var errBackendDrained = fmt.Errorf("its backend is taken away: %w", errDrained)

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

// serve forwards the request, passes the answer on and ends the hold.
func (c *call) serve() error {
	defer func() { c.slotDone(context.Canceled, 0) }() // does nothing where the outcome is known
	defer c.watchGPU()()
	resp, err := c.forward()
	if err == nil && c.refit(resp) {
		resp, err = c.forward()
	}
	if err != nil {
		return c.unanswered(err)
	}
	defer resp.Body.Close()
	return c.receive(resp)
}

// receive passes an answer on by what it is, whatever was asked for and whatever
// it is called.
func (c *call) receive(resp *http.Response) error {
	c.clock, _ = resp.Body.(gpu.Answer)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return c.refused(resp)
	}
	if err := decode(resp); err != nil {
		return c.unreadable(resp, err)
	}
	if c.clock != nil && (c.o.req.Stream() || c.gathers || isEventStream(resp.Header)) {
		c.clock.AwaitEvent()
	}
	f, err := sniff(resp)
	if f == formList && takesList(c.meter) {
		f = formObject
	}
	if c.clock != nil && f == formObject {
		c.clock.Progress()
		resp.Body.(*sniffed).clock = c.clock
	}
	switch {
	case err != nil && c.o.req.Stream():
		return c.unbegun(c.streamBroke(err), err, resp.StatusCode)
	case err != nil:
		return c.unaryBroke(err, resp.StatusCode, nil)
	case f == formEvents && c.o.req.Stream():
		return c.stream(resp)
	case f == formEvents:
		return c.gather(resp)
	case f == formObject:
		return c.unary(resp)
	}
	return c.noAnswer(errNoAnswer, resp.StatusCode)
}

// unreadable ends a call whose answer cannot be metered.
//
//go:noinline
func (c *call) unreadable(resp *http.Response, err error) error {
	c.slotDone(err, resp.StatusCode)
	c.release(metering.OutcomeBackendError)
	return newProblem(http.StatusBadGateway, typeBackendUnavailable, "the backend's answer has an encoding that cannot be read; nothing was charged").because(err)
}

// answered is slotDone for an answer that is charged. What its backend's tokenizer has
// to count is counted first, in the slot: it is work of the backend like any other.
func (c *call) answered(err error, status int) {
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

// forward sends the request to the backend of the lease, and on to others for
// as long as none took it: no connection, or an answer which says so.
func (c *call) forward() (*http.Response, error) {
	for {
		b := c.lease.Backend()
		c.x.backend, c.said = b.Name(), nil
		rewrite := c.meet(b)
		header := forwardHeader(c.x.r.Header, c.o.model.service.ForwardHeaders, rewrite.Stream || c.o.req.Stream(), c.x.requestID)
		resp, err := b.Do(c.ctx, http.MethodPost, b.Path(c.o.path, c.o.model.Name), c.o.req.Rewrite(rewrite), own(header, c.o.model.headers))
		switch {
		case err != nil && !errors.Is(err, gpu.ErrNotTaken):
			return nil, err
		case err == nil && !c.notTaken(resp):
			return resp, nil
		}
		next, nextErr := c.lease.Next(c.ctx)
		if nextErr != nil {
			if err == nil && errors.Is(nextErr, gpu.ErrNoBackend) {
				return resp, nil
			}
			return nil, errors.Join(nextErr, err)
		}
		c.lease = next
	}
}

// meet prepares the call for a backend: how the request is written for it, and
// how its answer is metered.
func (c *call) meet(b *gpu.Backend) format.Rewrite {
	c.engine = c.g.engine(b)
	c.at.Store(b)
	p := c.engine.known.Load().profile
	c.gathers = c.o.req.Gathered(p)
	streams := c.o.req.Stream() || c.gathers
	continuous, timings := streams && p.ContinuousUsage, streams && p.RunningTimings
	if !streams && p.AwaitsUnary() {
		c.patience.Store(awaitsAll)
	} else {
		c.patience.Store(stopsAtOnce)
	}
	c.began = time.Now()
	c.meter = c.o.req.Meter(c.o.bound, c.o.model.lessons.of(b).calibration, format.MeterOptions{
		Start: c.began, ContinuousUsage: continuous, Timings: timings, UsagePerSequence: p.UsagePerSequence,
		UsageOfAll: !p.UsagePerSequence && p.Engine != format.EngineGeneric, OneCompletion: p.OneCompletion,
		Gathered: c.gathers, KeepText: p.Counting != format.CountNone, Voter: c.x.voter(), Public: c.o.public()})
	return format.Rewrite{Model: b.Upstream(c.o.model.Name), Cap: c.o.bound.Cap, Stream: c.gathers,
		ForceUsage: streams && p.IncludeUsage, ContinuousUsage: continuous, Profile: p}
}

// unanswered ends a call to which no backend gave an answer.
func (c *call) unanswered(err error) error {
	if c.clientGone() && !errors.Is(err, gpu.ErrNotTaken) && !c.drained() && !c.exhausted() {
		c.answered(err, 0)
	} else {
		c.slotDone(err, 0)
	}
	switch {
	case c.drained():
		c.release(metering.OutcomeDrained)
		return c.goneAway()
	case c.clientGone() && errors.Is(err, gpu.ErrNotTaken):
		c.release(metering.OutcomeClientGone) // the backend was never reached
		return err
	case errors.Is(err, gpu.ErrNotTaken), errors.Is(err, gpu.ErrNoBackend), errors.Is(err, gpu.ErrQueueTimeout):
		c.release(metering.OutcomeNotTaken)
		return err
	case c.exhausted():
		return c.cutShort()
	case c.clientGone() && c.ctx.Err() != nil:
		// The backend worked until it was cancelled, just now.
		_, _ = c.charge(c.goneEnd()) // nobody is left to be told
		return err
	case errors.Is(err, gpu.ErrFirstByteTimeout):
		c.g.metrics.unanswered.WithLabelValues(c.o.model.Name).Inc()
		c.release(metering.OutcomeBackendTimeout)
		return err
	}
	c.release(metering.OutcomeBackendError)
	return newProblem(http.StatusBadGateway, typeBackendUnavailable, "the backend broke off before it answered; nothing was charged").because(err)
}

// goneEnd is how the answer ends for a client that hung up.
func (c *call) goneEnd() format.End {
	if c.o.req.Stream() {
		return format.ClientGone
	}
	return format.UnaryClientGone
}

// announce sets the headers that name the request and its price.
func (c *call) announce(h http.Header) {
	h[headerEpoch] = []string{strconv.FormatInt(c.hold.Epoch(), 10)}
	h[headerRequestID] = []string{c.x.requestID}
	nameAnswer(h, c.x.requestID)
	if c.o.tells {
		h[headerModel] = []string{c.o.asked}
	}
}

// isEventStream says whether an answer is server-sent events, whatever was
// asked for.
func isEventStream(h http.Header) bool {
	value := h.Get("Content-Type")
	if value == eventStream {
		return true
	}
	kind, _, err := mime.ParseMediaType(value)
	if err != nil {
		kind, _, _ = strings.Cut(value, ";")
	}
	return strings.EqualFold(strings.TrimSpace(kind), eventStream)
}
