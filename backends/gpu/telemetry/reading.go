package telemetry

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"sluice.example/sluice/pricing"
)

// Device is one reading of one GPU or MIG instance. A value that the device does not report is NaN
// (floats) or -1 (integers). NewDevice returns a device with these values.
type Device struct {
	// UUID names the device. It is "GPU-…", "MIG-…", or what an exporter makes of it. It is unique in a
	// reading, and never empty.
	UUID   string
	Name   string // as the vendor calls it, for example "NVIDIA H200"
	Index  int    // as the driver counts; a MIG instance has the index of its GPU
	MIG    bool
	Parent string // UUID of the GPU that a MIG instance is part of
	// Labels are an exporter's labels, for example gpu, device, Hostname, GPU_I_ID. A device that NVML
	// read has the labels gpu and GPU_I_ID at most.
	Labels map[string]string

	// Utilization is the share of the last sampling period (1/6 s to 1 s) in which any kernel ran,
	// 0..1. It says whether the GPU works, but says little of how hard it works. Under MIG the driver
	// does not report utilization.
	Utilization       float64
	MemoryUtilization float64 // share of time in which memory was read or written, 0..1

	// The next four come from GPM (Hopper and newer) or from DCGM's profiling. They are 0..1.
	SM        float64 // mean share of SMs with work
	Occupancy float64 // resident warps, as a share of the most possible
	Tensor    float64 // share of time in which the tensor pipes were active
	DRAM      float64 // share of the memory bandwidth that was used

	MemoryUsed, MemoryTotal int64   // bytes
	Power, PowerLimit       float64 // watts
	Temperature             float64 // °C
	// Throttle lists what slows the clocks down now, for example "sw_power_cap" or
	// "hw_thermal_slowdown".
	Throttle []string
	// Energy is a counter of joules since the driver was loaded. The counter may begin again. MIG
	// instances have no counter of their own.
	Energy float64
	// CorrectedECC and UncorrectedECC are numbers of memory errors since the driver was loaded. NaN
	// means that the device has no ECC, or that its ECC is off.
	CorrectedECC, UncorrectedECC float64
	// Xid is the number of the last critical error that the driver reported. 0 means that no error was
	// seen since the reader began. NaN means not known.
	Xid float64
	// Processes are the processes that use the device. Nil means not known.
	Processes []Process
}

// Process is one process on a GPU, as its driver sees it.
type Process struct {
	PID    int   `json:"pid"`
	Memory int64 `json:"memory_bytes"` // -1 means not known
}

// NewDevice returns a device of which every value is "not reported".
func NewDevice(uuid string) Device {
	n := math.NaN()
	return Device{UUID: uuid, Index: -1, Utilization: n, MemoryUtilization: n, SM: n, Occupancy: n, Tensor: n, DRAM: n,
		MemoryUsed: -1, MemoryTotal: -1, Power: n, PowerLimit: n, Temperature: n, Energy: n,
		CorrectedECC: n, UncorrectedECC: n, Xid: n}
}

// Engine is one reading of an inference engine's own metrics. NaN means not reported.
type Engine struct {
	Kind    string  // "vllm", "sglang", "tensorrt-llm", "triton", "tgi", "llama.cpp"
	Running float64 // requests that the engine works on
	Waiting float64 // requests in the engine's queue
	KV      float64 // share of the KV cache in use, 0..1
}

// Reading is what one sample found.
type Reading struct {
	Devices []Device
	Engine  *Engine // nil means that the sampler reads no engine
	// Age is how long ago the values were read, if they come from an exporter that keeps them. Zero
	// means just now.
	Age time.Duration
	// Refused names fields whose value the sampler itself could not believe, such as a NaN in an
	// exporter's text. A Feed counts these fields.
	Refused []string
}

// Sampler reads devices or an engine once per call. Sample may hang, because a driver may hang. A Feed
// gives Sample a deadline and continues without the answer. Calls of Sample never overlap. The reading
// leaves out a device that is gone. An error says that nothing was read.
type Sampler interface {
	Sample(ctx context.Context) (Reading, error)
}

// MarshalJSON leaves out the values that the device does not report.
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
