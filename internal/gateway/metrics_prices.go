package gateway

import (
	"math"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/pricing"
)

// metric sends one value. labels has names and values in turn.
type metric = func(name, help string, value float64, labels ...string)

// collectPrices sends every price, and the reasons for it.
func (g *Gateway) collectPrices(gauge, counter metric) {
	for _, name := range g.catalog().modelNames() {
		e, ok := g.cfg.Board.Current(name)
		if !ok {
			continue
		}
		gauge("price_epoch", "Id of the price in force.", float64(e.ID), "model", name)
		gauge("price_multiplier", "Multiplier of the price in force.", e.Multiplier, "model", name)
		gauge("price_input_msat_per_mtok", "Price of a million prompt tokens.", float64(e.Rates[pricing.InputTokens]), "model", name)
		gauge("price_output_msat_per_mtok", "Price of a million completion tokens.", float64(e.Rates[pricing.OutputTokens]), "model", name)
		gauge("price_gpu_second_msat", "Price of a second of GPU time.", float64(e.Rates[pricing.GPUMicros]), "model", name)
		s, ok := g.cfg.Board.Standing(name)
		if !ok {
			continue
		}
		gauge("price_signal", "Smoothed pressure on the model's pool that the price follows: 1 is full.", s.Signal, "model", name)
		gauge("price_pressure", "Pressure as last read.", s.Pressure, "model", name)
		gauge("price_signal_fresh", "Whether the pressure is fresh.", boolean(s.Fresh), "model", name)
		gauge("price_bound", "1 for what bounds the price now.", 1, "model", name, "bound_by", s.BoundBy, "policy", s.Policy)
		gauge("price_fixed", "Multiplier that the operator fixed, 0 without one.", s.Fixed, "model", name)
		gauge("price_energy_floor", "Lowest multiplier that pays for electricity, 0 when not known.", s.EnergyFloor, "model", name)
		gauge("price_leader", "Whether this process decides the price.", boolean(s.Leads), "model", name)
		counter("price_hook_failures_total", "Questions that the operator's price hook did not answer.", float64(s.HookFailures), "model", name)
		if s.Shadow != nil {
			gauge("price_shadow_multiplier", "Multiplier that the shadow policy would charge.", s.Shadow.Multiplier, "model", name, "policy", s.Shadow.Policy)
		}
	}
}

// collectLoad sends the load that the prices follow: of pools, engines and GPUs, and how well the
// load can be read.
func (g *Gateway) collectLoad(gauge, counter metric) {
	known := func(name, help string, value float64, labels ...string) {
		if !math.IsNaN(value) {
			gauge(name, help, value, labels...)
		}
	}
	for _, p := range g.cfg.Fleet.Pools() {
		gauge("load_running", "Requests running on the pool's backends, by the engines and this gateway.", p.Load.Running, "model", p.Model)
		gauge("load_waiting", "Requests waiting there and in the gateway's queue.", p.Load.Waiting, "model", p.Model)
		gauge("load_capacity", "Requests that the healthy backends run at once.", p.Load.Capacity, "model", p.Model)
		gauge("load_stale", "Whether telemetry is configured and nothing of it is fresh.", boolean(p.Load.Stale), "model", p.Model)
		known("load_kv_cache", "Use of the fullest KV cache, 0 to 1.", p.Load.KV, "model", p.Model)
		known("load_gpu_utilization", "Mean utilization of the pool's GPUs, 0 to 1.", p.Load.Utilization, "model", p.Model)
		known("load_sm_utilization", "Mean SM utilization of the pool's GPUs, 0 to 1.", p.Load.SM, "model", p.Model)
		known("load_energy_joules", "Energy consumed for the pool.", p.Load.Energy, "model", p.Model)
	}
	for _, b := range g.cfg.Fleet.Status() {
		for i := range b.GPUs {
			collectGPU(b.Name, &b.GPUs[i], known, counter)
		}
	}
	for _, f := range g.catalog().Feeds {
		s := f.Stats()
		counter("telemetry_samples_total", "Readings of load.", float64(s.Samples), "feed", f.Name())
		counter("telemetry_failures_total", "Readings that failed.", float64(s.Failures), "feed", f.Name())
		counter("telemetry_timeouts_total", "Readings that hung.", float64(s.Timeouts), "feed", f.Name())
		counter("telemetry_resets_total", "Energy counters that began again.", float64(s.Resets), "feed", f.Name())
		counter("telemetry_vanished_total", "GPUs that disappeared.", float64(s.Vanished), "feed", f.Name())
		for field, n := range s.Refused {
			counter("telemetry_refused_total", "Values that cannot be true and were not used.", float64(n), "feed", f.Name(), "field", field)
		}
	}
}

func collectGPU(backend string, s *gpu.GPUStatus, known, counter metric) {
	labels := []string{"backend", backend, "gpu", s.Name}
	known("gpu_fresh", "Whether the GPU's reading is fresh.", boolean(s.Fresh), labels...)
	counter("gpu_busy_seconds_total", "Time that the GPU was busy.", s.Busy, labels...)
	counter("gpu_time_fallback_seconds_total", "Time in which nothing was known of the GPU's work, and the clock was shared out among requests instead.", s.Fallback, labels...)
	known("gpu_time_known", "Whether the GPU's work is known now.", boolean(s.Source == "measured"), labels...)
	counter("gpu_shared_seconds_total", "Part of it that was shared out among requests.", s.Shared, labels...)
	if d := s.Device; d != nil {
		known("gpu_utilization", "Share of time in which any kernel ran, 0 to 1.", d.Utilization, labels...)
		known("gpu_sm_utilization", "Share of SMs at work, 0 to 1.", d.SM, labels...)
		known("gpu_power_watts", "Power.", d.Power, labels...)
		known("gpu_temperature_celsius", "Temperature.", d.Temperature, labels...)
		known("gpu_memory_used_bytes", "Memory in use.", float64(d.MemoryUsed), labels...)
	}
}
