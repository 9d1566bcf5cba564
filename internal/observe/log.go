package observe

import (
	"context"
	"log/slog"
	"net/http"

	"sluice.example/sluice/pricing"
)

// Log is an Observer that logs what an operator must know. It is safe for concurrent use.
type Log struct {
	None
	log *slog.Logger
}

var _ Observer = (*Log)(nil)

// NewLog returns a Log that writes to log, which should drop warnings that repeat.
func NewLog(log *slog.Logger) *Log { return &Log{log: log} }

// Panicked logs the panic of a handler with its path and stack.
func (l *Log) Panicked(_ context.Context, path string, value any, stack []byte) {
	l.log.Error("panic while serving", "path", path, "panic", value, "stack", string(stack))
}

// Refused logs a 5xx that was not caused by load.
func (l *Log) Refused(_ context.Context, r Refusal) {
	if r.Status >= http.StatusInternalServerError && !r.Expected {
		l.log.Warn("request failed", "path", r.Path, "status", r.Status, "model", r.Model, "backend", r.Backend,
			"request_id", r.RequestID, "cause", r.Cause)
	}
}

// Challenged logs why a challenge could not be made.
func (l *Log) Challenged(_ context.Context, c Challenge) {
	if c.Err != nil {
		l.log.Warn("no challenge", "service", c.Service, "error", c.Err)
	}
}

// Paid logs why a payment was not credited.
func (l *Log) Paid(_ context.Context, p Payment) {
	if p.Err != nil {
		l.log.Warn("deposit was not credited", "payment_hash", p.Hash.String(), "error", p.Err)
	}
}

// FellBack logs which second model is asked, and why.
func (l *Log) FellBack(_ context.Context, model, fallback string, why error) {
	l.log.Info("another model is asked, as the client allows", "model", model, "fallback", fallback, "reason", why)
}

// BackendFailed logs failures of which otherwise only the client would know. The fleet logs the
// backends that refuse or do not answer.
func (l *Log) BackendFailed(_ context.Context, f Failure) {
	switch f.Kind {
	case NoAnswer:
		l.log.Warn("backend gave no answer that can be passed on", "backend", f.Backend, "model", f.Model,
			"request_id", f.RequestID, "error", f.Err, "said", f.Said, "dropped_events", f.Dropped)
	case BrokeOff:
		l.log.Warn("backend broke off a unary answer", "backend", f.Backend, "error", f.Err)
	case TooLong:
		l.log.Warn("an answer is too long to be put together", "backend", f.Backend, "model", f.Model, "request_id", f.RequestID)
	case Hopeless:
		l.log.Info("backend cannot serve a request", "backend", f.Backend, "model", f.Model,
			"request_id", f.RequestID, "status", f.Status, "reason", f.Said)
	}
}

// Overran logs a warning, because the owner is not paid for the work of an overrun.
func (l *Log) Overran(_ context.Context, o Overrun) {
	if !o.Tell {
		return
	}
	message := "a backend delivered more than its request could cost; check its engine and cap_field, and the model's limits"
	if o.Prompt == 0 && o.Completion == 0 {
		message = "a backend reported a usage that its request cannot have; check its engine and what it reports"
	}
	l.log.Warn(message, "backend", o.Backend, "model", o.Model, "request_id", o.RequestID,
		"prompt_tokens", o.Prompt, "completion_tokens", o.Completion, "unbilled_msat", int64(o.Worth), "left_out", o.LeftOut)
}

// Settled logs a paid request. It is the only line that a paid request causes at level info.
func (l *Log) Settled(ctx context.Context, s Settlement) {
	e := s.Entry
	attrs := []slog.Attr{slog.String("request_id", s.RequestID),
		slog.String("model", s.Model), slog.String("outcome", string(e.Outcome)), slog.String("source", string(e.Source)),
		slog.Int64("charged_msat", int64(e.Charged)), slog.Int64("input_tokens", e.Usage[pricing.InputTokens]),
		slog.Int64("output_tokens", e.Usage[pricing.OutputTokens]), slog.String("backend", s.Backend),
		slog.Duration("took", s.Total)}
	if s.GPUSource != "" {
		attrs = append(attrs, slog.Int64("gpu_us", e.Usage[pricing.GPUMicros]), slog.String("gpu_source", s.GPUSource))
	}
	l.log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
}

// Delayed logs why a settlement is delayed.
func (l *Log) Delayed(_ context.Context, requestID string, err error) {
	l.log.Error("charge is delayed", "request_id", requestID, "error", err)
}

// Lost logs why a settlement was given up.
func (l *Log) Lost(_ context.Context, requestID string, err error) {
	l.log.Error("charge is lost to its hold's lease", "request_id", requestID, "error", err)
}

// PriceMoved logs the new price at level debug.
func (l *Log) PriceMoved(ctx context.Context, e pricing.Epoch) {
	l.log.LogAttrs(ctx, slog.LevelDebug, "price moved", slog.String("model", e.Model), slog.Int64("epoch", e.ID),
		slog.Float64("multiplier", e.Multiplier), slog.String("bound_by", e.BoundBy))
}
