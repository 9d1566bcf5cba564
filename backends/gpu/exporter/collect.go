package exporter

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.example/sluice/backends/gpu/telemetry"
)

// collector reads the feed at each scrape.
type collector struct{ cfg Config }

// Describe sends nothing, which makes the collector unchecked. It must be unchecked because series of
// MIG instances have more labels than series of GPUs.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// metric is a metric's name, its help, and how it is computed from a device. The result NaN means that
// the device does not report the value.
type metric struct {
	name, help string
	kind       prometheus.ValueType
	value      func(d *telemetry.Device) float64
}

const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue

// deviceMetrics are in DCGM's units: %, MiB, W, °C and mJ. Profiling ratios are 0..1.
var deviceMetrics = []metric{
	{"DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", gauge, func(d *telemetry.Device) float64 { return percent(d.Utilization) }},
	{"DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %).", gauge, func(d *telemetry.Device) float64 { return percent(d.MemoryUtilization) }},
	{"DCGM_FI_PROF_SM_ACTIVE", "Ratio of SMs that had work, mean over the sample.", gauge, func(d *telemetry.Device) float64 { return d.SM }},
	{"DCGM_FI_PROF_SM_OCCUPANCY", "Ratio of resident warps to the most possible.", gauge, func(d *telemetry.Device) float64 { return d.Occupancy }},
	{"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "Ratio of time in which the tensor pipes were active.", gauge, func(d *telemetry.Device) float64 { return d.Tensor }},
	{"DCGM_FI_PROF_DRAM_ACTIVE", "Ratio of the memory bandwidth that was used.", gauge, func(d *telemetry.Device) float64 { return d.DRAM }},
	{"DCGM_FI_DEV_FB_USED", "Memory used (in MiB).", gauge, func(d *telemetry.Device) float64 { return mebibytes(d.MemoryUsed) }},
	{"DCGM_FI_DEV_FB_FREE", "Memory not used (in MiB).", gauge, func(d *telemetry.Device) float64 { return mebibytes(d.MemoryTotal) - mebibytes(d.MemoryUsed) }},
	{"DCGM_FI_DEV_FB_TOTAL", "Memory there is (in MiB).", gauge, func(d *telemetry.Device) float64 { return mebibytes(d.MemoryTotal) }},
	{"DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", gauge, func(d *telemetry.Device) float64 { return d.Power }},
	{"DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "Power limit in force (in W).", gauge, func(d *telemetry.Device) float64 { return d.PowerLimit }},
	{"DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", gauge, func(d *telemetry.Device) float64 { return d.Temperature }},
	{"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Energy consumed since the driver was loaded (in mJ).", counter, func(d *telemetry.Device) float64 { return math.Round(1000 * d.Energy) }},
	{"DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "What slows the clocks down, as NVML's bits.", gauge, throttleBits},
	{"DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "Memory errors that were corrected, since the driver was loaded.", counter, func(d *telemetry.Device) float64 { return d.CorrectedECC }},
	{"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "Memory errors that were not corrected, since the driver was loaded.", counter, func(d *telemetry.Device) float64 { return d.UncorrectedECC }},
	{"DCGM_FI_DEV_XID_ERRORS", "Number of the last critical error (Xid), 0 where none was seen since the exporter began.", gauge, func(d *telemetry.Device) float64 { return d.Xid }},
	{"sluice_gpu_processes", "Processes with a compute context on the device.", gauge, processes},
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	now := c.cfg.Clock()
	s := c.cfg.Feed.Latest()
	up := 0.0
	if s.Fresh(now, c.cfg.StaleAfter) {
		up = 1
		for i := range s.Devices {
			d := &s.Devices[i]
			labels := c.labels(d)
			for _, m := range deviceMetrics {
				send(ch, m.name, m.help, m.kind, labels, m.value(d))
			}
			for _, reason := range d.Throttle {
				send(ch, "sluice_gpu_throttled", "1 for each reason that slows the clocks down.", gauge, with(labels, "reason", reason), 1)
			}
			if busy, ok := s.Busy(d.UUID, now); ok && !math.IsNaN(d.BusyShare()) {
				send(ch, "sluice_gpu_busy_seconds_total", "Seconds of work since the exporter began: the integral of utilization.", counter, labels, busy)
			}
		}
	}
	send(ch, "sluice_gpu_up", "Whether a fresh reading was there to serve.", gauge, nil, up)
	if !s.At.IsZero() {
		send(ch, "sluice_gpu_reading_age_seconds", "Age of the latest reading.", gauge, nil, max(0, now.Sub(s.At).Seconds()))
	}
	c.collectStats(ch)
}

func (c *collector) collectStats(ch chan<- prometheus.Metric) {
	st := c.cfg.Feed.Stats()
	for _, m := range []struct {
		name, help string
		value      uint64
	}{
		{"sluice_gpu_samples_total", "Samples that were read.", st.Samples},
		{"sluice_gpu_sample_failures_total", "Samples that ended with an error.", st.Failures},
		{"sluice_gpu_sample_timeouts_total", "Intervals in which the driver did not answer in time.", st.Timeouts},
		{"sluice_gpu_energy_resets_total", "Energy counters that began again, as after a driver reload.", st.Resets},
		{"sluice_gpu_vanished_total", "Devices that were there and then were not.", st.Vanished},
	} {
		send(ch, m.name, m.help, counter, nil, float64(m.value))
	}
	for _, field := range slices.Sorted(maps.Keys(st.Refused)) {
		send(ch, "sluice_gpu_refused_values_total", "Values that cannot be true, by field.", counter,
			prometheus.Labels{"field": field}, float64(st.Refused[field]))
	}
}

// send sends one series, unless value is NaN.
func send(ch chan<- prometheus.Metric, name, help string, kind prometheus.ValueType, labels prometheus.Labels, value float64) {
	if !math.IsNaN(value) {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, labels), kind, value)
	}
}

// labels returns the labels that DCGM-exporter uses. Invalid UTF-8 is replaced, because a driver's text
// may hold any bytes.
func (c *collector) labels(d *telemetry.Device) prometheus.Labels {
	text := func(s string) string { return strings.ToValidUTF8(s, "�") }
	labels := prometheus.Labels{"UUID": text(d.UUID), "gpu": strconv.Itoa(d.Index), "modelName": text(d.Name), "Hostname": text(c.cfg.Host)}
	if d.MIG {
		labels["GPU_UUID"] = text(d.Parent)
		if id, ok := d.Labels["GPU_I_ID"]; ok {
			labels["GPU_I_ID"] = text(id)
		}
	}
	return labels
}

func with(labels prometheus.Labels, name, value string) prometheus.Labels {
	labels = maps.Clone(labels)
	labels[name] = value
	return labels
}

// percent returns a ratio in %, rounded so that the multiplication leaves no rounding error.
func percent(ratio float64) float64 { return math.Round(1e6*ratio) / 1e4 }

// mebibytes returns n bytes in MiB, or NaN if n is not known.
func mebibytes(n int64) float64 {
	if n < 0 {
		return math.NaN()
	}
	return float64(n) / (1 << 20)
}

// throttleBits turns the names of reasons back into NVML's bits. It returns NaN for a MIG instance,
// because the clocks belong to the GPU.
func throttleBits(d *telemetry.Device) float64 {
	if d.MIG {
		return math.NaN()
	}
	var bits uint64
	for bit := uint64(1); bit < 1<<16; bit <<= 1 {
		for _, name := range telemetry.ThrottleReasons(bit) {
			if slices.Contains(d.Throttle, name) {
				bits |= bit
			}
		}
	}
	return float64(bits)
}

func processes(d *telemetry.Device) float64 {
	if d.Processes == nil {
		return math.NaN()
	}
	return float64(len(d.Processes))
}
