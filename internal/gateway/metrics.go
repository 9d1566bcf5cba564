package gateway

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.example/sluice/metering"
)

// stateCollector reads, at each scrape, what other parts count: the queues, the backends, the
// prices and the ledger.
type stateCollector struct{ g *Gateway }

// Describe sends nothing, because the set of metrics depends on the configuration. Prometheus
// allows such an unchecked collector.
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
	gauge("http_places_taken", "Requests being served, of those that may be at once.", float64(s.g.places.Taken()))
	holders, strangers := s.g.bodies.InUse()
	gauge("body_bytes", "Memory taken by bodies of requests, without the first 16 KiB of each.", float64(holders), "caller", "holder")
	gauge("body_bytes", "Memory taken by bodies of requests, without the first 16 KiB of each.", float64(strangers), "caller", "stranger")
	gauge("draining", "Whether the gateway is shutting down.", boolean(s.g.open.draining()))
	gauge("build_info", "Version.", 1, "version", s.g.cfg.Version)
}

// collectConfig sends which configuration is in force, and how the last reload ended. The first two
// names follow Prometheus's own convention.
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

// collectLedger sends what the ledger counts.
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
