//go:build cgo && linux

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu/nvml/stub"
	"sluice.example/sluice/internal/config"
	"sluice.example/sluice/internal/lab/loopback"
)

// chain has everything between a GPU and the price that an operator sees: the stub library, the
// real binding, feeds, fleet, pricer and metrics. Model a runs on the first device, model b on the
// second.
type chain struct {
	t       *testing.T
	state   stub.State
	file    string // file that the stub reads
	devices []string
	feed    string                 // label of the gateway's feed
	read    func() (string, error) // the gateway's /metrics
	most    map[string]float64     // by model: the price that the model may no longer exceed
}

// chainConfig configures a gateway whose prices move quickly. The floor is below the rate card: an
// idle GPU lowers a price to 0.5, and stale values lead to 1.
const chainConfig = `
listen: %q
admin: {listen: %q}
store: sqlite:sluice.db
keys: [{id: k1, secret: "1111111111111111111111111111111111111111111111111111111111111111"}]
lightning: {grpc: "127.0.0.1:1", macaroon_base64: AgEDbG5kAgdleGFtcGxlAAAGIMhEFsLihPVi352mLzDfnjqZ4ov9eWWPYvvQPNRqBscI}
telemetry: {every: 100ms, nvml_every: 100ms, stale_after: 1s, nvml_library: %q}
services:
  - name: inference
    models:
      - name: a
        backends: [a]
        context_tokens: &context 4096
        max_completion_tokens: &completion 256
        prices: &prices {input: 1 sat/ktok}
        pricing: &pricing {policy: target, interval: 100ms, gain: 1, slew_up: 0.5, slew_down: 0.5, floor: 0.5, ceiling: 20, half_life: 500ms, stale_after: 10}
      - {name: b, backends: [b], context_tokens: *context, max_completion_tokens: *completion, prices: *prices, pricing: *pricing}
backends:
  - {name: a, url: "http://127.0.0.1:1", slots: 8, health: {path: ""}, gpus: [%s]%s}
  - {name: b, url: "http://127.0.0.1:1", slots: 8, health: {path: ""}, gpus: [%s]%s}
`

func newChain(t *testing.T, state stub.State, devices ...string) *chain {
	c := &chain{t: t, state: state, devices: devices, file: filepath.Join(t.TempDir(), "gpus"), most: map[string]float64{}}
	c.write()
	return c
}

// buildStub compiles a stub library without some functions.
func buildStub(t *testing.T, lacks ...string) string {
	t.Helper()
	library, err := stub.Build(t.Context(), t.TempDir(), lacks...)
	if err != nil {
		t.Fatal(err)
	}
	return library
}

// throughExporter runs gpu-exporter in a child process. The parts of serve in this process read the
// exporter. end stops the child and returns its log.
func throughExporter(t *testing.T, library string, state stub.State, devices ...string) (c *chain, end func() string) {
	t.Helper()
	c = newChain(t, state, devices...)
	page, stop := startExporter(t, library, stub.Env+"="+c.file)
	c.feed = page.String()
	from := ", exporter: " + strconv.Quote(c.feed)
	text := fmt.Sprintf(chainConfig, "127.0.0.1:0", "127.0.0.1:0", "", devices[0], from, devices[1], from)
	cfg, err := config.Parse([]byte(text), t.TempDir(), os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newServer(t.Context(), origin{first: cfg}, slog.New(slog.DiscardHandler), new(slog.LevelVar))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s.fleet.Start(ctx)
	s.sensors.run(ctx)
	var running sync.WaitGroup
	running.Go(func() { s.pricer.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	admin := s.gateway.AdminHandler()
	c.read = func() (string, error) {
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return w.Body.String(), nil
	}
	return c, func() string {
		log, err := stop()
		if err != nil {
			t.Errorf("the exporter ended with %v:\n%s", err, log)
		}
		return log
	}
}

// onThisHost runs the whole gateway in a child process that reads the GPUs itself.
func onThisHost(t *testing.T, library string, state stub.State, devices ...string) *chain {
	t.Helper()
	c := newChain(t, state, devices...)
	c.feed = telemetryNVML
	admin := freeAddress(t)
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	text := fmt.Sprintf(chainConfig, "127.0.0.1:0", admin, library, devices[0], "", devices[1], "")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startSelf(t, filepath.Dir(path), []string{stub.Env + "=" + c.file}, "serve", "--config", path)
	t.Cleanup(func() {
		if err := p.Finish(os.Interrupt, time.Minute); err != nil || t.Failed() {
			t.Errorf("the gateway ended: %v; its log ends with:\n%s", err, p.Tail(25))
		}
	})
	client := &http.Client{Timeout: 5 * time.Second}
	c.read = func() (string, error) { return get(client, "http://"+admin+"/metrics") }
	return c
}

func get(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	return string(page), err
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := loopback.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// change changes what the stub reports from now on.
func (c *chain) change(alter func(*stub.State)) {
	c.t.Helper()
	alter(&c.state)
	c.write()
}

func (c *chain) write() {
	c.t.Helper()
	if err := c.state.Write(c.file); err != nil {
		c.t.Fatal(err)
	}
}

// mayNotRise makes the test fail when the model's price rises above price from now on.
func (c *chain) mayNotRise(model string, price float64) { c.most[model] = price }

func (c *chain) mayRise(model string) { delete(c.most, model) }

// until waits until holds returns true for the metrics.
func (c *chain) until(what string, holds func(shown) bool) shown {
	c.t.Helper()
	for deadline := time.Now().Add(25 * time.Second); ; time.Sleep(25 * time.Millisecond) {
		page, err := c.read()
		m := c.parse(page)
		for model, most := range c.most {
			if p := m.price(model); p > most+1e-9 {
				c.t.Fatalf("until %s: the price of %s rose from %g to %g", what, model, most, p)
			} else if p > 0 {
				c.most[model] = p
			}
		}
		if err == nil && holds(m) {
			return m
		}
		if time.Now().After(deadline) || c.t.Context().Err() != nil {
			c.t.Fatalf("until %s: %v\n%s", what, err, m)
		}
	}
}

// shown holds the values of /metrics, by name and labels.
type shown struct {
	values  map[string]float64
	devices []string
	feed    string
}

func (c *chain) parse(page string) shown {
	m := shown{values: map[string]float64{}, devices: c.devices, feed: c.feed}
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if at := strings.LastIndexByte(line, ' '); at > 0 && line[0] != '#' {
			if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
				m.values[line[:at]] = v
			}
		}
	}
	return m
}

func (m shown) String() string {
	var b strings.Builder
	for series, v := range m.values {
		for _, part := range []string{"sluice_price_", "sluice_gpu_", "sluice_load_", "sluice_telemetry_"} {
			if strings.HasPrefix(series, part) {
				fmt.Fprintln(&b, series, v)
			}
		}
	}
	return b.String()
}

// of returns a value of a model, or NaN when the metrics do not have it.
func (m shown) of(name, model string) float64 {
	return m.value("sluice_" + name + `{model="` + model + `"}`)
}

func (m shown) price(model string) float64 { return m.of("price_multiplier", model) }

// bound reports whether by is what limits the model's price.
func (m shown) bound(by, model string) bool {
	return m.value(`sluice_price_bound{bound_by="`+by+`",model="`+model+`",policy="target"}`) == 1
}

// gpu returns a value of the model's device, or NaN when the metrics do not have it.
func (m shown) gpu(name, model string) float64 {
	return m.value(`sluice_gpu_` + name + `{backend="` + model + `",gpu="` + m.devices[model[0]-'a'] + `"}`)
}

// count returns a counter of the feed. field is "" for a counter without that label.
func (m shown) count(name, field string) float64 {
	if field != "" {
		field = `,field="` + field + `"`
	}
	return m.value(`sluice_telemetry_` + name + `_total{feed="` + m.feed + `"` + field + `}`)
}

func (m shown) value(series string) float64 {
	if v, ok := m.values[series]; ok {
		return v
	}
	return math.NaN()
}
