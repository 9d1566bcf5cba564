//go:build cgo && linux

package main

import (
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu/nvml/stub"
)

// These constants describe the price in chainConfig.
const (
	floor, ceiling = 0.5, 20
	onTarget       = 78 // load in percent at which no price moves
)

// hopper returns a GPU that reports every value.
func hopper(uuid string) stub.GPU {
	return stub.GPU{Device: stub.Device{UUID: uuid, Name: "NVIDIA H100 80GB HBM3", Values: stub.Values{
		"utilization": 0, "sm": 0, "power": 90_000, "power_limit": 700_000, "temperature": 40, "energy": 5_000_000,
		"memory_total": 80 << 30, "memory_used": 1 << 30, "throttle": "0x4"}}}
}

func twoGPUs() stub.State { return stub.State{GPUs: []stub.GPU{hopper("GPU-a"), hopper("GPU-b")}} }

// busy sets both measures of a device's load to percent.
func busy(d stub.Device, percent float64) { d.Values["utilization"], d.Values["sm"] = percent, percent }

// middling moves the price of model a to a value between 2 and the ceiling, and then stops it
// there.
func (c *chain) middling() (price float64) {
	c.t.Helper()
	c.change(func(s *stub.State) { busy(s.GPUs[0].Device, 95) })
	c.until("a busy GPU raises the price", func(m shown) bool { return m.price("a") > 2 })
	c.change(func(s *stub.State) { busy(s.GPUs[0].Device, onTarget) })
	m := c.until("a GPU at the target holds the price", func(m shown) bool {
		return m.of("price_pressure", "a") == onTarget/100. && m.bound("none", "a")
	})
	if m.price("a") < 2 || m.price("a") >= ceiling {
		c.t.Fatalf("the price is %g", m.price("a"))
	}
	return m.price("a")
}

// The test covers the way from the driver's numbers to the price, without a request in flight. The
// price of a GPU follows the GPU's work, whichever program causes the work.
func TestPricesFollowGPUs(t *testing.T) {
	library := buildStub(t)
	var running sync.WaitGroup // all at the same time, because they wait more than they work
	for name, run := range map[string]func(*testing.T, string){
		"normal values": normalValues, "MIG": migInstances, "no GPM": noGPM, "missing symbols": missingSymbols, "a GPU is lost": lostGPU,
		"absurd readings": absurdReadings, "absurd readings at an exporter": absurdAtTheExporter, "the driver is reloaded": driverReload,
	} {
		running.Go(func() { t.Run(name, func(t *testing.T) { run(t, library) }) })
	}
	running.Wait()
}

func normalValues(t *testing.T, library string) {
	c, end := throughExporter(t, library, twoGPUs(), "GPU-a", "GPU-b")
	c.change(func(s *stub.State) {
		s.GPUs[0].Values["utilization"], s.GPUs[0].Values["sm"], s.GPUs[0].Values["power"] = 99, 95, 650_000
	})
	m := c.until("a busy GPU brings the price to the ceiling, an idle one to the floor", func(m shown) bool {
		return m.price("a") == ceiling && m.bound("ceiling", "a") && m.price("b") == floor && m.bound("floor", "b") && m.gpu("fresh", "a") == 1
	})
	for name, want := range map[string]float64{"fresh": 1, "utilization": 0.99, "sm_utilization": 0.95, "power_watts": 650,
		"temperature_celsius": 40, "memory_used_bytes": 1 << 30} {
		if got := m.gpu(name, "a"); got != want {
			t.Errorf("sluice_gpu_%s is %g, want %g", name, got, want)
		}
	}
	for name, want := range map[string]float64{"price_input_msat_per_mtok": ceiling * 1e6, "price_pressure": 0.95, "price_signal": 0.95,
		"price_signal_fresh": 1, "price_leader": 1, "load_sm_utilization": 0.95, "load_gpu_utilization": 0.99, "load_stale": 0, "load_capacity": 8} {
		if got := m.of(name, "a"); got != want {
			t.Errorf("sluice_%s is %g, want %g", name, got, want)
		}
	}
	if m.count("samples", "") < 5 || m.count("vanished", "") != 0 || m.count("resets", "") != 0 || !(m.gpu("busy_seconds_total", "a") > 0) {
		t.Errorf("the feed's counters:\n%s", m)
	}
	c.change(func(s *stub.State) { busy(s.GPUs[0].Device, 0) })
	c.until("an idle GPU brings the price down", func(m shown) bool { return m.price("a") == floor && m.gpu("sm_utilization", "a") == 0 })
	end()
}

func migInstances(t *testing.T, library string) {
	g := hopper("GPU-m")
	g.Values = stub.Values{"power": 300_000, "energy": 5000} // the driver reports no utilization
	g.Instances = []stub.Instance{{ID: 7, Device: stub.Device{UUID: "MIG-x", Values: stub.Values{"sm": 95}}},
		{ID: 9, Device: stub.Device{UUID: "MIG-y", Values: stub.Values{"sm": 5}}}}
	c, end := throughExporter(t, library, stub.State{GPUs: []stub.GPU{g}}, "MIG-x", "MIG-y")
	m := c.until("each instance drives its own price", func(m shown) bool { return m.price("a") == ceiling && m.price("b") == floor })
	if x, y := m.gpu("sm_utilization", "a"), m.gpu("sm_utilization", "b"); x != 0.95 || y != 0.05 || !math.IsNaN(m.gpu("utilization", "a")) || !math.IsNaN(m.gpu("power_watts", "a")) {
		t.Errorf("what the instances show:\n%s", m)
	}
	c.change(func(s *stub.State) {
		s.GPUs[0].Instances[0].Values["sm"], s.GPUs[0].Instances[1].Values["sm"] = 5, 95
	})
	c.until("they change places", func(m shown) bool { return m.price("a") == floor && m.price("b") == ceiling })
	end()
}

func noGPM(t *testing.T, library string) {
	state := twoGPUs()
	state.GPUs[0].NoGPM, state.GPUs[1].NoGPM = true, true
	state.GPUs[0].Values["utilization"] = 95
	state.GPUs[1].Values["sm"] = 95 // nobody can ask for this value
	c, end := throughExporter(t, library, state, "GPU-a", "GPU-b")
	m := c.until("utilization drives the price", func(m shown) bool { return m.price("a") == ceiling && m.price("b") == floor })
	if m.gpu("utilization", "a") != 0.95 || !math.IsNaN(m.gpu("sm_utilization", "a")) || m.of("price_pressure", "a") != 0.95 {
		t.Errorf("what the GPU shows:\n%s", m)
	}
	end()
}

// An old driver's library, or a future one's.
func missingSymbols(t *testing.T, _ string) {
	library := buildStub(t, "nvmlErrorString", "nvmlGpmSampleGet", "nvmlGpmMetricsGet", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage",
		"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetMigMode", "nvmlDeviceGetComputeRunningProcesses_v3")
	c, end := throughExporter(t, library, twoGPUs(), "GPU-a", "GPU-b")
	c.change(func(s *stub.State) { busy(s.GPUs[0].Device, 95) })
	m := c.until("what is there drives the price", func(m shown) bool {
		return m.price("a") == ceiling && m.price("b") == floor && m.gpu("fresh", "a") == 1
	})
	if m.gpu("utilization", "a") != 0.95 || m.gpu("temperature_celsius", "a") != 40 ||
		!math.IsNaN(m.gpu("sm_utilization", "a")) || !math.IsNaN(m.gpu("power_watts", "a")) || !math.IsNaN(m.of("load_energy_joules", "a")) {
		t.Errorf("what the GPU shows:\n%s", m)
	}
	c.change(func(s *stub.State) { busy(s.GPUs[0].Device, 0) })
	c.until("and brings it down", func(m shown) bool { return m.price("a") == floor })
	end()
}

func lostGPU(t *testing.T, library string) {
	c, end := throughExporter(t, library, twoGPUs(), "GPU-a", "GPU-b")
	stood := c.middling()
	c.mayNotRise("a", stood)
	c.change(func(s *stub.State) {
		s.GPUs[0].Lost = true
		busy(s.GPUs[0].Device, 95) // nobody can read this value
		busy(s.GPUs[1].Device, 95)
	})
	lostAt := time.Now()
	m := c.until("the GPU is gone", func(m shown) bool {
		return m.count("vanished", "") == 1 && m.gpu("fresh", "a") == 0 && m.gpu("fresh", "b") == 1
	})
	if !math.IsNaN(m.gpu("sm_utilization", "a")) || m.of("load_stale", "a") != 1 || m.of("load_stale", "b") != 0 {
		t.Errorf("the GPU is gone:\n%s", m)
	}
	c.until("the price sinks", func(m shown) bool { return m.price("a") < stood })
	if stands := time.Since(lostAt); stands < 500*time.Millisecond {
		t.Errorf("the price stood for %v, want for ten intervals, a second", stands)
	}
	m = c.until("it sinks to the rate card, and the price of the other GPU follows that", func(m shown) bool {
		return m.price("a") < 1.1 && m.bound("stale", "a") && m.of("price_signal_fresh", "a") == 0 && m.price("b") == ceiling
	})
	if m.price("a") < 1 {
		t.Errorf("a stale price sank below the rate card, to %g", m.price("a"))
	}
	c.mayRise("a")
	c.change(func(s *stub.State) { s.GPUs[0].Lost = false })
	m = c.until("the GPU is back, and the price follows it", func(m shown) bool { return m.price("a") > stood && m.gpu("fresh", "a") == 1 })
	if m.count("vanished", "") != 1 || m.gpu("sm_utilization", "a") != 0.95 {
		t.Errorf("the GPU is back:\n%s", m)
	}
	if log := end(); strings.Count(log, "a GPU is lost") != 1 || strings.Count(log, "a GPU is back") != 1 {
		t.Errorf("the exporter said:\n%s", log)
	}
}

// absurd makes the first GPU report impossible values.
func absurd(s *stub.State) {
	for key, value := range map[string]int{"utilization": 250, "sm": 900, "power": 1_000_000_000, "temperature": 4000} {
		s.GPUs[0].Values[key] = value
	}
}

var refusedFields = []string{"utilization", "sm", "power", "temperature"}

func absurdReadings(t *testing.T, library string) {
	c := onThisHost(t, library, twoGPUs(), "GPU-a", "GPU-b")
	c.mayNotRise("a", c.middling())
	c.change(absurd)
	m := c.until("they are refused and counted", func(m shown) bool {
		for _, field := range refusedFields {
			if !(m.count("refused", field) > 1) {
				return false
			}
		}
		return m.gpu("fresh", "a") == 1
	})
	for _, gauge := range []string{"utilization", "sm_utilization", "power_watts", "temperature_celsius"} {
		if v := m.gpu(gauge, "a"); !math.IsNaN(v) {
			t.Errorf("sluice_gpu_%s is %g", gauge, v)
		}
	}
	if m.gpu("memory_used_bytes", "a") != 1<<30 {
		t.Errorf("what can be true is not believed:\n%s", m)
	}
	c.until("the price sinks as without them", func(m shown) bool { return m.price("a") == floor })
	c.mayRise("a")
	c.change(func(s *stub.State) { s.GPUs[0] = hopper("GPU-a"); busy(s.GPUs[0].Device, 95) })
	c.until("believable ones raise it", func(m shown) bool { return m.price("a") == ceiling })
}

// The exporter itself refuses the impossible values, so the gateway does not see them.
func absurdAtTheExporter(t *testing.T, library string) {
	c, end := throughExporter(t, library, twoGPUs(), "GPU-a", "GPU-b")
	c.mayNotRise("a", c.middling())
	c.change(absurd)
	m := c.until("the price sinks", func(m shown) bool { return m.price("a") == floor && math.IsNaN(m.gpu("sm_utilization", "a")) })
	if m.gpu("memory_used_bytes", "a") != 1<<30 || !math.IsNaN(m.gpu("utilization", "a")) || !math.IsNaN(m.gpu("power_watts", "a")) {
		t.Errorf("what the GPU shows:\n%s", m)
	}
	page, err := get(http.DefaultClient, c.feed)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range refusedFields {
		if n := c.parse(page).value(`sluice_gpu_refused_values_total{field="` + field + `"}`); !(n > 0) {
			t.Errorf("the exporter refused %g values of %s", n, field)
		}
	}
	if log := end(); strings.Count(log, "cannot be true") != len(refusedFields) {
		t.Errorf("the exporter said:\n%s", log)
	}
}

func driverReload(t *testing.T, library string) {
	c, end := throughExporter(t, library, twoGPUs(), "GPU-a", "GPU-b")
	stood := c.middling()
	c.mayNotRise("a", stood)
	before := c.until("it works", func(m shown) bool { return m.gpu("fresh", "a") == 1 }).count("failures", "")
	const uninitialized, notLoaded = 1, 9
	c.change(func(s *stub.State) {
		s.Library, s.Init = uninitialized, notLoaded
		busy(s.GPUs[0].Device, 95)
	})
	c.until("the gateway has nothing fresh", func(m shown) bool {
		return m.gpu("fresh", "a") == 0 && m.gpu("fresh", "b") == 0 && m.of("load_stale", "a") == 1
	})
	c.until("failures show, and the price sinks", func(m shown) bool {
		return m.count("failures", "") > before && m.bound("stale", "a") && m.price("a") < stood && m.of("price_signal_fresh", "a") == 0
	})
	c.mayRise("a")
	c.change(func(s *stub.State) {
		s.Library, s.Init = 0, 0
		s.GPUs[0].Values["energy"] = 1000 // the counter begins again
	})
	m := c.until("the price follows again", func(m shown) bool { return m.price("a") > stood && m.price("b") == floor && m.gpu("fresh", "a") == 1 })
	if m.gpu("sm_utilization", "a") != 0.95 || m.count("resets", "") != 1 {
		t.Errorf("after the reload:\n%s", m)
	}
	if log := end(); strings.Count(log, "NVML cannot be read") != 1 || strings.Count(log, "NVML can be read again") != 1 {
		t.Errorf("the exporter said:\n%s", log)
	}
}
