package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering/format"
)

// maxProof bounds how much of the answer prove reads, in bytes.
const maxProof = 1 << 20

// prove sends the smallest possible request to a backend whose requests failed, and returns how
// it went. The gateway sells strangers nothing of such a backend until this request, or a
// request of a caller with money, succeeds: a list of models or a health check shows less. It
// is enough if an answer begins, because clients pay only for what was delivered. prove costs the
// owner one token. It runs when a backend is ejected, at most once in each back-off. prove is a
// gpu.Prover.
func (g *Gateway) prove(ctx context.Context, b *gpu.Backend, model string) gpu.Result {
	profile := g.profile(b)
	api, policy, headers := g.smallestOf(model)
	path, smallest := api.Smallest()
	req, err := api.Parse(path, []byte(smallest), func(string) *format.Policy { return policy })
	if err != nil {
		return gpu.Result{Err: err}
	}
	body := req.Rewrite(format.Rewrite{Model: b.Upstream(model), Cap: 1, Profile: profile})
	resp, err := b.Do(ctx, http.MethodPost, b.Path(path, model), body, own(http.Header{"Content-Type": {"application/json"}}, headers))
	if err != nil {
		return gpu.Result{Err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		said := readRefusal(resp, headers)
		return said.result(b, model)
	}
	if err := decode(resp); err != nil {
		return gpu.Result{Err: err}
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxProof))
	bound, boundErr := req.Bound(format.Limits{})
	if boundErr != nil {
		return gpu.Result{Err: boundErr}
	}
	m := req.Meter(bound, nil, format.MeterOptions{})
	f, _ := formOf(answer, isEventStream(resp.Header))
	if f == formList && takesList(m) {
		f = formObject
	}
	switch {
	case f == formObject && err != nil: // the backend broke off, but its answer had begun
		return gpu.Result{Status: resp.StatusCode}
	case f != formEvents && err != nil:
		return gpu.Result{Err: err}
	}
	if f == formEvents { // the backend streams whatever it is asked for
		events := format.NewEvents(bytes.NewReader(answer), maxProof)
		for event, err := events.Next(); err == nil && !m.Failed(); event, err = events.Next() {
			m.Event(event)
		}
	} else {
		_, err = m.Unary(answer)
	}
	switch {
	case m.Failed() && m.Failure() != format.Failure{}:
		said := saidWithin(m.Failure(), headers)
		return said.result(b, model)
	case err != nil || m.Failed():
		return gpu.Result{Err: errors.Join(errNoAnswer, err)}
	}
	return gpu.Result{Status: resp.StatusCode}
}

// smallestOf returns the API through which a backend is asked to prove that it serves a model,
// and the policy and the headers that the model's owner set.
func (g *Gateway) smallestOf(name string) (format.Format, *format.Policy, http.Header) {
	if m := g.catalog().model(name); m != nil {
		return m.formats[0], &m.Policy, m.headers
	}
	return g.cfg.APIs[0], new(format.Policy), nil
}
