package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/internal/config"
)

// A backend's metrics page that redirects elsewhere must not take the backend's
// key along.
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
