package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/config"
)

// People and tools read durations, so no format writes a duration as a number without its unit.
func TestLogWritesDurationsWithTheirUnit(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		log := newLogger(env{stderr: &out}, config.Log{Format: format}, new(slog.LevelVar))
		log.Info("request", "took", 1500*time.Millisecond, "group", map[string]int{})
		log.WithGroup("g").With("at_most", 2*time.Minute).Info("x")
		if s := out.String(); !strings.Contains(s, "1.5s") || !strings.Contains(s, "2m0s") || strings.Contains(s, "1500000000") || strings.Contains(s, "120000000000") {
			t.Errorf("%s: %s", format, s)
		}
	}
}

// A message that repeats thousands of times per second does not fill the disk.
func TestLogLimitsRepetitions(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(env{stderr: &out}, config.Log{Format: "json"}, new(slog.LevelVar))
	for range 10_000 {
		log.Warn("request failed", "backend", "gpu-1")
	}
	if n := strings.Count(out.String(), "\n"); n > 10 {
		t.Errorf("%d lines of 10,000", n)
	}
}
