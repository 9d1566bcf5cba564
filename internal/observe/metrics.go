package observe

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice.example/sluice/pricing"
)

// Metrics is an Observer that counts events in a registry of its own. All values of labels come
// from the configuration or from a fixed list, so that no client can make their number grow. No
// label names an account. It is safe for concurrent use.
type Metrics struct {
	None
	registry *prometheus.Registry

	answers    *prometheus.CounterVec // labels: route, class
	inFlight   prometheus.Gauge
	panics     prometheus.Counter
	problems   *prometheus.CounterVec // labels: type
	challenges *prometheus.CounterVec // labels: result
	limited    *prometheus.CounterVec // labels: level

	outcomes   *prometheus.CounterVec // labels: model, outcome
	charged    *prometheus.CounterVec // labels: model
	unbilled   *prometheus.CounterVec // labels: model
	tokens     *prometheus.CounterVec // labels: model, direction, source
	clamped    *prometheus.CounterVec // labels: model
	unanswered *prometheus.CounterVec // labels: model
	noAnswers  *prometheus.CounterVec // labels: backend
	overruns   *prometheus.CounterVec // labels: backend, kind
	overrun    *prometheus.CounterVec // labels: backend, direction
	overrunFee *prometheus.CounterVec // labels: backend
	backend    *prometheus.CounterVec // labels: model, class
	fallbacks  *prometheus.CounterVec // labels: model, fallback

	toFirstByte *prometheus.HistogramVec // labels: model
	settleTime  prometheus.Histogram
	unsettled   prometheus.Gauge
	lost        prometheus.Counter
}

var _ Observer = (*Metrics)(nil)

// NewMetrics returns Metrics that count from zero. The registry also has the metrics of the Go
// runtime, of the process, and of the collectors in more.
func NewMetrics(more ...prometheus.Collector) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "sluice", Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	gauge := func(name, help string) prometheus.Gauge {
		v := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "sluice", Name: name, Help: help})
		m.registry.MustRegister(v)
		return v
	}
	m.answers = counters("http_answers_total", "Answers of the public listener.", "route", "class")
	m.inFlight = gauge("http_in_flight", "Requests of the public listener in progress.")
	m.problems = counters("problems_total", "Problem answers by type.", "type")
	m.challenges = counters("challenges_total", "Challenges: made (an invoice was made), repeated, refused (none could be made).", "result")
	m.limited = counters("challenges_limited_total", "Requests refused because too many challenges were asked for, by the limit that said so.", "level")
	m.outcomes = counters("requests_total", "Reserved requests by how they ended.", "model", "outcome")
	m.charged = counters("charged_msat_total", "Charges, in msat.", "model")
	m.unbilled = counters("unbilled_msat_total", "Cost beyond what could be charged, in msat.", "model")
	m.tokens = counters("tokens_total", "Charged tokens by direction (input, cached, output) and source of the count.", "model", "direction", "source")
	m.clamped = counters("usage_clamped_total", "Answers whose reported usage was impossible.", "model")
	m.noAnswers = counters("backend_no_answers_total", "Answers with a 2xx that were none, or failed before anything was passed on: nothing was charged.", "backend")
	m.overruns = counters("backend_overruns_total", "Answers beyond what their hold pays for, by kind: prompt and completion (more than the request's bound), usage (an impossible usage), cost (more than was held).", "backend", "kind")
	m.overrun = counters("backend_overrun_tokens_total", "Tokens delivered beyond the bound of their request and not charged, by direction (input, output).", "backend", "direction")
	m.overrunFee = counters("backend_overrun_msat_total", "What was delivered and could not be charged, in msat: more than a little means that the backend does not keep to the cap, or that the model's limits are wrong.", "backend")
	m.fallbacks = counters("fallbacks_total", "Requests for a model that another one was asked for instead, as the clients allowed.", "model", "fallback")
	m.unanswered = counters("backend_timeouts_total", "Requests without a first byte in time: work that was not billed.", "model")
	m.backend = counters("backend_refusals_total", "Answers of backends other than 2xx.", "model", "class")
	m.toFirstByte = prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "sluice", Name: "first_byte_seconds",
		Help:    "Time from the request's arrival to the first byte from the backend.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}}, []string{"model"})
	m.settleTime = prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "sluice", Name: "settle_seconds",
		Help:    "Time to commit a charge.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30}})
	m.unsettled = gauge("unsettled_charges", "Charges that wait for the store.")
	m.panics = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "sluice", Name: "panics_total", Help: "Handlers that panicked."})
	m.lost = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "sluice", Name: "lost_charges_total", Help: "Charges that could not be recorded; the sweep charges what was last renewed."})
	m.registry.MustRegister(m.lost, m.panics, m.toFirstByte, m.settleTime,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(more...)
	return m
}

// Handler serves the registry, in the OpenMetrics format if the client asks for it.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// class returns the class of a status, such as "2xx"; "none" for a status of 0.
func class(status int) string {
	if status < 100 || status > 599 {
		return "none"
	}
	return string('0'+rune(status/100)) + "xx"
}

// Began counts the requests in progress.
func (m *Metrics) Began(r *http.Request) context.Context {
	m.inFlight.Inc()
	return r.Context()
}

// Ended counts answers by route and class of status.
func (m *Metrics) Ended(_ context.Context, route string, status int) {
	m.inFlight.Dec()
	m.answers.WithLabelValues(route, class(status)).Inc()
}

// Panicked counts the panics of handlers.
func (m *Metrics) Panicked(context.Context, string, any, []byte) { m.panics.Inc() }

// Limited counts callers that asked for too many challenges, by the level of the limit.
func (m *Metrics) Limited(_ context.Context, level string) { m.limited.WithLabelValues(level).Inc() }

// Refused counts problems by type.
func (m *Metrics) Refused(_ context.Context, r Refusal) { m.problems.WithLabelValues(r.Kind).Inc() }

// Challenged counts challenges by result.
func (m *Metrics) Challenged(_ context.Context, c Challenge) {
	m.challenges.WithLabelValues(string(c.Result)).Inc()
}

// FirstByte observes the time until the first part of an answer.
func (m *Metrics) FirstByte(_ context.Context, model string, took time.Duration) {
	m.toFirstByte.WithLabelValues(model).Observe(took.Seconds())
}

// FellBack counts requests for which a second model was asked, by both models.
func (m *Metrics) FellBack(_ context.Context, model, fallback string, _ error) {
	m.fallbacks.WithLabelValues(model, fallback).Inc()
}

// BackendFailed counts first-byte timeouts, answers that could not be passed on, and refusals.
func (m *Metrics) BackendFailed(_ context.Context, f Failure) {
	switch f.Kind {
	case TimedOut:
		m.unanswered.WithLabelValues(f.Model).Inc()
	case NoAnswer:
		m.noAnswers.WithLabelValues(f.Backend).Inc()
	case Refused:
		m.backend.WithLabelValues(f.Model, class(f.Status)).Inc()
	}
}

// Overran counts what a backend did beyond its request's bound, which is not charged.
func (m *Metrics) Overran(_ context.Context, o Overrun) {
	if o.Impossible {
		m.clamped.WithLabelValues(o.Model).Inc()
	}
	if o.Prompt == 0 && o.Completion == 0 {
		m.overruns.WithLabelValues(o.Backend, "usage").Inc()
		return
	}
	if o.Prompt > 0 {
		m.overruns.WithLabelValues(o.Backend, "prompt").Inc()
		m.overrun.WithLabelValues(o.Backend, "input").Add(float64(o.Prompt))
	}
	if o.Completion > 0 {
		m.overruns.WithLabelValues(o.Backend, "completion").Inc()
		m.overrun.WithLabelValues(o.Backend, "output").Add(float64(o.Completion))
	}
	m.overrunFee.WithLabelValues(o.Backend).Add(float64(o.Worth))
	m.unbilled.WithLabelValues(o.Model).Add(float64(o.Worth))
}

// Settled counts outcomes, charges, tokens, and the cost that the hold did not cover.
func (m *Metrics) Settled(_ context.Context, s Settlement) {
	e, source := s.Entry, string(s.Entry.Source)
	m.outcomes.WithLabelValues(s.Model, string(e.Outcome)).Inc()
	m.settleTime.Observe(s.Took.Seconds())
	if s.Late {
		m.unsettled.Dec()
	}
	if e.Charged == 0 && e.Unbilled == 0 {
		return
	}
	m.charged.WithLabelValues(s.Model).Add(float64(e.Charged))
	if e.Unbilled > 0 {
		m.unbilled.WithLabelValues(s.Model).Add(float64(e.Unbilled))
	}
	if e.Unbilled > 0 && s.Backend != "" {
		m.overruns.WithLabelValues(s.Backend, "cost").Inc()
		m.overrunFee.WithLabelValues(s.Backend).Add(float64(e.Unbilled))
	}
	m.tokens.WithLabelValues(s.Model, "input", source).Add(float64(e.Usage[pricing.InputTokens]))
	m.tokens.WithLabelValues(s.Model, "output", source).Add(float64(e.Usage[pricing.OutputTokens]))
	if e.Usage[pricing.CachedInputTokens] > 0 {
		m.tokens.WithLabelValues(s.Model, "cached", source).Add(float64(e.Usage[pricing.CachedInputTokens]))
	}
}

// Delayed counts the settlements that wait for the store.
func (m *Metrics) Delayed(context.Context, string, error) { m.unsettled.Inc() }

// Lost counts a settlement that was given up.
func (m *Metrics) Lost(context.Context, string, error) {
	m.unsettled.Dec()
	m.lost.Inc()
}
