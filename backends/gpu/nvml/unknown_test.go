//go:build cgo && linux

package nvml

import (
	"math"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu/nvml/stub"
)

// The driver reports nothing about the work of a divided GPU, or reports 0 %, which is not a reading.
func TestDividedGPUHasNoUtilization(t *testing.T) {
	g := migGPU()
	g.Values["utilization"], g.Values["memory_utilization"], g.Values["sm"] = 0, 0, 0
	m := newMachine(t, stub.State{GPUs: []stub.GPU{g}})
	m.sample(0)
	devices := m.sample(time.Second)
	if d := devices[0]; d.UUID != "GPU-m" || !math.IsNaN(d.BusyShare()) || !math.IsNaN(d.MemoryUtilization) || d.Power != 300 {
		t.Errorf("the whole GPU is %+v", d)
	}
	if d := devices[1]; d.BusyShare() != 0.75 {
		t.Errorf("the instance is busy for %v of the time", d.BusyShare())
	}
}

// GPM measures a whole GPU instance. If two compute instances share a GPU instance, the measurement is
// not the work of either, and the work of one must not be charged to the other.
func TestComputeInstancesOfOneGPUInstanceAreNotKnown(t *testing.T) {
	g := migGPU()
	g.Instances = append(g.Instances, stub.Instance{ID: 7, Device: stub.Device{UUID: "MIG-z", Values: stub.Values{"memory_total": 10000, "memory_used": 1, "sm": 0}}})
	m := newMachine(t, stub.State{GPUs: []stub.GPU{g}})
	m.sample(0)
	for _, d := range m.sample(time.Second) {
		switch known := !math.IsNaN(d.BusyShare()); d.UUID {
		case "MIG-x", "MIG-z":
			if known || d.MemoryTotal != 10000 {
				t.Errorf("%s: busy %v, memory %d", d.UUID, d.BusyShare(), d.MemoryTotal)
			}
		case "MIG-y":
			if d.BusyShare() != 0.05 {
				t.Errorf("%s: busy %v", d.UUID, d.BusyShare())
			}
		}
	}
	// The compute instance is alone again, so it is measured again.
	m.change(func(s *stub.State) { s.GPUs[0].Instances = s.GPUs[0].Instances[:2] })
	m.sample(listEvery)
	for _, d := range m.sample(time.Second) {
		if d.UUID == "MIG-x" && d.BusyShare() != 0.75 {
			t.Errorf("alone it is busy for %v", d.BusyShare())
		}
	}
}

func TestMemoryErrorsAndXids(t *testing.T) {
	a, b := hopper("GPU-a"), hopper("GPU-b")
	a.Values["ecc_corrected"], a.Values["ecc_uncorrected"], a.Values["xid"] = 2, 1, 0
	m := newMachine(t, stub.State{GPUs: []stub.GPU{a, b}})
	devices := m.sample(0)
	if d := devices[0]; d.CorrectedECC != 2 || d.UncorrectedECC != 1 || d.Xid != 0 {
		t.Errorf("read %+v", d)
	}
	if d := devices[1]; !math.IsNaN(d.CorrectedECC) || !math.IsNaN(d.UncorrectedECC) || !math.IsNaN(d.Xid) {
		t.Errorf("a GPU that does not report them has %v, %v, %v", d.CorrectedECC, d.UncorrectedECC, d.Xid)
	}
	m.change(func(s *stub.State) { s.GPUs[0].Values["xid"] = 79 })
	if d := m.sample(time.Second)[0]; d.Xid != 79 || !strings.Contains(m.log.String(), "xid=79") {
		t.Errorf("xid %v\n%s", d.Xid, &m.log)
	}
	m.change(func(s *stub.State) { s.GPUs[0].Values["ecc_corrected"] = 5 })
	if d := m.sample(slowEvery)[0]; d.CorrectedECC != 5 || d.Xid != 79 {
		t.Errorf("later: %v errors, xid %v", d.CorrectedECC, d.Xid)
	}
}
