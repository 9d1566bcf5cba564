package gateway

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/http"
	"strconv"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// upstream returns the name by which the call's backend knows the model.
func (c *call) upstream() string { return c.lease.Backend().Upstream(c.o.model.Name) }

// readRefusal reads the backend's refusal at its first call, and returns it at every call.
func (c *call) readRefusal(resp *http.Response) *refusal {
	if c.said == nil {
		said := readRefusal(resp, c.o.model.headers)
		c.said = &said
	}
	return c.said
}

// outcome returns what the fleet is told of a refusal.
func (c *call) outcome(said *refusal) gpu.Result {
	result := said.result(c.lease.Backend(), c.o.model.Name)
	sum := sha256.Sum256(c.o.body)
	result.Body = binary.LittleEndian.Uint64(sum[:8])
	return result
}

// refused ends a call that the backend answered with a status that is not a 2xx. Where the
// request is to blame, or may be, the client is told what the engine said. The client is told
// nothing about the gateway's credentials at the backend, and gets no redirect, because a
// redirect would lead it past the meter.
func (c *call) refused(resp *http.Response) *ending {
	said := c.readRefusal(resp)
	c.failing(observe.Failure{Kind: observe.Refused, Status: said.status})
	result := c.outcome(said)
	c.lease.Done(result)
	switch {
	case result.Lacks != "", said.status == http.StatusServiceUnavailable:
		return c.endFree(metering.OutcomeNotTaken, gpu.ErrNotTaken)
	case result.RequestFault, c.forbidden(said):
		return c.hopeless(said)
	case said.ownersFault(), said.status >= 500, said.denied():
		return c.failed(said)
	}
	if after := resp.Header["Retry-After"]; after != nil {
		c.x.Header()["Retry-After"] = after
	}
	return c.passRefusal(said)
}

// forbidden reports whether a 403 seems to be about the request: its words do not speak of the
// gateway's key, and the backend accepts the key for other requests.
func (c *call) forbidden(said *refusal) bool {
	return said.status == http.StatusForbidden && !said.BlamesOwner() && c.lease.Backend().Serves()
}

// hopeless ends a call whose request the engine cannot serve, so that no retry can succeed.
func (c *call) hopeless(said *refusal) *ending {
	text := said.public(c.lease.Backend(), c.o)
	if text == "" {
		text = "the backend refused it with status " + strconv.Itoa(said.status)
	}
	c.failing(observe.Failure{Kind: observe.Hopeless, Status: said.status, Said: ownWords(said.Message, c.lease.Backend())})
	p := problem.InvalidParam(said.Param, "the model cannot serve this request: "+text+"; nothing was charged")
	p.NoRetry = true
	return c.endFree(metering.OutcomeBackendError, p)
}

// failed ends a call that the backend failed. The client is told what the backend said about a
// 5xx. If a request with the same body failed before, the client's SDK is told not to retry.
func (c *call) failed(said *refusal) *ending {
	cause := errors.New("the backend answered " + strconv.Itoa(said.status))
	text := said.public(c.lease.Backend(), c.o)
	if said.status < 500 || text == "" {
		return c.endFree(metering.OutcomeBackendError, problem.New(http.StatusBadGateway, problem.BackendUnavailable,
			"the backend failed with status "+strconv.Itoa(said.status)+"; nothing was charged").Because(cause))
	}
	p := problem.New(http.StatusBadGateway, problem.BackendUnavailable,
		"the backend failed with status "+strconv.Itoa(said.status)+": "+text+"; nothing was charged")
	p.Cause = errors.New(cause.Error() + ": " + ownWords(said.Message, c.lease.Backend()))
	p.NoRetry = c.g.failures.again(c.o.body)
	return c.endFree(metering.OutcomeBackendError, p)
}

// passRefusal ends a call with the backend's 4xx, in the form of the route's API. The client is
// charged the call fee where the service asks for a call fee.
func (c *call) passRefusal(said *refusal) *ending {
	text := said.public(c.lease.Backend(), c.o)
	if text == "" {
		text = "the backend refused the request with status " + strconv.Itoa(said.status)
	}
	kind := problem.InvalidRequest
	if said.status == http.StatusTooManyRequests {
		kind = problem.RateLimited
	}
	p := problem.New(said.status, kind, text)
	p.Param = said.Param
	e := c.endFree(metering.OutcomeBackendError, p)
	e.unsent, e.bill = unsentRefusal, billCall
	return e
}

// noAnswer ends a call without a charge before any part of an answer was passed on: the body is
// not an answer, or the backend failed.
//
//go:noinline
func (c *call) noAnswer(err error, status int) *ending {
	c.slotDone(c.blame(format.BackendCut, err), status)
	if c.meter.Failed() {
		if e := c.refusedWithin(); e != nil {
			return e
		}
	}
	c.failing(observe.Failure{Kind: observe.NoAnswer, Err: err, Said: c.lease.Backend().Redact(withoutHeaders(c.meter.Failure(), c.o.model.headers).Message), Dropped: c.meter.Noise()})
	if errors.Is(err, gpu.ErrIdleTimeout) || errors.Is(err, gpu.ErrFirstEventTimeout) {
		return c.endFree(metering.OutcomeBackendError, problem.New(http.StatusGatewayTimeout, problem.BackendUnavailable,
			"the backend did not go on with its answer in time; nothing was charged"))
	}
	detail := "the backend's answer is none of this API; nothing was charged"
	if errors.Is(err, format.ErrNotWhole) {
		detail = "the backend made fewer completions than were asked for; nothing was charged"
	} else if words := c.failureWords(); words != "" {
		detail = "the backend failed and said: " + words + " (nothing was charged)"
	}
	return c.endFree(metering.OutcomeBackendError, problem.New(http.StatusBadGateway, problem.BackendUnavailable, detail))
}

// refusedWithin ends a call that the backend refused within an answer of 200, as refused ends a
// call that was refused by its status. It returns nil if the backend failed instead.
func (c *call) refusedWithin() *ending {
	said := saidWithin(c.meter.Failure(), c.o.model.headers)
	switch result := c.outcome(&said); {
	case result.Lacks != "":
		return c.endFree(metering.OutcomeNotTaken, gpu.ErrNotTaken)
	case result.RequestFault, c.forbidden(&said):
		return c.hopeless(&said)
	case said.ownersFault(), said.status >= 500, said.denied():
		return nil
	}
	return c.passRefusal(&said)
}

// failureWords returns what the backend said about its failure within its answer, as the client
// may see it. It returns "" for words about the gateway's key. The log has the backend's own
// words.
func (c *call) failureWords() string {
	said := saidWithin(c.meter.Failure(), c.o.model.headers)
	if said.denied() && !said.BlamesContent() {
		return ""
	}
	return said.public(c.lease.Backend(), c.o)
}
