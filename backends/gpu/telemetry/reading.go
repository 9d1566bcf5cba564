package telemetry

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"sluice.example/sluice/pricing"
)

// Device is one reading of one GPU or MIG instance. A value that the device
// does not report is NaN (floats) or -1 (integers): begin with NewDevice.
type Device struct {
	// UUID names the device: "GPU-…", "MIG-…", or what an exporter makes of
	// it. Unique in a reading, never empty.
	UUID   string
	Name   string // as the vendor calls it, e.g. "NVIDIA H200"
	Index  int    // as the driver counts; of a MIG instance, the index of its GPU
	MIG    bool
	Parent string // UUID of the GPU that a MIG instance is part of
	// Labels are an exporter's own, e.g. gpu, device, Hostname, GPU_I_ID. Nil
	// where the device was read directly.
	Labels map[string]string

	// Utilization is the share of the last sampling period (1/6 s to 1 s) in
	// which any kernel ran, 0..1: it says whether the GPU works, hardly how
	// hard. Under MIG the driver does not report it.
	Utilization       float64
	MemoryUtilization float64 // share of time in which memory was read or written, 0..1

	// From GPM (Hopper and newer) or DCGM's profiling, 0..1.
	SM        float64 // mean share of SMs with work
	Occupancy float64 // warps resident, of the most possible
	Tensor    float64 // tensor pipes active
	DRAM      float64 // memory bandwidth used

	MemoryUsed, MemoryTotal int64   // bytes
	Power, PowerLimit       float64 // watts
	Temperature             float64 // °C
	// Throttle lists what slows the clocks down at the moment, e.g.
	// "sw_power_cap", "hw_thermal_slowdown".
	Throttle []string
	// Energy is joules since the driver was loaded: a counter that may begin
	// again. MIG instances have none of their own.
	Energy float64
	// CorrectedECC and UncorrectedECC are memory errors since the driver was
	// loaded. NaN where the device has no ECC, or has it off.
	CorrectedECC, UncorrectedECC float64
	// Xid is the number of the last critical error that the driver reported, 0
	// where none was seen since the reader began. NaN: not known.
	Xid float64
	// Processes that work there; nil: not known.
	Processes []Process
}

// Process is one process on a GPU, as its driver sees it.
type Process struct {
	PID    int   `json:"pid"`
	Memory int64 `json:"memory_bytes"` // -1: not known
}

// NewDevice returns a device with everything "not reported".
func NewDevice(uuid string) Device {
	n := math.NaN()
	return Device{UUID: uuid, Index: -1, Utilization: n, MemoryUtilization: n, SM: n, Occupancy: n, Tensor: n, DRAM: n,
		MemoryUsed: -1, MemoryTotal: -1, Power: n, PowerLimit: n, Temperature: n, Energy: n,
		CorrectedECC: n, UncorrectedECC: n, Xid: n}
}

// Engine is one reading of an inference engine's own metrics. NaN: not
// reported.
type Engine struct {
	Kind    string  // "vllm", "sglang", "tensorrt-llm", "triton", "tgi", "llama.cpp"
	Running float64 // requests being worked on
	Waiting float64 // requests in its queue
	KV      float64 // of the KV cache in use, 0..1
}

// Reading is what one sample found.
type Reading struct {
	Devices []Device
	Engine  *Engine // nil: no engine was asked
	// Age is how long ago the values were read, where they come from somebody
	// who keeps them. Zero: just now.
	Age time.Duration
	// Refused names fields whose value the sampler itself could not believe,
	// such as a NaN in an exporter's text. A Feed counts them.
	Refused []string
}

// Sampler reads once. It may hang, for a driver may: a Feed gives it a
// deadline and goes on without it. It is never called twice at once. A device
// that is gone is left out of the reading; an error says that nothing was
// read.
type Sampler interface {
	Sample(ctx context.Context) (Reading, error)
}

// MarshalJSON leaves out what the device does not report.
func (d Device) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		UUID        string    `json:"uuid"`
		Name        string    `json:"name,omitempty"`
		Index       int       `json:"index"`
		MIG         bool      `json:"mig,omitempty"`
		Parent      string    `json:"parent,omitempty"`
		Utilization *float64  `json:"utilization,omitempty"`
		MemoryBusy  *float64  `json:"memory_utilization,omitempty"`
		SM          *float64  `json:"sm_utilization,omitempty"`
		Occupancy   *float64  `json:"sm_occupancy,omitempty"`
		Tensor      *float64  `json:"tensor_active,omitempty"`
		DRAM        *float64  `json:"dram_active,omitempty"`
		MemoryUsed  *int64    `json:"memory_used_bytes,omitempty"`
		MemoryTotal *int64    `json:"memory_total_bytes,omitempty"`
		Power       *float64  `json:"power_watts,omitempty"`
		PowerLimit  *float64  `json:"power_limit_watts,omitempty"`
		Temperature *float64  `json:"temperature_celsius,omitempty"`
		Energy      *float64  `json:"energy_joules,omitempty"`
		Corrected   *float64  `json:"corrected_ecc_errors,omitempty"`
		Uncorrected *float64  `json:"uncorrected_ecc_errors,omitempty"`
		Xid         *float64  `json:"xid,omitempty"`
		Throttle    []string  `json:"throttle,omitempty"`
		Processes   []Process `json:"processes,omitempty"`
	}{d.UUID, d.Name, d.Index, d.MIG, d.Parent, pricing.Finite(d.Utilization), pricing.Finite(d.MemoryUtilization), pricing.Finite(d.SM), pricing.Finite(d.Occupancy),
		pricing.Finite(d.Tensor), pricing.Finite(d.DRAM), knownInt(d.MemoryUsed), knownInt(d.MemoryTotal), pricing.Finite(d.Power), pricing.Finite(d.PowerLimit),
		pricing.Finite(d.Temperature), pricing.Finite(d.Energy), pricing.Finite(d.CorrectedECC), pricing.Finite(d.UncorrectedECC), pricing.Finite(d.Xid), d.Throttle, d.Processes})
}

func knownInt(v int64) *int64 {
	if v < 0 {
		return nil
	}
	return &v
}
