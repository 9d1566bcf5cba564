package gateway

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/http"
	"strconv"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// notTaken says whether an answer means that the backend did nothing: it is
// overloaded or starting, does not take the gateway's key, or does not know the
// model. Then it gives the slot back and keeps what was said.
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
	if result.Lacks != "" {
		result.Lacks = c.said.public(c.lease.Backend(), c.o)
	}
	c.lease.Done(result)
	return true
}

// upstream is what the backend of the call calls the model.
func (c *call) upstream() string { return c.lease.Backend().Upstream(c.o.model.Name) }

// readRefusal reads what the backend says, once.
func (c *call) readRefusal(resp *http.Response) *refusal {
	if c.said == nil {
		said := readRefusal(resp)
		c.said = &said
	}
	return c.said
}

// outcome is what the fleet is told of a refusal.
func (c *call) outcome(said *refusal) gpu.Result {
	result := said.result(c.upstream())
	sum := sha256.Sum256(c.o.body)
	result.Body = binary.LittleEndian.Uint64(sum[:8])
	return result
}

// refused ends a call that the backend answered with anything but a 2xx. The
// client is told what the engine said where the request is to blame, or may be;
// but nothing about the gateway's own credentials there, and a redirect would lead
// it past the meter.
func (c *call) refused(resp *http.Response) error {
	said := c.readRefusal(resp)
	c.g.metrics.backendStatus(c.o.model.Name, said.status)
	result := c.outcome(said)
	c.lease.Done(result)
	switch {
	case result.Lacks != "", said.status == http.StatusServiceUnavailable:
		c.release(metering.OutcomeNotTaken)
		return gpu.ErrNotTaken
	case result.RequestFault, c.forbidden(said):
		return c.hopeless(said)
	case said.ownersFault(), said.status >= 500, said.denied():
		return c.failed(said)
	}
	return c.passRefusal(said, resp.Header["Retry-After"])
}

// forbidden says whether a 403 is about the request, as far as can be told: its words
// do not speak of the gateway's key, and the backend takes the key for other requests.
func (c *call) forbidden(said *refusal) bool {
	return said.status == http.StatusForbidden && !said.BlamesOwner() && c.lease.Backend().Serves()
}

// hopeless ends a call that the engine failed because no try can succeed.
func (c *call) hopeless(said *refusal) error {
	c.release(metering.OutcomeBackendError)
	text := said.public(c.lease.Backend(), c.o)
	if text == "" {
		text = "the backend refused it with status " + strconv.Itoa(said.status)
	}
	c.g.log.Info("backend cannot serve a request", "backend", c.x.backend, "model", c.x.model,
		"request_id", c.x.requestID, "status", said.status, "reason", text)
	p := invalidParam(said.Param, "the model cannot serve this request: "+text+"; nothing was charged")
	p.noRetry = true
	return p
}

// failed ends a call that the backend failed. Its message may still say what is
// wrong with the request; one that failed before, with the same body, is not worth
// a further try.
func (c *call) failed(said *refusal) error {
	c.release(metering.OutcomeBackendError)
	cause := errors.New("the backend answered " + strconv.Itoa(said.status))
	text := said.public(c.lease.Backend(), c.o)
	if said.status < 500 || text == "" {
		return newProblem(http.StatusBadGateway, typeBackendUnavailable,
			"the backend failed with status "+strconv.Itoa(said.status)+"; nothing was charged").because(cause)
	}
	p := newProblem(http.StatusBadGateway, typeBackendUnavailable,
		"the backend failed with status "+strconv.Itoa(said.status)+": "+text+"; nothing was charged")
	p.cause = errors.New(cause.Error() + ": " + text)
	p.noRetry = c.g.failures.again(c.o.body)
	return p
}

// passRefusal passes a backend's 4xx on in the form of the route, charged with
// the call fee where the service asks for one.
func (c *call) passRefusal(said *refusal, retryAfter []string) error {
	s := metering.Settlement{Source: metering.SourceNone, Outcome: metering.OutcomeBackendError, Backend: c.x.backend}
	if c.o.model.service.ChargeCallOn4xx {
		s.Usage, s.Source = pricing.Units{pricing.Calls: 1}, metering.SourceCounted
	}
	entry, settled := c.settle(s)
	text := said.public(c.lease.Backend(), c.o)
	if text == "" {
		text = "the backend refused the request with status " + strconv.Itoa(said.status)
	}
	kind := typeInvalidRequest
	if said.status == http.StatusTooManyRequests {
		kind = typeRateLimited
	}
	p := newProblem(said.status, kind, text)
	p.Param = said.Param
	h := c.x.Header()
	if retryAfter != nil {
		h["Retry-After"] = retryAfter
	}
	c.announce(h)
	c.tell(h, entry, settled)
	return p
}
