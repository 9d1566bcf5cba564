package config

import (
	"slices"
	"strings"

	"sluice.example/sluice/metering/format"
)

// preset fills in what is known of the engine that the owner names: the paths of its health check and
// its metrics. Values in the file take precedence. Other facts about an engine depend on the request:
// see format.Setting.
func (c *checker) preset(b *Backend, at string) {
	e := format.Engine(b.Engine.Name)
	if !slices.Contains(format.Engines(), e) { // checkEngine reports the error
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
