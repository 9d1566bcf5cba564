// Package exporter serves what a feed reads of the GPUs of this machine. It serves Prometheus text, for
// a gateway on another host and for dashboards.
//
//	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "nvml", Sampler: sampler})
//	go feed.Run(ctx)
//	http.ListenAndServe(addr, exporter.New(exporter.Config{Feed: feed, Host: hostname}))
//
// GET /metrics answers with Prometheus text, or with OpenMetrics if the client asks for it. Metrics
// that DCGM has too have the names and units of DCGM-exporter. The other names begin with sluice_gpu_.
// GET /healthz answers 503 while there is no fresh reading.
//
// Without a fresh reading of a device the page has no series of it, so that a reader sees that the
// values are not known, rather than numbers that never change. While a reading is fresh,
// sluice_gpu_reading_age_seconds says how old its numbers are, and a gateway adds this age. A MIG
// instance has its own UUID ("MIG-…") in the label UUID, and the UUID of its GPU in the label GPU_UUID.
// DCGM-exporter has the GPU's UUID in the label UUID.
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
	Host       string           // value of the label Hostname
	StaleAfter time.Duration    // zero means DefaultStaleAfter
	Clock      func() time.Time // clock of the feed; nil means time.Now
}

// New returns a handler of GET /metrics and GET /healthz. The handler never waits for the driver.
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
