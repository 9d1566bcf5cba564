package pricing

import (
	"encoding/json"
	"math"
	"time"
)

// Load is how busy a pool, or one backend, is at a moment. It joins what the engines and GPUs report
// with the gateway's own requests. All load has this form on the way from a sample to a price. NaN
// means not known.
type Load struct {
	Running  float64 // requests that are being answered
	Waiting  float64 // requests in the queues of the engines and of the gateway
	Queued   float64 // those of Waiting that are in this gateway's own queue
	Capacity float64 // requests that can run at once; 0 means that no backend can serve
	// InFlight is the requests of this gateway that run on these backends, including those of other
	// pools. NaN means that Running takes its place.
	InFlight float64
	KV       float64 // use of the fullest KV cache, 0..1
	SM       float64 // share of SMs at work, mean over the GPUs, 0..1 (GPM or DCGM profiling)
	// Utilization is the share of time in which any kernel ran, as a mean over the GPUs, 0..1 (NVML).
	Utilization float64
	// Energy is the joules consumed for the pool since the process began. It is a counter that never
	// falls. Pools that share a GPU divide the GPU's energy by their requests in flight. NaN means that
	// no GPU counts its energy.
	Energy float64
	Stale  bool          // telemetry is configured, and no reading is fresh
	Age    time.Duration // age of the newest reading; zero without telemetry
}

// UnknownLoad returns a load of which every value is "not known".
func UnknownLoad() Load {
	n := math.NaN()
	return Load{Running: n, Waiting: n, Queued: n, Capacity: n, InFlight: n, KV: n, SM: n, Utilization: n, Energy: n}
}

// MarshalJSON leaves out the values that are not known.
func (l Load) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Running     *float64 `json:"running,omitempty"`
		Waiting     *float64 `json:"waiting,omitempty"`
		Capacity    *float64 `json:"capacity,omitempty"`
		InFlight    *float64 `json:"in_flight,omitempty"`
		KV          *float64 `json:"kv_cache,omitempty"`
		SM          *float64 `json:"sm_utilization,omitempty"`
		Utilization *float64 `json:"utilization,omitempty"`
		Energy      *float64 `json:"energy_joules,omitempty"`
		Stale       bool     `json:"stale"`
		Age         float64  `json:"age_s"`
	}{Finite(l.Running), Finite(l.Waiting), Finite(l.Capacity), Finite(l.InFlight), Finite(l.KV), Finite(l.SM),
		Finite(l.Utilization), Finite(l.Energy), l.Stale, l.Age.Seconds()})
}

// Finite returns &v, or nil if v is NaN or infinite, because JSON cannot express these.
func Finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// Parts holds the weight of each part of the pressure. The weight 0 leaves a part out, and 1 takes the
// part as it is. The pressure is the largest of the weighted parts.
type Parts struct {
	Load    float64 `yaml:"load"`    // (running + waiting) / capacity
	KV      float64 `yaml:"kv"`      // KV cache; 1 at 80 % full
	Waiting float64 `yaml:"waiting"` // queue; 1 at 5 requests
	GPU     float64 `yaml:"gpu"`     // what the GPUs report beyond this gateway's requests: see gpuPart
	// Utilization is the weight of the GPUs' utilization as it is read. The default is 0, because
	// utilization is near 1 long before the pool is full.
	Utilization float64 `yaml:"utilization"`
	Clip        float64 `yaml:"clip"` // upper bound of the pressure
}

// DefaultParts returns the weights of the default pressure, which joins all parts except Utilization.
func DefaultParts() Parts { return Parts{Load: 1, KV: 1, Waiting: 1, GPU: 1, Clip: 3} }

// FullKV is the use of a KV cache that counts as fully loaded, because engines preempt and recompute
// requests when the cache runs out.
const FullKV = 0.8

const (
	longQueue    = 5   // requests
	saturatingAt = 4   // requests that make a GPU read as fully utilized, measured on inference servers
	absurdCount  = 1e6 // requests at once; a larger number is a broken reading
)

// Pressure returns how loaded the pool is: 0 is idle, 1 is full, and more than 1 is demand beyond what
// the pool can serve, up to Clip. A value that is not known or impossible leaves its parts out. ok is
// false if no part is left or no backend of the pool can serve.
func (p Parts) Pressure(l Load) (s float64, ok bool) {
	if l.Capacity == 0 {
		return 0, false
	}
	join := func(weight, part float64) {
		if v := weight * part; weight > 0 && !math.IsNaN(v) {
			s, ok = max(s, v), true
		}
	}
	running, waiting, capacity := within(l.Running, absurdCount), within(l.Waiting, absurdCount), within(l.Capacity, absurdCount)
	inFlight := known(known(within(l.InFlight, absurdCount), running), 0)
	queued := known(waiting, 0) // without Waiting, Running alone is a lower bound
	join(p.Load, (running+queued)/capacity)
	join(p.KV, within(l.KV, 1)/FullKV)
	join(p.Waiting, waiting/longQueue)
	join(p.GPU, gpuPart(known(within(l.SM, 1), within(l.Utilization, 1)), inFlight, capacity))
	join(p.Utilization, within(l.Utilization, 1))
	return min(s, p.Clip), ok
}

// gpuPart returns the pressure that the GPUs' own activity shows. Both NVML's utilization and the share
// of busy SMs are near 1 with a few requests, long before the pool is full. So activity that this
// gateway's requests can explain counts by how full they make the pool. Activity that they cannot
// explain counts as it is, because others work on those GPUs.
func gpuPart(activity, inFlight, capacity float64) float64 {
	ours := activity * min(1, inFlight/capacity)
	others := activity - inFlight/saturatingAt
	if math.IsNaN(ours) {
		return others
	}
	return max(ours, others)
}

// within returns v, or NaN if v is negative, above limit or not a number.
func within(v, limit float64) float64 {
	if v >= 0 && v <= limit {
		return v
	}
	return math.NaN()
}

// known returns v, or other if v is NaN.
func known(v, other float64) float64 {
	if math.IsNaN(v) {
		return other
	}
	return v
}
