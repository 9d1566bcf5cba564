package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sluice/backends/gpu"
	"sluice/metering"
	"sluice/metering/chat"
	"sluice/pricing"
)

// maxRefusal bounds, in bytes, the body of a backend's 4xx that is passed on.
const maxRefusal = 64 << 10

// call is one open reservation and the answer that it pays for. It belongs to
// the goroutine that serves the request; only cancel may be called by others.
type call struct {
	g    *Gateway
	x    *exchange
	o    *order
	hold *metering.Hold

	// ctx ends with the client, with a drain that cuts, or when the answer was
	// cut here; the backend sees that at once. cancel says why.
	ctx    context.Context
	cancel context.CancelCauseFunc

	lease     *gpu.Lease // nil until a slot was given
	meter     *chat.Meter
	arrived   time.Time // at this gateway
	began     time.Time // when the request went to the backend that took it
	delivered int64     // bytes of the answer's body written to the client
	ended     bool      // settled or released

	gpuHeld int64        // µs of GPU time that the hold has room for; the goroutine of watchGPU has it
	gpuUsed atomic.Int64 // µs of it used, as last looked at
}

// errDrained cancels a call because the gateway shuts down.
var errDrained = errors.New("the gateway shuts down")

func newCall(x *exchange, o *order, hold *metering.Hold) *call {
	c := &call{g: x.g, x: x, o: o, hold: hold, arrived: x.started}
	x.requestID = hold.ID().String()
	c.ctx, c.cancel = context.WithCancelCause(x.r.Context())
	return c
}

func (c *call) clientGone() bool { return c.x.r.Context().Err() != nil }
func (c *call) drained() bool    { return errors.Is(context.Cause(c.ctx), errDrained) }

// serve forwards the request, passes the answer on and ends the hold.
func (c *call) serve() error {
	defer func() { c.slotDone(context.Canceled, 0) }() // does nothing where the outcome is known
	defer c.watchGPU()()
	resp, err := c.forward()
	if err != nil {
		return c.unanswered(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return c.refused(resp)
	}
	if err := decode(resp); err != nil {
		return c.unreadable(resp, err)
	}
	if isEventStream(resp.Header) {
		return c.stream(resp)
	}
	return c.unary(resp)
}

// unreadable ends a call whose answer cannot be metered.
//
//go:noinline
func (c *call) unreadable(resp *http.Response, err error) error {
	c.slotDone(err, resp.StatusCode)
	c.release(metering.OutcomeBackendError)
	c.g.log.Warn("backend answered in an encoding that cannot be metered", "backend", c.lease.Backend().Name(), "error", err)
	return newProblem(http.StatusBadGateway, typeBackendUnavailable, "the backend's answer has an encoding that cannot be read; nothing was charged")
}

// slotDone gives the slot back and tells the fleet how the backend did, once.
func (c *call) slotDone(err error, status int) {
	c.lease.Done(gpu.Result{Err: err, Status: status, Took: time.Since(c.began)})
}

// forward sends the request to the backend of the lease, and on to others for
// as long as none took it: no connection, or a 429 or 503 which says so.
func (c *call) forward() (*http.Response, error) {
	for {
		b := c.lease.Backend()
		p := c.g.profile(b)
		continuous := c.o.req.Stream() && p.ContinuousUsage
		c.began = time.Now()
		c.meter = chat.NewMeter(c.o.req, c.o.bound, c.o.model.calibration, chat.MeterOptions{
			Start: c.began, ContinuousUsage: continuous, KeepText: p.Counting != chat.CountNone})
		header := forwardHeader(c.x.r.Header)
		if header["X-Request-Id"] == nil {
			header["X-Request-Id"] = []string{c.x.requestID}
		}
		resp, err := b.Do(c.ctx, http.MethodPost, c.o.path, c.o.req.Rewrite(chat.Rewrite{
			Model: b.Upstream(c.o.model.Name), Cap: c.o.bound.Cap,
			ForceUsage: c.o.req.Stream(), ContinuousUsage: continuous, Caps: p.Caps,
		}), header)
		switch {
		case err != nil && !errors.Is(err, gpu.ErrNotTaken):
			return nil, err
		case err == nil && !notTaken(resp.StatusCode):
			return resp, nil
		}
		if err == nil {
			// The connection and the slot are of use to others meanwhile.
			keepRefusal(resp)
			c.lease.Done(gpu.Result{Status: resp.StatusCode, Refused: true})
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

// notTaken says whether a status means that the backend did nothing: it is
// overloaded or starting.
func notTaken(status int) bool {
	return status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests
}

// keepRefusal reads a short answer into memory and closes its connection.
func keepRefusal(resp *http.Response) {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // what could be read is passed on
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
}

// unanswered ends a call to which no backend gave an answer.
func (c *call) unanswered(err error) error {
	c.slotDone(err, 0)
	switch {
	case errors.Is(err, gpu.ErrNotTaken), errors.Is(err, gpu.ErrNoBackend), errors.Is(err, gpu.ErrQueueTimeout):
		c.release(metering.OutcomeNotTaken)
		return err
	case c.drained():
		c.release(metering.OutcomeDrained)
		return draining()
	case c.exhausted():
		return c.cutShort()
	case c.clientGone() && !errors.Is(err, gpu.ErrNotTaken):
		// The backend worked until it was cancelled, just now.
		_, _ = c.charge(c.goneEnd()) // nobody is left to be told
		return err
	case errors.Is(err, gpu.ErrFirstByteTimeout):
		c.g.metrics.unanswered.WithLabelValues(c.o.model.Name).Inc()
		c.release(metering.OutcomeBackendTimeout)
		return err
	}
	c.release(metering.OutcomeBackendError)
	c.g.log.Warn("backend failed", "backend", c.lease.Backend().Name(), "error", err)
	return newProblem(http.StatusBadGateway, typeBackendUnavailable, "the backend broke off before it answered; nothing was charged")
}

// goneEnd is how the answer ends for a client that hung up.
func (c *call) goneEnd() chat.End {
	if c.o.req.Stream() {
		return chat.ClientGone
	}
	return chat.UnaryClientGone
}

// refused ends a call that the backend answered with anything but a 2xx. The
// client sees a 4xx as it is, but not one about the gateway's own credentials
// there; a redirect would lead it past the meter.
func (c *call) refused(resp *http.Response) error {
	c.slotDone(nil, resp.StatusCode)
	backend := c.lease.Backend().Name()
	c.g.metrics.backendStatus(c.o.model.Name, resp.StatusCode)
	switch status := resp.StatusCode; {
	case status == http.StatusServiceUnavailable:
		c.release(metering.OutcomeNotTaken)
		return gpu.ErrNotTaken
	case status < 400, status >= 500, status == http.StatusUnauthorized, status == http.StatusPaymentRequired,
		status == http.StatusForbidden, status == http.StatusProxyAuthRequired:
		c.release(metering.OutcomeBackendError)
		c.g.log.Warn("backend failed", "backend", backend, "status", status)
		return newProblem(http.StatusBadGateway, typeBackendUnavailable,
			"the backend failed with status "+strconv.Itoa(status)+"; nothing was charged")
	}
	if err := decode(resp); err != nil {
		resp.Body = http.NoBody
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // what could be read is passed on
	return c.passRefusal(resp, body)
}

// passRefusal sends a backend's 4xx on, charged with the call fee where the
// service asks for one.
func (c *call) passRefusal(resp *http.Response, body []byte) error {
	s := metering.Settlement{Source: metering.SourceNone, Outcome: metering.OutcomeBackendError, Backend: c.lease.Backend().Name()}
	if c.o.model.service.ChargeCallOn4xx {
		s.Usage, s.Source = pricing.Usage{Calls: 1}, metering.SourceCounted
	}
	entry, settled := c.settle(s)
	h := c.x.Header()
	passHeader(h, resp.Header)
	c.announce(h)
	c.tell(h, entry, settled)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.x.WriteHeader(resp.StatusCode)
	_, _ = c.x.Write(body) // the client may be gone; the call has ended either way
	return nil
}

// announce sets the headers that name the request and its price.
func (c *call) announce(h http.Header) {
	h[headerEpoch] = []string{strconv.FormatInt(c.hold.Epoch(), 10)}
	h[headerRequestID] = []string{c.x.requestID}
	nameAnswer(h, c.x.requestID)
}

// isEventStream says whether an answer is server-sent events, whatever was
// asked for.
func isEventStream(h http.Header) bool {
	value := h.Get("Content-Type")
	if value == "text/event-stream" {
		return true
	}
	kind, _, err := mime.ParseMediaType(value)
	if err != nil {
		kind, _, _ = strings.Cut(value, ";")
	}
	return strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}
