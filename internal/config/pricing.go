package config

import (
	"net/url"
	"slices"
	"strconv"
	"time"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// Pricing says how a model's price follows the load. In the file the keys of pricing.Params are beside
// the keys below.
type Pricing struct {
	pricing.Params
	Energy Energy    `yaml:"energy"`
	Hook   PriceHook `yaml:"hook"`
	Shadow *Shadow   `yaml:"shadow"` // nil means that there is no shadow policy
}

// Shadow is a policy that decides beside the live policy, without effect on prices.
type Shadow struct{ pricing.Params }

// Energy is what electricity costs. Zero means that the cost of energy sets no floor for the price.
type Energy struct {
	SatPerKWh float64 `yaml:"sat_per_kwh"`
	Overhead  float64 `yaml:"overhead"` // factor from the GPUs' joules to the joules on the bill
}

// PriceHook is the operator's own program for a price. The operator sets either Command or URL.
type PriceHook struct {
	Command []string      `yaml:"command"`
	URL     *url.URL      `yaml:"url"`
	Timeout time.Duration `yaml:"timeout"`
}

// Telemetry says how GPUs and engines are read.
type Telemetry struct {
	NVMLLibrary string        `yaml:"nvml_library"` // path; empty means the system's library
	NVMLEvery   time.Duration `yaml:"nvml_every"`
	Every       time.Duration `yaml:"every"`       // for engines and exporters
	StaleAfter  time.Duration `yaml:"stale_after"` // an older reading is not used
}

// Engine is the kind of an inference server, and where the server shows its own load. In the file a
// single value in place of the mapping is the engine's name.
type Engine struct {
	Name    string `yaml:"name"`    // one of format.Engines; empty means that the gateway asks the server
	Metrics string `yaml:"metrics"` // a path at the server, or a URL; empty means that the server shows none

	Preset bool `yaml:"-"` // Metrics is the engine's usual path, which the server may lack
}

// Ask is what a backend's owner asks for a request.
type Ask struct {
	Input  Rate     `yaml:"input" unit:"Mtok"`
	Output Rate     `yaml:"output" unit:"Mtok"`
	URL    *url.URL `yaml:"url"` // where to ask for a rate card that overrides Input and Output; nil means nowhere
}

// Set says whether the backend asks anything.
func (a Ask) Set() bool { return a != Ask{} }

func defaultPricing() Pricing {
	return Pricing{Params: pricing.DefaultParams(), Energy: Energy{Overhead: 1}, Hook: PriceHook{Timeout: time.Second}}
}

func (s *Shadow) setDefaults() { s.Params = pricing.DefaultParams() }

// checkPricing checks how a model's price moves.
func (c *checker) checkPricing(m *Model, at string) {
	p, at := &m.Pricing, at+".pricing"
	c.checkParams(p.Params, m.Name, at)
	if p.Shadow != nil {
		c.checkParams(p.Shadow.Params, m.Name+" (shadow)", at+".shadow")
		if p.Shadow.Policy == pricing.PolicyHook {
			c.failAt(at+".shadow.policy", "a shadow cannot be a hook; there is one hook per model")
		}
	}
	c.checkHook(p, at)
	if p.Energy.SatPerKWh < 0 || p.Energy.SatPerKWh > 1e9 {
		c.failAt(at+".energy.sat_per_kwh", "want 0 to 1e9 sat, got %g", p.Energy.SatPerKWh)
	}
	if p.Energy.Overhead < 1 || p.Energy.Overhead > 100 {
		c.failAt(at+".energy.overhead", "want 1 to 100, got %g", p.Energy.Overhead)
	}
}

func (c *checker) checkParams(p pricing.Params, name, at string) {
	warnings, err := p.Validate()
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			c.failAt(at, "%v", e)
		}
	}
	for _, w := range warnings {
		c.cfg.Warnings = append(c.cfg.Warnings, "pricing of model "+name+": "+w)
	}
}

func (c *checker) checkHook(p *Pricing, at string) {
	h, wanted := p.Hook, p.Policy == pricing.PolicyHook
	switch both := len(h.Command) > 0 && h.URL != nil; {
	case both:
		c.failAt(at+".hook", "has both command and url, want one of them")
	case wanted && len(h.Command) == 0 && h.URL == nil:
		c.failAt(at+".hook", "the policy is hook, and there is none; give command or url")
	case !wanted && (len(h.Command) > 0 || h.URL != nil):
		c.failAt(at+".hook", "is not used; set policy: hook")
	}
	c.within(at+".hook.timeout", h.Timeout, 10*time.Millisecond, time.Minute)
}

// checkTelemetry checks how load is read, and makes paths absolute.
func (c *checker) checkTelemetry() {
	t := &c.cfg.Telemetry
	t.NVMLLibrary = c.path(t.NVMLLibrary)
	c.within("telemetry.nvml_every", t.NVMLEvery, 50*time.Millisecond, time.Minute)
	c.within("telemetry.every", t.Every, 100*time.Millisecond, time.Minute)
	c.within("telemetry.stale_after", t.StaleAfter, time.Second, time.Hour)
	if t.StaleAfter < 3*max(t.Every, t.NVMLEvery) {
		c.failAt("telemetry.stale_after", "want at least three times every and nvml_every")
	}
	for i := range c.cfg.Backends {
		b, at := &c.cfg.Backends[i], "backends["+strconv.Itoa(i)+"]"
		c.checkEngine(b, at)
		if b.Exporter != nil && len(b.GPUs) == 0 {
			c.failAt(at+".exporter", "names no GPUs; say in gpus which of its GPUs the server runs on")
		}
		seen := map[string]bool{}
		for j, g := range b.GPUs {
			if g == "" || seen[g] {
				c.failAt(at+".gpus["+strconv.Itoa(j)+"]", "want a UUID, an index or labels such as gpu=0, each once, got %q", clip(g))
			}
			seen[g] = true
		}
	}
}

// checkEngine checks the engine's name and turns the place of the metrics into a URL.
func (c *checker) checkEngine(b *Backend, at string) {
	if name := b.Engine.Name; name != "" && !slices.Contains(format.Engines(), format.Engine(name)) {
		var names []string
		for _, e := range format.Engines() {
			names = append(names, string(e))
		}
		c.failAt(at+".engine", "unknown engine %q; %s", clip(name), suggest(name, names))
	}
	m := b.Engine.Metrics
	switch {
	case m == "" || b.URL == nil:
		return
	case m[0] == '/':
		u := *b.URL
		if u.Scheme == "h2c" {
			u.Scheme = "http"
		}
		u.Path, u.RawPath = m, ""
		b.EngineURL = &u
		return
	}
	u, err := parseURL(m)
	if err != nil {
		c.failAt(at+".engine.metrics", "want a path such as /metrics, or a URL, got %q", clip(m))
		return
	}
	b.EngineURL = u
}
