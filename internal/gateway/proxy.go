package gateway

import (
	"errors"
	"net/http"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// forward sends the request to a backend. It returns the backend's answer, or the ending of a
// call that got no answer.
func (c *call) forward() (*http.Response, *ending) {
	if c.resp != nil { // the answer to the first try; see answer in paid.go
		c.resp.Body.Close()
	}
	resp, err := c.try()
	if err != nil {
		return nil, c.unanswered(err)
	}
	c.resp = resp
	return resp, nil
}

// try sends the request to the backend of the lease. If that backend did not take the request,
// try sends it to other backends in turn. A backend did not take a request if no connection
// could be made, or if its answer says so.
func (c *call) try() (*http.Response, error) {
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

// meet prepares the call for a backend: it chooses the meter of the answer, and returns how the
// request is written for the backend.
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
		TruncatesPrompts: p.TruncatesPrompts(), Gathered: c.gathers, KeepText: p.Counting != format.CountNone, Voter: c.x.voter(), Public: c.o.public()})
	return format.Rewrite{Model: b.Upstream(c.o.model.Name), Cap: c.o.bound.Cap, Stream: c.gathers,
		ForceUsage: streams && p.IncludeUsage, ContinuousUsage: continuous, Profile: p}
}

// unanswered ends a call to which no backend gave an answer.
func (c *call) unanswered(err error) *ending {
	switch {
	case c.drained():
		return c.endFree(metering.OutcomeDrained, c.goneAway()).blamed(err, 0)
	case c.clientGone() && errors.Is(err, gpu.ErrNotTaken):
		return c.endFree(metering.OutcomeClientGone, err).blamed(err, 0) // no backend got the request
	case errors.Is(err, gpu.ErrNotTaken), errors.Is(err, gpu.ErrNoBackend), errors.Is(err, gpu.ErrQueueTimeout):
		return c.endFree(metering.OutcomeNotTaken, err).blamed(err, 0)
	case c.exhausted():
		return c.cutShort().blamed(err, 0)
	case c.clientGone() && c.ctx.Err() != nil:
		// The backend worked until now, when the call was cancelled.
		e := c.endCharged(c.goneEnd(), err, 0)
		e.problem = err // the client hung up and is told nothing
		return e
	case errors.Is(err, gpu.ErrFirstByteTimeout):
		c.failing(observe.Failure{Kind: observe.TimedOut})
		return c.endFree(metering.OutcomeBackendTimeout, err).blamed(err, 0)
	}
	p := problem.New(http.StatusBadGateway, problem.BackendUnavailable, "the backend broke off before it answered; nothing was charged").Because(err)
	return c.endFree(metering.OutcomeBackendError, p).blamed(err, 0)
}

// goneEnd returns how the answer ends for a client that hung up.
func (c *call) goneEnd() format.End {
	if c.o.req.Stream() {
		return format.ClientGone
	}
	return format.UnaryClientGone
}

// notTaken reports whether an answer means that the backend did no work: it is overloaded or
// starting, does not accept the gateway's key, or does not know the model. Then notTaken gives
// the slot back and tells the fleet what the backend said.
func (c *call) notTaken(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusUnauthorized:
	case http.StatusNotFound, http.StatusBadRequest, http.StatusUnprocessableEntity:
		if !c.readRefusal(resp).unknownModel(c.upstream()) {
			return false
		}
	case http.StatusForbidden:
		if said := c.readRefusal(resp); !said.unknownModel(c.upstream()) && (said.BlamesContent() || !said.BlamesOwner()) {
			return false
		}
	default:
		return false
	}
	result := c.outcome(c.readRefusal(resp))
	result.Refused = true
	c.lease.Done(result)
	return true
}
