package inference

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu/nvml/stub"
)

// values returns the simulated GPU's values with running sequences.
func (g *simulator) values(running int, after time.Duration) stub.Values {
	return g.state(g.at.Add(after), running, int64(300*running)).GPUs[0].Values
}

func TestSimulatedGPUFollowsTheLoad(t *testing.T) {
	s, err := New(Config{Slots: 128})
	if err != nil {
		t.Fatal(err)
	}
	g := &simulator{server: s, power: idlePower, at: s.started}
	idle, few, full := g.values(0, 0), g.values(4, 0), g.values(128, 0)
	if idle["utilization"] != 0.0 || idle["sm"] != 0.0 || idle["power"] != int64(90_000) {
		t.Errorf("idle: %v", idle)
	}
	// Utilization is nearly full long before the GPU is, so it is a poor measure of load.
	if few["utilization"].(float64) < 90 || few["sm"].(float64) > 10 {
		t.Errorf("four sequences: %v", few)
	}
	if full["utilization"] != 100.0 || full["sm"].(float64) < 80 || full["sm"].(float64) > 95 || full["power"].(int64) > full["power_limit"].(int64) {
		t.Errorf("all slots taken: %v", full)
	}
	if full["memory_used"].(int64) <= idle["memory_used"].(int64) || full["memory_used"].(int64) > full["memory_total"].(int64) {
		t.Errorf("memory: idle %v, full %v", idle["memory_used"], full["memory_used"])
	}
	before := g.joules
	g.values(0, 10*time.Second) // ten seconds at the power of the state before
	busy := g.joules - before
	g.values(0, 10*time.Second)
	if quiet := g.joules - before - busy; busy < 5000 || quiet < 899 || quiet > 901 {
		t.Errorf("ten seconds take %.0f J at full load and %.0f J idle", busy, quiet)
	}
}

func TestServeKeepsTheSimulatedGPU(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gpu.txt")
	_, url := serve(t, Config{TokensPerSecond: 20, SimulateGPU: path})
	resp := post(t, url+"/v1/chat/completions", request(`"stream":true,"ignore_eos":true`))
	defer resp.Body.Close()
	eventually(t, "the file shows one sequence at work", func() bool {
		text, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(text), "gpu "+SimulatedGPU+"\n") && strings.Contains(string(text), "\nutilization 49\n")
	})
}

func TestServeFailsWithoutAPlaceForTheSimulatedGPU(t *testing.T) {
	status := Main(t.Context(), []string{"--simulate-gpu", filepath.Join(t.TempDir(), "missing", "gpu.txt")}, new(strings.Builder), new(strings.Builder))
	if status != 1 {
		t.Errorf("status %d", status)
	}
}
