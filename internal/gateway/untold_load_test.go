package gateway_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/pricing"
)

// An engine whose page does not say how many requests run is not idle: the number is
// not known, the operator reads why, and the load is no fresh one for the price.
func TestRunningThatAnEngineDoesNotTell(t *testing.T) {
	var page atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(page.Load().(string))) }))
	t.Cleanup(s.Close)
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "engine", Sampler: telemetry.NewEngineSampler(at, nil)})
	r := newRig(t, func(s *setup) { s.backend = func(b *gpuBackend) { b.Engine = feed } })
	seen := func() (status struct {
		Load struct {
			Running *float64
			Waiting float64
			Stale   bool
		}
		Telemetry string `json:"telemetry_error"`
	}) {
		var all struct{ Backends []json.RawMessage }
		if err := json.Unmarshal(r.ask("GET", "/admin/backends", adminToken).body, &all); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(all.Backends[0], &status); err != nil {
			t.Fatal(err)
		}
		return status
	}
	for name, running := range map[string]string{
		"NaN": "vllm:num_requests_running NaN\n", "negative": "vllm:num_requests_running -3\n", "missing": "",
		"no number": "vllm:num_requests_running ERROR\n", "absurd": "vllm:num_requests_running 1e300\n",
	} {
		page.Store(running + "vllm:num_requests_waiting 2\n")
		feed.Poll(t.Context())
		if s := seen(); s.Load.Running != nil || !s.Load.Stale || s.Load.Waiting != 2 || !strings.Contains(s.Telemetry, "running") {
			t.Errorf("%s: the operator sees %+v", name, s)
		}
		if l := poolLoad(r); !l.Stale || l.Waiting != 2 {
			t.Errorf("%s: the price follows %+v", name, l)
		}
	}
	page.Store("vllm:num_requests_running 4\nvllm:num_requests_waiting NaN\n")
	feed.Poll(t.Context())
	if s := seen(); s.Load.Running == nil || *s.Load.Running != 4 || s.Load.Stale || s.Telemetry != "" {
		t.Errorf("the operator sees %+v", s)
	}
}

// poolLoad is what the price of the model follows.
func poolLoad(r *rig) pricing.Load { return r.fleet.Pool(testModel).Load(time.Now()) }
