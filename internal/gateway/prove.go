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

// maxProof bounds the answer in bytes.
const maxProof = 1 << 20

// prove sends a backend whose requests failed the smallest request that there is.
// Strangers are sold nothing until it, or a request of a caller with money, goes well:
// a list of models or a health check shows less than that. An answer that begins is
// enough, for clients pay no more than what was delivered. It costs the owner one
// token, when a backend is ejected and at most once in each back-off. It is a
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
		said := readRefusal(resp)
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
	case f == formObject && err != nil: // it cannot end what it begins
		return gpu.Result{Status: resp.StatusCode}
	case f != formEvents && err != nil:
		return gpu.Result{Err: err}
	}
	if f == formEvents { // it streams whatever it is asked for
		events := format.NewEvents(bytes.NewReader(answer), maxProof)
		for event, err := events.Next(); err == nil && !m.Failed(); event, err = events.Next() {
			m.Event(event)
		}
	} else {
		_, err = m.Unary(answer)
	}
	switch {
	case m.Failed() && m.Failure() != format.Failure{}:
		said := saidWithin(m.Failure())
		return said.result(b, model)
	case err != nil || m.Failed():
		return gpu.Result{Err: errors.Join(errNoAnswer, err)}
	}
	return gpu.Result{Status: resp.StatusCode}
}

// smallestOf is the API by which a backend shows that it serves a model, and what the
// model's owner wants of each request.
func (g *Gateway) smallestOf(name string) (format.Format, *format.Policy, http.Header) {
	if m := g.catalog().model(name); m != nil {
		return m.formats[0], &m.Policy, m.headers
	}
	return g.cfg.APIs[0], new(format.Policy), nil
}
