package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/backends/gpu/nvml"
	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/internal/config"
	"sluice.example/sluice/pricing"
)

// telemetryNVML is the name of the one feed that reads this host's GPUs.
const telemetryNVML = "nvml"

// sensors holds everything that reads load: one feed for each driver, exporter and engine, and the
// hooks that ask for prices. Backends that name the same driver, exporter or engine share its feed.
// A feed exists as long as a backend needs it, also when the configuration changes.
type sensors struct {
	log      *slog.Logger
	nvmlPath string // path of the NVML library; "": the system's library
	http     *http.Client

	mu    sync.Mutex
	now   *reading                 // what the backends in force need
	nvml  *nvml.Sampler            // nil: not open
	local *source[*telemetry.Feed] // feed of this host's GPUs; never replaced, because two feeds must not read at once
	ctx   context.Context          // context of the feeds; nil: no feed runs yet

	running sync.WaitGroup
}

// reading is the set of feeds and hooks that the backends of one configuration need.
type reading struct {
	sensors *sensors
	cfg     config.Telemetry
	feeds   map[string]*source[*telemetry.Feed] // by URL or telemetryNVML
	asks    map[string]*source[*gpu.AskFeed]
}

// source is one feed or one hook.
type source[F interface{ Run(context.Context) }] struct {
	feed F
	key  string             // key of the server that the feed reads
	stop context.CancelFunc // nil: the feed does not run
}

func newSensors(cfg *config.Config, log *slog.Logger) *sensors {
	return &sensors{log: log, nvmlPath: cfg.Telemetry.NVMLLibrary, now: new(reading),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2, DisableCompression: true}}}
}

// plan returns an empty reading for a configuration. The feeds that are added to it are not started
// before use.
func (s *sensors) plan(cfg *config.Config) *reading {
	return &reading{sensors: s, cfg: cfg.Telemetry, feeds: map[string]*source[*telemetry.Feed]{}, asks: map[string]*source[*gpu.AskFeed]{}}
}

// bind adds the feeds and hooks that read a backend's load to the backend's configuration.
func (r *reading) bind(b *config.Backend, to *gpu.BackendConfig) error {
	to.StaleAfter = r.cfg.StaleAfter
	if b.EngineURL != nil {
		to.Engine = r.feed(b.EngineURL.String(), b.KeyHeader+" "+b.APIKey.Reveal(), r.cfg.Every, func() telemetry.Sampler {
			return telemetry.NewEngineSampler(b.EngineURL, r.sensors.keyed(b))
		})
		to.EngineMayLack = b.Engine.Preset
	}
	if b.Ask.Set() {
		ask, err := r.ask(b.Ask)
		if err != nil {
			return fmt.Errorf("ask of backend %s: %w", b.Name, err)
		}
		to.Ask = ask
	}
	if len(b.GPUs) == 0 {
		return nil
	}
	feed, err := r.gpus(b.Exporter)
	if err != nil {
		return fmt.Errorf("GPUs of backend %s: %w", b.Name, err)
	}
	for _, device := range b.GPUs {
		to.GPUs = append(to.GPUs, gpu.GPU{Feed: feed, Device: device})
	}
	return nil
}

// gpus returns the feed of an exporter. When exporter is nil, it returns the feed of this host's
// driver.
func (r *reading) gpus(exporter *url.URL) (*telemetry.Feed, error) {
	if exporter != nil {
		return r.feed(exporter.String(), "", r.cfg.Every, func() telemetry.Sampler { return telemetry.NewExporterSampler(exporter, r.sensors.http) }), nil
	}
	sampler, err := r.sensors.driver()
	if err != nil {
		return nil, err
	}
	return r.feed(telemetryNVML, "", r.cfg.NVMLEvery, func() telemetry.Sampler { return sampler }), nil
}

// driver returns the sampler of this host's GPUs. When the host has no usable driver, it returns a
// sampler that always fails.
func (s *sensors) driver() (telemetry.Sampler, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nvml != nil {
		return s.nvml, nil
	}
	sampler, err := nvml.Open(nvml.Config{Library: s.nvmlPath, Log: s.log})
	switch {
	case errors.Is(err, nvml.ErrUnavailable):
		s.log.Warn("GPUs cannot be read on this host; prices follow engines and requests alone, and GPU time that has a price is taken from the clock or refused", "error", err)
		return unavailable{}, nil
	case err != nil:
		return nil, err
	}
	s.nvml = sampler
	return sampler, nil
}

// unavailable is the sampler of a driver that does not exist. Its feed is always stale.
type unavailable struct{}

func (unavailable) Sample(context.Context) (telemetry.Reading, error) {
	return telemetry.Reading{}, nvml.ErrUnavailable
}

// feed returns the feed with this name. It takes the feed from this reading, or else the feed in
// force with the same key, or else it makes a new feed.
func (r *reading) feed(name, key string, every time.Duration, sampler func() telemetry.Sampler) *telemetry.Feed {
	if f := r.feeds[name]; f != nil {
		return f.feed
	}
	f := r.sensors.before().feeds[name]
	if name == telemetryNVML {
		f = r.sensors.local
	}
	if f == nil || f.key != key {
		f = &source[*telemetry.Feed]{key: key, feed: telemetry.NewFeed(telemetry.FeedConfig{
			Name: name, Sampler: sampler(), Every: every, Hold: r.cfg.StaleAfter, Log: r.sensors.log})}
	}
	if name == telemetryNVML {
		r.sensors.local = f
	}
	r.feeds[name] = f
	return f.feed
}

// before returns the reading in force.
func (s *sensors) before() *reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (r *reading) ask(a config.Ask) (gpu.Ask, error) {
	fixed := pricing.Rates{pricing.InputTokens: int64(a.Input), pricing.OutputTokens: int64(a.Output)}
	if a.URL == nil {
		return gpu.FixedAsk(fixed), nil
	}
	name := fmt.Sprintf("%s %d %d", a.URL, a.Input, a.Output)
	if r.asks[name] == nil {
		r.asks[name] = r.sensors.before().asks[name]
	}
	if r.asks[name] == nil {
		f, err := gpu.NewAskFeed(gpu.AskConfig{URL: a.URL, Fallback: fixed, Client: r.sensors.http, Log: r.sensors.log})
		if err != nil {
			return nil, err
		}
		r.asks[name] = &source[*gpu.AskFeed]{feed: f}
	}
	return r.asks[name].feed, nil
}

// keyed returns an HTTP client for a backend's engine. The client sends the backend's key if the
// engine URL has the same host as the backend.
func (s *sensors) keyed(b *config.Backend) *http.Client {
	key := b.APIKey.Reveal()
	if key == "" || b.EngineURL.Host != b.URL.Host {
		return s.http
	}
	t := keyed{header: b.KeyHeader, value: key, of: *b.EngineURL, next: s.http.Transport}
	if t.header == "" {
		t.header, t.value = "Authorization", "Bearer "+key
	}
	return &http.Client{Transport: t}
}

// keyed adds a key to each request to one server. When that server redirects to another server, the
// request to the other server has no key, because the key is only for the first.
type keyed struct {
	header, value string
	of            url.URL
	next          http.RoundTripper
}

func (t keyed) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del(t.header)
	if r.URL.Host == t.of.Host && r.URL.Scheme == t.of.Scheme {
		r.Header.Set(t.header, t.value)
	}
	return t.next.RoundTrip(r)
}

// run starts the feeds in force. They read until ctx ends.
func (s *sensors) run(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = ctx
	s.start(s.now)
}

// use puts a reading in force and returns the reading before it. Feeds that are no longer needed
// continue until retire.
func (s *sensors) use(r *reading) (before *reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, s.now = s.now, r
	for name, f := range r.feeds {
		every := r.cfg.Every
		if name == telemetryNVML {
			every = r.cfg.NVMLEvery
		}
		f.feed.Tune(every, r.cfg.StaleAfter)
	}
	if s.ctx != nil {
		s.start(r)
	}
	return before
}

// start starts the feeds and hooks that do not run yet. The caller holds mu.
func (s *sensors) start(r *reading) {
	for _, f := range r.feeds {
		launch(s, f)
	}
	for _, a := range r.asks {
		launch(s, a)
	}
}

func launch[F interface{ Run(context.Context) }](s *sensors, f *source[F]) {
	if f.stop != nil || s.ctx.Err() != nil {
		return
	}
	var ctx context.Context
	ctx, f.stop = context.WithCancel(s.ctx)
	s.running.Go(func() { f.feed.Run(ctx) })
}

// retire stops the feeds and hooks of before that are no longer needed.
func (s *sensors) retire(before *reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range before.feeds {
		if s.now.feeds[name] != f && name != telemetryNVML && f.stop != nil {
			f.stop()
		}
	}
	for name, a := range before.asks {
		if s.now.asks[name] != a && a.stop != nil {
			a.stop()
		}
	}
}

// close waits until the context of run has ended and all feeds have stopped. Then it closes the
// driver and the connections.
func (s *sensors) close() {
	s.running.Wait()
	if s.nvml != nil {
		s.nvml.Close()
	}
	s.http.CloseIdleConnections()
}

// list returns every feed, in the order of the names.
func (r *reading) list() []*telemetry.Feed {
	feeds := make([]*telemetry.Feed, 0, len(r.feeds))
	for _, name := range slices.Sorted(maps.Keys(r.feeds)) {
		feeds = append(feeds, r.feeds[name].feed)
	}
	return feeds
}
