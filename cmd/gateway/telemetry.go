package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/backends/gpu/nvml"
	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/internal/config"
	"sluice.example/sluice/pricing"
)

// telemetryNVML names the one feed of this host's GPUs.
const telemetryNVML = "nvml"

// sensors is everything that reads load: one feed per driver, exporter and
// engine, shared by the backends that name it, and the hooks of asks.
type sensors struct {
	cfg   *config.Config
	log   *slog.Logger
	http  *http.Client
	feeds map[string]*telemetry.Feed // by URL, or telemetryNVML
	asks  []*gpu.AskFeed
	nvml  *nvml.Sampler // nil: not open

	running sync.WaitGroup
}

func newSensors(cfg *config.Config, log *slog.Logger) *sensors {
	return &sensors{cfg: cfg, log: log, feeds: map[string]*telemetry.Feed{},
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2, DisableCompression: true}}}
}

// bind completes a backend's configuration with what reads its load.
func (s *sensors) bind(b *config.Backend, to *gpu.BackendConfig) error {
	to.StaleAfter = s.cfg.Telemetry.StaleAfter
	if b.EngineURL != nil {
		to.Engine = s.feed(b.EngineURL.String(), func() telemetry.Sampler {
			return telemetry.NewEngineSampler(b.EngineURL, s.keyed(b))
		})
	}
	if b.Ask.Set() {
		ask, err := s.ask(b.Ask)
		if err != nil {
			return fmt.Errorf("ask of backend %s: %w", b.Name, err)
		}
		to.Ask = ask
	}
	if len(b.GPUs) == 0 {
		return nil
	}
	feed, err := s.gpus(b.Exporter)
	if err != nil {
		return fmt.Errorf("GPUs of backend %s: %w", b.Name, err)
	}
	for _, device := range b.GPUs {
		to.GPUs = append(to.GPUs, gpu.GPU{Feed: feed, Device: device})
	}
	return nil
}

// gpus is the feed of an exporter, or of this host's driver.
func (s *sensors) gpus(exporter *url.URL) (*telemetry.Feed, error) {
	if exporter != nil {
		return s.feed(exporter.String(), func() telemetry.Sampler { return telemetry.NewExporterSampler(exporter, s.http) }), nil
	}
	if s.feeds[telemetryNVML] == nil {
		sampler, err := nvml.Open(nvml.Config{Library: s.cfg.Telemetry.NVMLLibrary, Log: s.log})
		switch {
		case errors.Is(err, nvml.ErrUnavailable):
			s.log.Warn("GPUs cannot be read on this host; prices follow engines and requests alone, and GPU time that has a price is taken from the clock or refused", "error", err)
		case err != nil:
			return nil, err
		default:
			s.nvml = sampler
		}
	}
	return s.feed(telemetryNVML, func() telemetry.Sampler {
		if s.nvml == nil {
			return unavailable{}
		}
		return s.nvml
	}), nil
}

// unavailable stands for a driver that is not there: its feed is stale for good.
type unavailable struct{}

func (unavailable) Sample(context.Context) (telemetry.Reading, error) {
	return telemetry.Reading{}, nvml.ErrUnavailable
}

// feed is the one feed of that name.
func (s *sensors) feed(name string, sampler func() telemetry.Sampler) *telemetry.Feed {
	if f := s.feeds[name]; f != nil {
		return f
	}
	every := s.cfg.Telemetry.Every
	if name == telemetryNVML {
		every = s.cfg.Telemetry.NVMLEvery
	}
	f := telemetry.NewFeed(telemetry.FeedConfig{Name: name, Sampler: sampler(), Every: every, Hold: s.cfg.Telemetry.StaleAfter, Log: s.log})
	s.feeds[name] = f
	return f
}

func (s *sensors) ask(a config.Ask) (gpu.Ask, error) {
	fixed := pricing.Rates{pricing.InputTokens: int64(a.Input), pricing.OutputTokens: int64(a.Output)}
	if a.URL == nil {
		return gpu.FixedAsk(fixed), nil
	}
	f, err := gpu.NewAskFeed(gpu.AskConfig{URL: a.URL, Fallback: fixed, Client: s.http, Log: s.log})
	if err != nil {
		return nil, err
	}
	s.asks = append(s.asks, f)
	return f, nil
}

// keyed sends a backend's key along, as its requests do.
func (s *sensors) keyed(b *config.Backend) *http.Client {
	key := b.APIKey.Reveal()
	if key == "" || b.EngineURL.Host != b.URL.Host {
		return s.http
	}
	return &http.Client{Transport: bearer{key, *b.EngineURL, s.http.Transport}}
}

// bearer adds a bearer token to each request to one server. A redirect to another
// one is followed without it: the key is that server's alone.
type bearer struct {
	key  string
	of   url.URL
	next http.RoundTripper
}

func (t bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("Authorization")
	if r.URL.Host == t.of.Host && r.URL.Scheme == t.of.Scheme {
		r.Header.Set("Authorization", "Bearer "+t.key)
	}
	return t.next.RoundTrip(r)
}

// run reads until ctx ends.
func (s *sensors) run(ctx context.Context) {
	for _, f := range s.feeds {
		s.running.Go(func() { f.Run(ctx) })
	}
	for _, a := range s.asks {
		s.running.Go(func() { a.Run(ctx) })
	}
}

// close waits for run's end, that is for its context's.
func (s *sensors) close() {
	s.running.Wait()
	if s.nvml != nil {
		s.nvml.Close()
	}
	s.http.CloseIdleConnections()
}

// list is every feed by name, in a stable order.
func (s *sensors) list() []*telemetry.Feed {
	names := make([]string, 0, len(s.feeds))
	for name := range s.feeds {
		names = append(names, name)
	}
	slices.Sort(names)
	feeds := make([]*telemetry.Feed, len(names))
	for i, name := range names {
		feeds[i] = s.feeds[name]
	}
	return feeds
}
