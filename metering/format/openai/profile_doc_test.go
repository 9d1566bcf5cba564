package openai_test

import (
	"os"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
)

// documented is the row of an engine in docs/protocol.md.
func documented(t *testing.T, p format.Profile) string {
	t.Helper()
	code := func(list []string, none string) string {
		if len(list) == 0 {
			return none
		}
		return "`" + strings.Join(list, "`, `") + "`"
	}
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	var paths []string
	for _, q := range parse(t, ask("")).CountPrompt(p, "m", format.Limits{}) {
		paths = append(paths, q.Path)
	}
	running, several, streams := "no", "all together", "no"
	switch {
	case p.ContinuousUsage:
		running = "`continuous_usage_stats`"
	case p.RunningTimings:
		running = "`timings_per_token`"
	}
	if p.UsagePerSequence {
		several = "one by one"
	}
	if p.OneCompletion {
		several = "makes one"
	}
	metrics := "no"
	if p.MetricsPath != "" {
		metrics = code([]string{p.MetricsPath}, "")
	}
	switch {
	case p.Streams && p.StreamsTools:
		streams = "yes"
	case p.Streams:
		streams = "not with tools"
	}
	return "| " + strings.Join([]string{"`" + string(p.Engine) + "`", code(p.Caps, ""), code(paths, "no"), running, several, streams, yes(p.StopsUnary), code([]string{p.HealthPath}, ""), metrics}, " | ") + " |"
}

// The table of engines in the documentation is the table of the code.
func TestDocumentedEnginesAreTheKnownOnes(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "## What is known of the engines\n")
	if !ok {
		t.Fatal("docs/protocol.md has no section on the engines")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var want []string
	for _, e := range format.Engines() {
		want = append(want, documented(t, format.ProfileOf(e)))
	}
	var got []string
	for line := range strings.SplitSeq(section, "\n") {
		if strings.HasPrefix(line, "| `") {
			got = append(got, line)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("docs/protocol.md says\n%s\nthe code does\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
