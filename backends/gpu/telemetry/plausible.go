package telemetry

import "math"

// Bounds of what a feed believes.
const (
	maxRatio       = 1.01 // rounding of hardware counters; a share above 1 counts as 1
	maxPower       = 20e3 // watts
	maxOverLimit   = 10   // power, in multiples of the limit
	maxTemperature = 200  // °C
	// maxMemory is in bytes.
	maxMemory   = 1 << 50
	maxEnergy   = 1e15 // joules: 20 kW for a thousand years
	maxRequests = 1e6
	maxDevices  = 1024  // in one reading
	maxErrors   = 1e15  // memory errors
	maxXid      = 1e4   // NVIDIA's list ends far below
	maxAge      = 86400 // seconds; an older reading of an exporter counts as this old
)

// check replaces impossible values by "not reported", in place. The caller holds mu.
func (f *Feed) check(r *Reading) {
	if r.Engine != nil {
		e := *r.Engine // a copy, because the sampler may continue to use its own
		f.within(&e.Running, "running", maxRequests)
		f.within(&e.Waiting, "waiting", maxRequests)
		f.ratio(&e.KV, "kv_cache")
		r.Engine = &e
	}
	kept := make([]Device, 0, min(len(r.Devices), maxDevices))
	seen := make(map[string]bool, cap(kept))
	for _, d := range r.Devices {
		if d.UUID == "" || seen[d.UUID] || len(kept) == maxDevices {
			f.refuse("uuid")
			continue
		}
		seen[d.UUID] = true
		f.checkDevice(&d)
		kept = append(kept, d)
	}
	r.Devices = kept
}

func (f *Feed) checkDevice(d *Device) {
	f.ratio(&d.Utilization, "utilization")
	f.ratio(&d.MemoryUtilization, "memory_utilization")
	f.ratio(&d.SM, "sm")
	f.ratio(&d.Occupancy, "occupancy")
	f.ratio(&d.Tensor, "tensor")
	f.ratio(&d.DRAM, "dram")
	f.within(&d.PowerLimit, "power_limit", maxPower)
	limit := float64(maxPower)
	if d.PowerLimit > 0 {
		limit = min(limit, maxOverLimit*d.PowerLimit)
	}
	f.within(&d.Power, "power", limit)
	f.within(&d.Temperature, "temperature", maxTemperature)
	f.within(&d.Energy, "energy", maxEnergy)
	f.within(&d.CorrectedECC, "corrected_ecc", maxErrors)
	f.within(&d.UncorrectedECC, "uncorrected_ecc", maxErrors)
	f.within(&d.Xid, "xid", maxXid)
	f.bytes(&d.MemoryTotal, "memory_total", maxMemory)
	most := int64(maxMemory)
	if d.MemoryTotal >= 0 {
		most = d.MemoryTotal
	}
	f.bytes(&d.MemoryUsed, "memory_used", most)
}

func (f *Feed) ratio(v *float64, field string) {
	if *v > 1 && *v <= maxRatio {
		*v = 1
	}
	f.within(v, field, 1)
}

// within keeps v if it is 0…most or NaN. Otherwise it sets v to NaN, which means not reported.
func (f *Feed) within(v *float64, field string, most float64) {
	if *v < 0 || *v > most {
		*v = math.NaN()
		f.refuse(field)
	}
}

// bytes keeps v if it is 0…most or -1. Otherwise it sets v to -1, which means not reported.
func (f *Feed) bytes(v *int64, field string, most int64) {
	if *v < -1 || *v > most {
		*v = -1
		f.refuse(field)
	}
}
