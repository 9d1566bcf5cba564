//go:build cgo && linux

package nvml

import (
	"math"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"sluice.example/sluice/backends/gpu/telemetry"
)

// slowEvery is how often the values of slow are read.
const slowEvery = 5 * time.Second

// calls collects the answers of the calls about one device.
type calls struct {
	good  int
	worst nvml.Return // the answer with the widest scope so far: see scopeOf
	// last is the last answer other than SUCCESS
	last nvml.Return
}

func (c *calls) done(code nvml.Return) bool {
	if code == nvml.SUCCESS {
		c.good++
		return true
	}
	c.last = code
	if scopeOf(code) > scopeOf(c.worst) {
		c.worst = code
	}
	return false
}

// verdict returns SUCCESS if some call succeeded and no answer means that the device or the library is
// lost.
func (c *calls) verdict() nvml.Return {
	if c.worst == nvml.SUCCESS && c.good == 0 {
		return c.last
	}
	return c.worst
}

// read reads one device. Any code other than SUCCESS means that there is no reading of the device. The
// caller holds mu.
func (s *Sampler) read(d *device, now time.Time) (telemetry.Device, nvml.Return) {
	var c calls
	r := telemetry.NewDevice(d.uuid)
	r.Name, r.Index, r.Labels = d.name, d.index, d.labels
	if d.parent != nil {
		r.MIG, r.Parent = true, d.gpu
	}
	s.readMemory(d, &r, &c)
	if d.parent == nil { // a MIG instance has none of these values of its own
		s.readGPU(d, &r, &c)
	}
	s.readGPM(d, now, &r, &c)
	if d.divided {
		n := math.NaN()
		r.Utilization, r.MemoryUtilization, r.SM, r.Occupancy, r.Tensor, r.DRAM = n, n, n, n, n, n
	}
	if c.verdict() == nvml.SUCCESS {
		s.readSlow(d, now, &c)
		r.PowerLimit, r.Processes = d.slow.powerLimit, d.slow.processes
		r.CorrectedECC, r.UncorrectedECC = d.slow.corrected, d.slow.uncorrected
	}
	if last, known := s.xids[d.uuid]; known {
		r.Xid = last
	}
	return r, c.verdict()
}

func (s *Sampler) readGPU(d *device, r *telemetry.Device, c *calls) {
	if s.lib.utilization {
		if u, code := d.handle.GetUtilizationRates(); c.done(code) {
			r.Utilization, r.MemoryUtilization = float64(u.Gpu)/100, float64(u.Memory)/100
		}
	}
	if s.lib.power {
		if milliwatts, code := d.handle.GetPowerUsage(); c.done(code) {
			r.Power = float64(milliwatts) / 1000
		}
	}
	switch {
	case s.lib.temperature:
		if celsius, code := d.handle.GetTemperature(nvml.TEMPERATURE_GPU); c.done(code) {
			r.Temperature = float64(celsius)
		}
	case s.lib.temperatureV: // NVML 13 deprecates the function above in favour of this one
		if t, code := d.handle.GetTemperatureV().V1(); c.done(code) {
			r.Temperature = float64(t.Temperature)
		}
	}
	if s.lib.energy {
		if millijoules, code := d.handle.GetTotalEnergyConsumption(); c.done(code) {
			r.Energy = float64(millijoules) / 1000
		}
	}
	switch {
	case s.lib.eventReasons:
		if bits, code := d.handle.GetCurrentClocksEventReasons(); c.done(code) {
			r.Throttle = telemetry.ThrottleReasons(bits)
		}
	case s.lib.throttleReasons: // the older name of the same function
		if bits, code := d.handle.GetCurrentClocksThrottleReasons(); c.done(code) {
			r.Throttle = telemetry.ThrottleReasons(bits)
		}
	}
}

func (s *Sampler) readMemory(d *device, r *telemetry.Device, c *calls) {
	switch {
	case s.lib.memory2: // used memory then leaves out what the driver reserves
		if m, code := d.handle.GetMemoryInfo_v2(); c.done(code) {
			r.MemoryUsed, r.MemoryTotal = clampBytes(m.Used), clampBytes(m.Total)
		}
	case s.lib.memory:
		if m, code := d.handle.GetMemoryInfo(); c.done(code) {
			r.MemoryUsed, r.MemoryTotal = clampBytes(m.Used), clampBytes(m.Total)
		}
	}
}

// readSlow reads the values of slow, if slowEvery has passed since it last did.
func (s *Sampler) readSlow(d *device, now time.Time, c *calls) {
	if since := now.Sub(d.slowAt); !d.slowAt.IsZero() && since >= 0 && since < slowEvery {
		return
	}
	d.slow, d.slowAt = slow{powerLimit: math.NaN(), corrected: math.NaN(), uncorrected: math.NaN()}, now
	if s.lib.powerLimit && d.parent == nil {
		if milliwatts, code := d.handle.GetEnforcedPowerLimit(); c.done(code) {
			d.slow.powerLimit = float64(milliwatts) / 1000
		}
	}
	if s.lib.ecc && d.parent == nil {
		if n, code := d.handle.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.VOLATILE_ECC); c.done(code) {
			d.slow.corrected = float64(n)
		}
		if n, code := d.handle.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC); c.done(code) {
			d.slow.uncorrected = float64(n)
		}
	}
	if s.lib.processes {
		if infos, code := d.handle.GetComputeRunningProcesses(); c.done(code) {
			d.slow.processes = make([]telemetry.Process, len(infos))
			for i, p := range infos {
				d.slow.processes[i] = telemetry.Process{PID: int(p.Pid), Memory: processMemory(p.UsedGpuMemory)}
			}
		}
	}
}

// clampBytes returns n as an int64. A number too large for an int64 becomes the largest int64, which is
// an impossible value, but not negative.
func clampBytes(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// processMemory returns n in bytes, or -1 if NVML does not know the value. NVML says so by setting all
// bits.
func processMemory(n uint64) int64 {
	if n == math.MaxUint64 {
		return -1
	}
	return clampBytes(n)
}
