package config

import (
	"slices"
	"strings"

	"sluice.example/sluice/metering/format"
)

// preset fills in what is known of the engine that the owner names: where it is asked
// for its health and its load. What the file says stands above it. The rest of what is
// known of an engine depends on the request, see format.Setting.
func (c *checker) preset(b *Backend, at string) {
	e := format.Engine(b.Engine.Name)
	if !slices.Contains(format.Engines(), e) { // checkEngine says so
		return
	}
	p := format.ProfileOf(e)
	if c.lines[at+".health.path"] == 0 {
		b.Health.Path = p.HealthPath
	}
	if c.lines[at+".engine.metrics"] == 0 && p.MetricsPath != "" && b.URL != nil {
		b.Engine.Metrics, b.Engine.Preset = strings.TrimRight(b.URL.Path, "/")+p.MetricsPath, true
	}
}
