package telemetry

import (
	"context"
	"errors"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrNoExporter reports a metrics page that holds no metric with a name of DCGM.
var ErrNoExporter = errors.New("the metrics page has no DCGM_FI_… metric with a UUID label: is it DCGM-exporter's, or that of gateway gpu-exporter?")

// ErrNothingFresh reports that gateway gpu-exporter cannot read its GPUs now.
var ErrNothingFresh = errors.New("the exporter has no fresh reading of its GPUs: its log says why")

// exporterAge is the metric in which gateway gpu-exporter says how old its reading is, in seconds.
// DCGM-exporter has no such metric.
const exporterAge = "sluice_gpu_reading_age_seconds"

// blank says whether v is one of the numbers by which DCGM says that it has no value. These are 2^31-16
// for 32-bit integers, 2^47 for floats and 2^63-16 for 64-bit integers, each also +1…+3 for the reason.
// (As a float64, 2^63-16 and its successors are 2^63.)
func blank(v float64) bool {
	return v >= 1<<31-16 && v <= 1<<31-13 || v >= 1<<47 && v <= 1<<47+3 || v == 1<<63
}

// dcgmField puts the value of one of DCGM's fields into a device. The units are those that
// DCGM-exporter documents: %, MiB, W, °C, mJ, and 0..1 for profiling fields.
type dcgmField func(d *dcgmDevice, v float64)

func dcgmFields() map[string]dcgmField {
	percent := func(get func(*dcgmDevice) *float64) dcgmField {
		return func(d *dcgmDevice, v float64) { *get(d) = v / 100 }
	}
	plain := func(get func(*dcgmDevice) *float64) dcgmField {
		return func(d *dcgmDevice, v float64) { *get(d) = v }
	}
	throttle := func(d *dcgmDevice, v float64) {
		if v >= 0 && v < 1<<32 {
			d.Throttle = ThrottleReasons(uint64(v))
		}
	}
	return map[string]dcgmField{
		"DCGM_FI_DEV_GPU_UTIL":                 percent(func(d *dcgmDevice) *float64 { return &d.Utilization }),
		"DCGM_FI_DEV_MEM_COPY_UTIL":            percent(func(d *dcgmDevice) *float64 { return &d.MemoryUtilization }),
		"DCGM_FI_PROF_GR_ENGINE_ACTIVE":        plain(func(d *dcgmDevice) *float64 { return &d.engineActive }),
		"DCGM_FI_PROF_SM_ACTIVE":               plain(func(d *dcgmDevice) *float64 { return &d.SM }),
		"DCGM_FI_PROF_SM_OCCUPANCY":            plain(func(d *dcgmDevice) *float64 { return &d.Occupancy }),
		"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE":      plain(func(d *dcgmDevice) *float64 { return &d.Tensor }),
		"DCGM_FI_PROF_DRAM_ACTIVE":             plain(func(d *dcgmDevice) *float64 { return &d.DRAM }),
		"DCGM_FI_DEV_FB_USED":                  plain(func(d *dcgmDevice) *float64 { return &d.used }),
		"DCGM_FI_DEV_FB_FREE":                  plain(func(d *dcgmDevice) *float64 { return &d.free }),
		"DCGM_FI_DEV_FB_RESERVED":              plain(func(d *dcgmDevice) *float64 { return &d.reserved }),
		"DCGM_FI_DEV_FB_TOTAL":                 plain(func(d *dcgmDevice) *float64 { return &d.total }),
		"DCGM_FI_DEV_POWER_USAGE":              plain(func(d *dcgmDevice) *float64 { return &d.Power }),
		"DCGM_FI_DEV_POWER_MGMT_LIMIT":         plain(func(d *dcgmDevice) *float64 { return &d.PowerLimit }),
		"DCGM_FI_DEV_ENFORCED_POWER_LIMIT":     plain(func(d *dcgmDevice) *float64 { return &d.enforcedLimit }),
		"DCGM_FI_DEV_GPU_TEMP":                 plain(func(d *dcgmDevice) *float64 { return &d.Temperature }),
		"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": func(d *dcgmDevice, v float64) { d.Energy = v / 1000 },
		"DCGM_FI_DEV_ECC_SBE_VOL_TOTAL":        plain(func(d *dcgmDevice) *float64 { return &d.CorrectedECC }),
		"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL":        plain(func(d *dcgmDevice) *float64 { return &d.UncorrectedECC }),
		"DCGM_FI_DEV_XID_ERRORS":               plain(func(d *dcgmDevice) *float64 { return &d.Xid }),
		"DCGM_FI_DEV_CLOCK_THROTTLE_REASONS":   throttle,
		"DCGM_FI_DEV_CLOCKS_EVENT_REASONS":     throttle,
	}
}

// ThrottleReasons returns the names of the bits of NVML's clocks-event reasons (formerly throttle
// reasons), which DCGM reports too. It leaves out the bit of an idle GPU, because the clocks of an idle
// GPU are low, but not throttled.
func ThrottleReasons(mask uint64) []string {
	names := []string{1: "applications_clocks_setting", 2: "sw_power_cap", 3: "hw_slowdown", 4: "sync_boost",
		5: "sw_thermal_slowdown", 6: "hw_thermal_slowdown", 7: "hw_power_brake_slowdown", 8: "display_clock_setting"}
	var reasons []string
	for bit, name := range names {
		if name != "" && mask&(1<<bit) != 0 {
			reasons = append(reasons, name)
		}
	}
	return reasons
}

// dcgmDevice is a device while its lines are gathered.
type dcgmDevice struct {
	Device
	engineActive, enforcedLimit float64
	used, free, reserved, total float64 // MiB

	lines map[string][]sample // by metric
	ofPod bool                // the labels are those of a pod's series
}

// ExporterSampler reads the GPUs of another host through an exporter.
type ExporterSampler struct {
	scraper
	fields map[string]dcgmField
}

// NewExporterSampler returns a sampler that reads the metrics page of DCGM-exporter or of gateway
// gpu-exporter. A URL without a path means /metrics. A nil client means an http.Client without
// settings.
func NewExporterSampler(u *url.URL, client *http.Client) *ExporterSampler {
	s := &ExporterSampler{fields: dcgmFields()}
	wanted := make(map[string]bool, len(s.fields))
	for name := range s.fields {
		wanted[name] = true
	}
	wanted[exporterAge] = true
	s.scraper = newScraper(u, client, wanted)
	return s
}

// Sample implements Sampler.
func (s *ExporterSampler) Sample(ctx context.Context) (Reading, error) {
	page, err := s.scrape(ctx)
	if err != nil {
		return Reading{}, err
	}
	return s.read(page)
}

func (s *ExporterSampler) read(page *scraped) (Reading, error) {
	r := Reading{Age: readingAge(page.series[exporterAge])}
	delete(page.series, exporterAge)
	for name, lines := range page.broken {
		for range lines {
			r.Refused = append(r.Refused, fieldName(name))
		}
	}
	devices := map[string]*dcgmDevice{}
	for _, name := range slices.Sorted(maps.Keys(page.series)) {
		for _, one := range page.series[name] {
			uuid := deviceOf(one.labels)
			if uuid == "" {
				r.Refused = append(r.Refused, "uuid")
				continue
			}
			d := devices[uuid]
			if d == nil || d.ofPod && !ofPod(one.labels) {
				d = newDCGMDevice(uuid, one.labels, d)
				devices[uuid] = d
			}
			if math.IsNaN(one.value) || math.IsInf(one.value, 0) {
				r.Refused = append(r.Refused, fieldName(name))
				one.value = math.NaN()
			}
			d.lines[name] = append(d.lines[name], one)
		}
	}
	switch {
	case len(devices) == 0 && r.Age > 0:
		return Reading{}, ErrNothingFresh
	case len(devices) == 0:
		return Reading{}, page.without(ErrNoExporter)
	}
	parents := map[string]bool{}
	for _, d := range devices {
		d.resolve(s.fields)
		parents[d.Parent] = parents[d.Parent] || d.MIG
	}
	for _, d := range devices {
		r.Devices = append(r.Devices, d.finish(parents[d.UUID]))
	}
	slices.SortFunc(r.Devices, func(a, b Device) int {
		if a.Index != b.Index {
			return a.Index - b.Index
		}
		return strings.Compare(a.UUID, b.UUID)
	})
	return r, nil
}

// fieldName returns the name under which a refused metric is counted.
func fieldName(metric string) string {
	return strings.ToLower(strings.TrimPrefix(metric, "DCGM_FI_"))
}

// ofPod says whether a series is about one pod's use of a device. If pods share devices, DCGM-exporter
// writes a series for each pod, after the series of the device itself.
func ofPod(l labels) bool {
	return l.get("pod") != "" || l.get("pod_name") != "" || l.get("exported_pod") != ""
}

// resolve makes one value of all series that a device has of a metric. If the device has series of its
// own, these count, otherwise those of its pods together. If one series has no value, the result is not
// known, because the other series alone would tell too little.
func (d *dcgmDevice) resolve(fields map[string]dcgmField) {
	for name, lines := range d.lines {
		own := slices.DeleteFunc(slices.Clone(lines), func(s sample) bool { return ofPod(s.labels) })
		join := joinOwn(name)
		if len(own) == 0 {
			own, join = lines, joinPods(name)
		}
		value := own[0].value
		for _, s := range own[1:] {
			if blank(s.value) || math.IsNaN(s.value) {
				value = math.NaN()
			} else if s.value != value && !blank(value) { // an equal value is a repetition
				value = join(value, s.value)
			}
		}
		if !math.IsNaN(value) && !blank(value) {
			fields[name](d, value)
		}
	}
}

// joinOwn returns how to join several series of a device itself, for example those of two compute
// instances of one GPU instance. The result is the busiest, because it shows how long the instance
// works.
func joinOwn(metric string) func(a, b float64) float64 {
	if metric == "DCGM_FI_DEV_FB_FREE" {
		return func(a, b float64) float64 { return min(a, b) }
	}
	return func(a, b float64) float64 { return max(a, b) }
}

// joinPods returns how to join the series of several pods. Shares of a device's time add up, and so
// does memory. Other metrics are about the whole device, and each pod repeats them.
func joinPods(metric string) func(a, b float64) float64 {
	most := map[string]float64{
		"DCGM_FI_DEV_GPU_UTIL": 100, "DCGM_FI_DEV_MEM_COPY_UTIL": 100, "DCGM_FI_PROF_GR_ENGINE_ACTIVE": 1, "DCGM_FI_PROF_SM_ACTIVE": 1,
		"DCGM_FI_PROF_SM_OCCUPANCY": 1, "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 1, "DCGM_FI_PROF_DRAM_ACTIVE": 1, "DCGM_FI_DEV_FB_USED": math.Inf(1),
	}[metric]
	if most == 0 {
		return joinOwn(metric)
	}
	return func(a, b float64) float64 {
		if a > most || b > most {
			return max(a, b) // an impossible value stays impossible
		}
		return min(a+b, most)
	}
}

// readingAge returns how old an exporter says that its reading is. Zero means that the exporter says
// nothing, or nothing possible.
func readingAge(series []sample) time.Duration {
	if len(series) == 0 || !(series[0].value > 0) {
		return 0
	}
	return time.Duration(min(series[0].value, maxAge) * float64(time.Second))
}

// deviceOf returns the name of the device to which a series belongs. DCGM-exporter gives a MIG instance
// the UUID of its GPU, and marks the instance by the label GPU_I_ID. In that case the name is
// "<UUID>/<GPU_I_ID>".
func deviceOf(l labels) string {
	uuid := l.get("UUID")
	if uuid == "" {
		uuid = l.get("uuid")
	}
	if id := l.get("GPU_I_ID"); uuid != "" && id != "" && !strings.HasPrefix(uuid, "MIG-") {
		uuid += "/" + id
	}
	return uuid
}

// newDCGMDevice makes a device from the labels of one of its series. If before is not nil, the new
// device keeps the lines of before.
func newDCGMDevice(uuid string, l labels, before *dcgmDevice) *dcgmDevice {
	n := math.NaN()
	d := &dcgmDevice{Device: NewDevice(uuid), engineActive: n, enforcedLimit: n, used: n, free: n, reserved: n, total: n,
		lines: map[string][]sample{}, ofPod: ofPod(l)}
	if before != nil {
		d.lines = before.lines
	}
	d.Labels, d.Name = l.all(), l.get("modelName")
	if i, err := strconv.Atoi(l.get("gpu")); err == nil && i >= 0 {
		d.Index = i
	}
	if parent, _, mig := strings.Cut(uuid, "/"); mig {
		d.MIG, d.Parent = true, parent
	} else if strings.HasPrefix(uuid, "MIG-") {
		d.MIG, d.Parent = true, l.get("GPU_UUID") // gateway gpu-exporter has this label
	}
	return d
}

// finish computes the values that come from several metrics. split means that the page also holds MIG
// instances of the device.
func (d *dcgmDevice) finish(split bool) Device {
	if d.MIG || split {
		// The driver does not know how busy a divided GPU is. The page has a value all the same,
		// usually 0, but that value is not a reading.
		d.Utilization, d.MemoryUtilization = math.NaN(), math.NaN()
	}
	if d.MIG {
		// The energy and power are those of the whole GPU, which the page repeats for each instance.
		// Added up they would be counted several times.
		d.Energy, d.Power, d.PowerLimit, d.enforcedLimit = math.NaN(), math.NaN(), math.NaN(), math.NaN()
	}
	// Utilization is the share of time in which any engine was active. MIG instances have only this
	// metric.
	if math.IsNaN(d.Utilization) {
		d.Utilization = d.engineActive
	}
	if !math.IsNaN(d.enforcedLimit) {
		d.PowerLimit = d.enforcedLimit
	}
	if math.IsNaN(d.total) {
		d.total = d.used + d.free
		if !math.IsNaN(d.reserved) {
			d.total += d.reserved
		}
	}
	d.MemoryUsed, d.MemoryTotal = mebibytes(d.used), mebibytes(d.total)
	return d.Device
}

// mebibytes returns v MiB in bytes, or -1 if v is not known. An impossible value stays impossible, so
// that the feed counts it.
func mebibytes(v float64) int64 {
	if math.IsNaN(v) {
		return -1
	}
	return int64(max(-2, min(v*(1<<20), 1<<62)))
}
