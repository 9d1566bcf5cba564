package gateway

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// metrics is the gateway's own registry. Every label comes from the
// configuration or from a fixed list, so that no client can make it grow, and
// none carries an account.
type metrics struct {
	registry *prometheus.Registry

	answers    *prometheus.CounterVec // route, class
	inFlight   prometheus.Gauge
	panics     prometheus.Counter
	problems   *prometheus.CounterVec // type
	challenges *prometheus.CounterVec // result
	limited    *prometheus.CounterVec // level

	outcomes   *prometheus.CounterVec // model, outcome
	charged    *prometheus.CounterVec // model
	unbilled   *prometheus.CounterVec // model
	tokens     *prometheus.CounterVec // model, direction, source
	clamped    *prometheus.CounterVec // model
	unanswered *prometheus.CounterVec // model
	noAnswers  *prometheus.CounterVec // backend
	overruns   *prometheus.CounterVec // backend, kind
	overrun    *prometheus.CounterVec // backend, direction
	overrunFee *prometheus.CounterVec // backend
	backend    *prometheus.CounterVec // model, class
	fallbacks  *prometheus.CounterVec // model, fallback

	toFirstByte *prometheus.HistogramVec // model
	settleTime  prometheus.Histogram
	unsettled   prometheus.Gauge
	lost        prometheus.Counter
}

func newMetrics(g *Gateway) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
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
	m.registry.MustRegister(m.lost, m.panics, m.toFirstByte, m.settleTime, &stateCollector{g: g},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// handler serves the registry, as OpenMetrics where that is asked for.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// class is a status as "2xx".
func class(status int) string {
	if status < 100 || status > 599 {
		return "none"
	}
	return string('0'+rune(status/100)) + "xx"
}

func (m *metrics) answered(x *exchange) {
	m.answers.WithLabelValues(x.route, class(x.status)).Inc()
}

func (m *metrics) problem(p *problem) { m.problems.WithLabelValues(p.kind()).Inc() }

func (m *metrics) challenged(repeated bool) {
	if repeated {
		m.challenges.WithLabelValues("repeated").Inc()
	} else {
		m.challenges.WithLabelValues("made").Inc()
	}
}

func (m *metrics) backendStatus(model string, status int) {
	m.backend.WithLabelValues(model, class(status)).Inc()
}

func (m *metrics) firstByte(c *call) {
	m.toFirstByte.WithLabelValues(c.o.model.Name).Observe(c.g.now().Sub(c.x.started).Seconds())
}

func (m *metrics) settled(model string, e metering.Entry, took time.Duration) {
	source := string(e.Source)
	m.outcomes.WithLabelValues(model, string(e.Outcome)).Inc()
	m.settleTime.Observe(took.Seconds())
	if e.Charged == 0 && e.Unbilled == 0 {
		return
	}
	m.charged.WithLabelValues(model).Add(float64(e.Charged))
	if e.Unbilled > 0 {
		m.unbilled.WithLabelValues(model).Add(float64(e.Unbilled))
	}
	m.tokens.WithLabelValues(model, "input", source).Add(float64(e.Usage[pricing.InputTokens]))
	m.tokens.WithLabelValues(model, "output", source).Add(float64(e.Usage[pricing.OutputTokens]))
	if e.Usage[pricing.CachedInputTokens] > 0 {
		m.tokens.WithLabelValues(model, "cached", source).Add(float64(e.Usage[pricing.CachedInputTokens]))
	}
}

// stateCollector reads what others count at the moment of a scrape: the queues,
// the backends, the prices, the ledger.
type stateCollector struct{ g *Gateway }

// Describe sends nothing: the set depends on the configuration, and Prometheus
// allows a collector to be unchecked.
func (s *stateCollector) Describe(chan<- *prometheus.Desc) {}

// Collect reads everything once.
func (s *stateCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(name, help string, value float64, labels ...string) {
		s.send(ch, prometheus.GaugeValue, name, help, value, labels)
	}
	counter := func(name, help string, value float64, labels ...string) {
		s.send(ch, prometheus.CounterValue, name, help, value, labels)
	}
	for _, p := range s.g.cfg.Fleet.Pools() {
		gauge("queue_waiting", "Requests that wait for a slot.", float64(p.Waiting), "model", p.Model)
		gauge("slots_free", "Slots free now.", float64(p.FreeSlots), "model", p.Model)
		counter("queue_refused_total", "Requests refused by a full queue.", float64(p.Refused), "model", p.Model)
		gauge("pool_panic", "Whether every backend of the model fails its health check and some are used because their requests go well.", boolean(p.Panic), "model", p.Model)
		counter("pool_unchecked_total", "Requests that went to a backend which fails its health check, because no other one passes.", float64(p.Unchecked), "model", p.Model)
		gauge("model_available", "Whether a request for the model can be served.", boolean(p.Healthy), "model", p.Model)
		counter("queue_pushed_out_total", "Of these: had a place and lost it to an account with less in the queue.", float64(p.PushedOut), "model", p.Model)
	}
	for _, b := range s.g.cfg.Fleet.Status() {
		gauge("backend_up", "Whether the backend passes its health check.", boolean(b.Healthy), "backend", b.Name)
		gauge("backend_ejected", "Whether failed requests took the backend out for a while.", boolean(b.Ejected), "backend", b.Name)
		gauge("backend_reachable", "Whether connections to the backend can be made.", boolean(b.Reachable), "backend", b.Name)
		gauge("backend_key_refused", "Whether the backend refuses the gateway's key.", boolean(b.KeyRefused), "backend", b.Name)
		gauge("backend_unknown_models", "Models that the backend did not know when it was asked last.", float64(len(b.Lacks)), "backend", b.Name)
		counter("gpu_time_fallbacks_total", "Requests with GPU time that was not measured but taken from the clock.", float64(b.Guessed), "backend", b.Name)
		gauge("backend_drained", "Whether the operator took the backend out for new requests.", boolean(b.Drained), "backend", b.Name)
		gauge("backend_leaving", "Requests that are open on servers of that name which a change of the configuration took away.", float64(b.Leaving), "backend", b.Name)
		gauge("backend_in_flight", "Requests running on the backend.", float64(b.InFlight), "backend", b.Name)
		counter("backend_failures_total", "Requests that the backend failed.", float64(b.Failed), "backend", b.Name)
	}
	s.g.collectConfig(gauge, counter)
	s.g.collectPrices(gauge, counter)
	s.g.collectLoad(gauge, counter)
	collectLedger(s.g.ledger.Stats(), gauge, counter)
	gauge("http_places_taken", "Requests being served, of those that may be at once.", float64(s.g.places.all.Load()))
	gauge("body_bytes", "Memory taken by bodies of requests, without the first 16 KiB of each.", float64(s.g.bodies.holders.used.Load()), "caller", "holder")
	gauge("body_bytes", "Memory taken by bodies of requests, without the first 16 KiB of each.", float64(s.g.bodies.strangers.used.Load()), "caller", "stranger")
	gauge("draining", "Whether the gateway is shutting down.", boolean(s.g.open.draining()))
	gauge("build_info", "Version.", 1, "version", s.g.cfg.Version)
}

// collectConfig shows which configuration is in force and how the last reload went; the
// first two names are Prometheus's own convention.
func (g *Gateway) collectConfig(gauge, counter metric) {
	if g.cfg.Operator == nil {
		return
	}
	c := g.cfg.Operator.Status()
	gauge("config_last_reload_successful", "Whether the last attempt to read the configuration again succeeded; 1 before the first.", boolean(c.Last == nil || c.Last.OK))
	gauge("config_last_reload_success_timestamp_seconds", "When the configuration was last read with success.", float64(c.SuccessAt.UnixMilli())/1000)
	gauge("config_generation", "Number of the configuration in force: 1 since the start, and one more with each change.", float64(c.Generation))
	gauge("config_changes_above", "Changes of the operator's that stand above the file until they are reset.", float64(len(c.Above)))
	counter("config_reloads_total", "Attempts to read the configuration again.", float64(c.Succeeded), "result", "in_force")
	counter("config_reloads_total", "Attempts to read the configuration again.", float64(c.Refused), "result", "refused")
}

// collectLedger shows what the ledger counts.
func collectLedger(l metering.Stats, gauge, counter func(name, help string, value float64, labels ...string)) {
	gauge("ledger_queue", "Operations that wait for the ledger's writer.", float64(l.Queue))
	gauge("ledger_open_holds", "Holds of this process.", float64(l.Open))
	gauge("ledger_failing", "Whether the store did not answer last time.", boolean(l.Failing))
	gauge("ledger_unconfirmed_deposits", "Deposits presented and not seen settled in time: a leaked key mints such credit.", float64(l.Unconfirmed))
	gauge("ledger_mismatches", "What the last check of the ledger's invariants found wrong: anything but 0 is a defect or damage.", float64(l.Mismatched))
	counter("ledger_audits_total", "Checks of the ledger's invariants by this gateway.", float64(l.Audits))
	counter("ledger_audit_errors_total", "Checks of the ledger's invariants that came to no result.", float64(l.AuditErrors))
	if !l.AuditedAt.IsZero() {
		gauge("ledger_audit_age_seconds", "Time since some gateway last checked the ledger's invariants with a result.", time.Since(l.AuditedAt).Seconds())
	}
	counter("ledger_sealed_periods_total", "Months that this gateway closed.", float64(l.Sealed))
	counter("ledger_batches_total", "Transactions committed.", float64(l.Batches))
	counter("ledger_operations_total", "Operations in them.", float64(l.Operations))
	counter("ledger_retries_total", "Attempts that got no answer from the store.", float64(l.Retries))
	counter("ledger_conflicts_total", "Operations put aside because their account was changed or locked by another gateway.", float64(l.Conflicts))
	counter("ledger_rejected_total", "Operations refused by the store's guards: a defect.", float64(l.Rejected))
	counter("ledger_lost_holds_total", "Holds that the store lost and that were made anew.", float64(l.Lost))
	counter("ledger_sweeps_total", "Holds charged because their owner was gone.", float64(l.Sweeps))
	counter("ledger_credited_msat_total", "Deposits credited, in msat.", float64(l.Credited))
	counter("ledger_charged_msat_total", "Charges committed, in msat.", float64(l.Charged))
	counter("ledger_unbilled_msat_total", "Cost beyond what could be charged, in msat.", float64(l.Unbilled))
	counter("ledger_foreign_deposits_total", "Payments presented for another account than they were credited to.", float64(l.Foreign))
	counter("ledger_excess_deposits_total", "Payments presented as more than arrived: a leaked key mints such credit.", float64(l.Excess))
	counter("ledger_doubted_deposits_total", "Payments taken back because lnd does not know them: a leaked key mints such credit.", float64(l.Doubted))
	counter("ledger_taken_back_msat_total", "Credit taken back because no payment stands behind it, in msat.", float64(l.TakenBack))
	counter("ledger_fenced_total", "Times that this gateway was taken for dead by another one.", float64(l.Fenced))
	counter("ledger_closed_budgets_total", "Sub-budgets that ended because their tokens have expired.", float64(l.Closed))
	gauge("ledger_unreadable_holds", "Abandoned holds that this version cannot read: anything but 0 needs a newer version, or is damage.", float64(l.Unreadable))
}

func (s *stateCollector) send(ch chan<- prometheus.Metric, kind prometheus.ValueType, name, help string, value float64, labels []string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	m, err := prometheus.NewConstMetric(prometheus.NewDesc("sluice_"+name, help, names, nil), kind, value, values...)
	if err != nil {
		m = prometheus.NewInvalidMetric(prometheus.NewDesc("sluice_"+name, help, names, nil), errors.New("metric "+name+": "+strconv.Quote(err.Error())))
	}
	ch <- m
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
