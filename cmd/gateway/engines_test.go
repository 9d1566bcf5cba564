package main

import (
	"slices"
	"testing"

	"sluice/internal/config"
	"sluice/metering/chat"
)

// The configuration accepts the engines that the meter knows, and no other.
func TestConfigurationKnowsEveryEngine(t *testing.T) {
	var known []string
	for _, e := range chat.Engines() {
		known = append(known, string(e))
	}
	if !slices.Equal(known, config.EngineNames) {
		t.Errorf("the configuration accepts the engines %q, the meter knows %q", config.EngineNames, known)
	}
}
