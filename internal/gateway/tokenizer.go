package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering/format"
)

const (
	// tokenizeTimeout bounds the time for a backend to count a prompt. Tokenizers answer within
	// milliseconds; a slower answer is not worth the wait.
	tokenizeTimeout = 2 * time.Second
	// maxTokenizeAnswer bounds a tokenizer's answer in bytes. The answer may list every token.
	maxTokenizeAnswer = 16 << 20
	// missingFor is how long the gateway does not ask a backend on a path that the backend has
	// said it does not have.
	missingFor = 10 * time.Minute
)

// errNotCounted reports a text that the backend's tokenizer cannot count.
var errNotCounted = errors.New("the backend cannot count this")

// countable reports whether a backend of the model can count the prompt of the order.
func (g *Gateway) countable(o *order) bool {
	for _, b := range o.model.pool.Backends() {
		if g.profile(b).Counting != format.CountNone {
			return o.req.Countable()
		}
	}
	return false
}

// questions returns the requests that may count the prompt at a backend.
func (g *Gateway) questions(b *gpu.Backend, o *order) []format.Question {
	list := o.req.CountPrompt(g.profile(b), b.Upstream(o.model.Name), o.limits)
	for i := range list {
		list[i].Header = o.model.headers
	}
	return list
}

// countInSlot counts the prompt in a slot of a backend, and then gives the slot back.
func (g *Gateway) countInSlot(x *exchange, o *order, lease *gpu.Lease) (format.Question, int64, error) {
	ctx, cancel := context.WithTimeout(x.r.Context(), tokenizeTimeout)
	defer cancel()
	q, n, err := g.countTokens(ctx, lease.Backend(), g.questions(lease.Backend(), o))
	failed := err
	if !errors.Is(err, gpu.ErrNotTaken) {
		failed = context.Canceled // the fleet ignores a failed count, because it says nothing about generation
	}
	lease.Done(gpu.Result{Err: failed, Refused: true})
	return q, n, err
}

// countTokens asks a backend the questions in turn until the backend answers one. It returns
// the question that was answered and the count in tokens.
func (g *Gateway) countTokens(ctx context.Context, b *gpu.Backend, questions []format.Question) (format.Question, int64, error) {
	err := errNotCounted
	for _, q := range questions {
		if g.engine(b).isMissing(q.Path, g.now()) {
			continue
		}
		var n int64
		if n, err = g.ask(ctx, b, q); err == nil {
			return q, n, nil
		}
	}
	return format.Question{}, 0, err
}

// ask sends one question to a backend. If the answer leads to a further question, ask sends
// that question too. It returns the count in tokens.
func (g *Gateway) ask(ctx context.Context, b *gpu.Backend, q format.Question) (int64, error) {
	resp, err := b.Do(ctx, http.MethodPost, b.Path(q.Path, ""), q.Body, own(http.Header{"Content-Type": {"application/json"}}, q.Header))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenizeAnswer))
	switch {
	case err != nil:
		return 0, err
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusMethodNotAllowed, resp.StatusCode == http.StatusNotImplemented:
		g.engine(b).lacks(q.Path, g.now().Add(missingFor))
		return 0, errNotCounted
	case resp.StatusCode != http.StatusOK:
		return 0, errors.New("tokenizer answered " + resp.Status)
	}
	n, next, err := q.Answer(answer)
	if err != nil || next == nil {
		return n, err
	}
	return g.ask(ctx, b, *next) // the answer to next holds the count
}

// askTokenizer lets the call's backend count the tokens that no usage told, if the backend can.
// Only the first call of askTokenizer does something.
func (c *call) askTokenizer() {
	b := c.lease.Backend()
	profile := c.g.profile(b)
	if c.tokenized || profile.Counting == format.CountNone || c.stalled() {
		return
	}
	c.tokenized = true
	prompt, text, ok := c.meter.NeedsTokenizer()
	if !ok {
		return
	}
	ctx, cancel := c.x.detached(tokenizeTimeout)
	defer cancel()
	promptTokens, completionTokens := int64(-1), int64(-1)
	if prompt {
		if q, n, err := c.g.countTokens(ctx, b, c.g.questions(b, c.o)); err == nil {
			promptTokens = q.Likely(n)
		}
	}
	if q, ok := format.CountText(profile, b.Upstream(c.o.model.Name), text); ok && text != "" {
		q.Header = c.o.model.headers
		if _, n, err := c.g.countTokens(ctx, b, []format.Question{q}); err == nil {
			completionTokens = n
		}
	}
	c.meter.Tokenized(promptTokens, completionTokens)
}
