//go:build cgo && linux

package nvml

import (
	"math"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"sluice.example/sluice/backends/gpu/telemetry"
)

// gpmApart is the shortest time between two GPM samples. It is 100 ms, because the driver refreshes the
// content of samples that often (nvml.h, nvmlGpmSampleGet).
const gpmApart = 100 * time.Millisecond

// gpm is the GPU performance monitoring of one device. Its values are averages over the time between
// two samples. It keeps the later of the two.
type gpm struct {
	supported bool
	// off means that the driver refused a sample. The next listing of the devices resets off.
	off    bool
	last   nvml.GpmSample
	spare  nvml.GpmSample
	at     time.Time // when last was taken; zero means that there is none yet
	values [4]float64
}

// gpmMetrics are the metrics that are read, in the order of gpm.values.
var gpmMetrics = [4]nvml.GpmMetricId{nvml.GPM_METRIC_SM_UTIL, nvml.GPM_METRIC_SM_OCCUPANCY, nvml.GPM_METRIC_ANY_TENSOR_UTIL, nvml.GPM_METRIC_DRAM_BW_UTIL}

// newGPM allocates the samples of a device that supports GPM.
func (s *Sampler) newGPM(d *device) gpm {
	var g gpm
	g.unknown()
	if !s.lib.gpm || d.parent != nil && !s.lib.gpmMIG {
		return g
	}
	of := d.handle
	if d.parent != nil {
		of = d.parent
	}
	if support, code := of.GpmQueryDeviceSupport(); code != nvml.SUCCESS || support.IsSupportedDevice == 0 {
		return g
	}
	last, code := s.lib.GpmSampleAlloc()
	if code != nvml.SUCCESS {
		return g
	}
	spare, code := s.lib.GpmSampleAlloc()
	if code != nvml.SUCCESS {
		last.Free()
		return g
	}
	g.last, g.spare, g.supported = last, spare, true
	return g
}

func (s *Sampler) freeGPM(g *gpm) {
	if g.supported {
		g.last.Free()
		g.spare.Free()
		*g = gpm{}
	}
}

// readGPM takes a sample and puts the averages since the sample before into r. The first reading of a
// device has no averages.
func (s *Sampler) readGPM(d *device, now time.Time, r *telemetry.Device, c *calls) {
	g := &d.gpm
	if !g.supported || g.off {
		return
	}
	if since := now.Sub(g.at); g.at.IsZero() || since < 0 || since >= gpmApart {
		code := s.sampleGPM(d)
		if !c.done(code) {
			g.off, g.at = scopeOf(code) == ofCall, time.Time{}
			g.unknown()
			return
		}
		s.between(g)
		g.last, g.spare, g.at = g.spare, g.last, now
	} else {
		c.good++ // the last sample is recent enough, so a device that reports nothing else is not gone
	}
	r.SM, r.Occupancy, r.Tensor, r.DRAM = g.values[0], g.values[1], g.values[2], g.values[3]
}

// sampleGPM reads the counters into the spare sample.
func (s *Sampler) sampleGPM(d *device) nvml.Return {
	if d.parent != nil {
		return d.parent.GpmMigSampleGet(d.gi, d.gpm.spare)
	}
	return d.handle.GpmSampleGet(d.gpm.spare)
}

// between computes the averages between the last sample and the spare sample.
func (s *Sampler) between(g *gpm) {
	g.unknown()
	if g.at.IsZero() {
		return
	}
	m := &s.scratch
	m.NumMetrics, m.Sample1, m.Sample2 = uint32(len(gpmMetrics)), g.last, g.spare
	for i, id := range gpmMetrics {
		m.Metrics[i] = nvml.GpmMetric{MetricId: uint32(id)}
	}
	if code := s.lib.GpmMetricsGet(m); code != nvml.SUCCESS {
		return
	}
	for i := range gpmMetrics {
		if nvml.Return(m.Metrics[i].NvmlReturn) == nvml.SUCCESS {
			g.values[i] = m.Metrics[i].Value / 100
		}
	}
}

func (g *gpm) unknown() {
	for i := range g.values {
		g.values[i] = math.NaN()
	}
}
