// Package exporter serves what a feed reads of the GPUs of this machine as
// Prometheus text, for a gateway on another host and for dashboards.
//
//	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "nvml", Sampler: sampler})
//	go feed.Run(ctx)
//	http.ListenAndServe(addr, exporter.New(exporter.Config{Feed: feed, Host: hostname}))
//
// GET /metrics is Prometheus text, or OpenMetrics for a client that asks for
// that. It has DCGM-exporter's names and units for what DCGM has, and
// sluice_gpu_… for the rest. GET /healthz answers 503 while nothing fresh was
// read.
//
// A device of which nothing fresh was read has no series: a reader shall see
// that it is not known rather than a number that stands still. Until then
// sluice_gpu_reading_age_seconds tells how old the numbers are, which a gateway
// adds to their age. A MIG instance
// has its own UUID ("MIG-…") in the label UUID, where DCGM-exporter has its
// GPU's; that one is in the label GPU_UUID.
package exporter

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice.example/sluice/backends/gpu/telemetry"
)

// DefaultStaleAfter is how old a reading may be to be served.
const DefaultStaleAfter = 5 * time.Second

// Config describes an exporter.
type Config struct {
	Feed       *telemetry.Feed
	Host       string           // the label Hostname
	StaleAfter time.Duration    // zero: DefaultStaleAfter
	Clock      func() time.Time // of the feed; nil: time.Now
}

// New returns a handler of GET /metrics and GET /healthz. It never waits for
// the driver.
func New(cfg Config) http.Handler {
	if cfg.StaleAfter <= 0 {
		cfg.StaleAfter = DefaultStaleAfter
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{cfg})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", cfg.health)
	return mux
}

func (cfg Config) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	s := cfg.Feed.Latest()
	if s.Fresh(cfg.Clock(), cfg.StaleAfter) {
		fmt.Fprintln(w, "ok")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	if s.Err != nil {
		fmt.Fprintln(w, s.Err)
	} else {
		fmt.Fprintln(w, "nothing was read yet")
	}
}
