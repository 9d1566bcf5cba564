package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/internal/config"
)

// When a backend's metrics page redirects to another server, the request to the other server must
// not have the backend's key.
func TestKeyDoesNotFollowARedirect(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]string{}
	note := func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.Host+r.URL.Path] = r.Header.Get("Authorization")
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note(r)
		_, _ = w.Write([]byte("vllm:num_requests_running 1\n"))
	}))
	defer other.Close()
	own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note(r)
		switch r.URL.Path {
		case "/metrics":
			http.Redirect(w, r, "/here", http.StatusFound)
		case "/here":
			http.Redirect(w, r, other.URL+"/stolen", http.StatusTemporaryRedirect)
		}
	}))
	defer own.Close()
	u, err := url.Parse(own.URL)
	if err != nil {
		t.Fatal(err)
	}
	page := *u
	page.Path = "/metrics"
	s := newSensors(&config.Config{}, nil)
	defer s.close()
	b := &config.Backend{Name: "a", URL: u, APIKey: "sk-backend", EngineURL: &page}
	if _, err := telemetry.NewEngineSampler(b.EngineURL, s.keyed(b)).Sample(t.Context()); err != nil {
		t.Fatal(err)
	}
	host, stranger := u.Host, other.Listener.Addr().String()
	if seen[host+"/metrics"] != "Bearer sk-backend" || seen[host+"/here"] != "Bearer sk-backend" {
		t.Errorf("the backend itself saw %v", seen)
	}
	if got, asked := seen[stranger+"/stolen"]; !asked || got != "" {
		t.Errorf("the other server was asked %v and saw %q", asked, got)
	}
}

// A change of the configuration keeps the feeds that are still needed and reads them at the new
// interval. It ends the other feeds once the backends that used them are gone.
func TestFeedsFollowAChange(t *testing.T) {
	var asked [2]atomic.Int32
	var pages [2]*url.URL
	for i := range asked {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked[i].Add(1)
			_, _ = w.Write([]byte("vllm:num_requests_running 1\n"))
		}))
		defer s.Close()
		var err error
		if pages[i], err = url.Parse(s.URL + "/metrics"); err != nil {
			t.Fatal(err)
		}
	}
	cfg := &config.Config{Telemetry: config.Telemetry{Every: 20 * time.Millisecond, StaleAfter: time.Second}}
	s := newSensors(cfg, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	defer func() { cancel(); s.close() }()
	plan := func(key config.Secret, pages ...*url.URL) (*reading, []*telemetry.Feed) {
		t.Helper()
		r := s.plan(cfg)
		for _, page := range pages {
			if err := r.bind(&config.Backend{Name: page.Host, URL: page, APIKey: key, EngineURL: page}, new(gpu.BackendConfig)); err != nil {
				t.Fatal(err)
			}
		}
		return r, r.list()
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	first, feeds := plan("", pages[0])
	s.use(first)
	s.run(ctx)
	until("the feed reads", func() bool { return asked[0].Load() > 2 })
	cfg.Telemetry.Every = 5 * time.Millisecond
	second, now := plan("", pages[0], pages[1])
	if before := s.use(second); before != first || !slices.Contains(now, feeds[0]) || len(now) != 2 || feeds[0].Every() != cfg.Telemetry.Every {
		t.Errorf("a feed that is needed on is another one, or reads every %v", feeds[0].Every())
	}
	s.retire(first)
	until("both read", func() bool { return asked[1].Load() > 2 })
	third, now := plan("another key", pages[1])
	s.use(third)
	if slices.Contains(now, second.list()[0]) || slices.Contains(now, second.list()[1]) {
		t.Error("a feed reads on with a former key")
	}
	s.retire(second)
	seen := asked[1].Load()
	until("the feed with the new key reads", func() bool { return asked[1].Load() > seen+5 })
	gone := asked[0].Load()
	until("it reads on", func() bool { return asked[1].Load() > seen+15 })
	if got := asked[0].Load(); got > gone+1 {
		t.Errorf("a feed that nothing needs was read %d times more", got-gone)
	}
}
