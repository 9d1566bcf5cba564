package pricing

import (
	"encoding/json"
	"math"
	"time"
)

// Load is how busy a pool, or one backend, is at a moment: what its engines and
// GPUs say, joined with the gateway's own requests. It is the one form of load on
// the way from a sample to a price. NaN: not known.
type Load struct {
	Running  float64 // requests being answered
	Waiting  float64 // requests in a queue, the engines' and the gateway's
	Queued   float64 // of Waiting: in this gateway's own queue
	Capacity float64 // requests that can run at once; 0: nothing there can serve
	InFlight float64 // requests of this gateway that run there, other pools' included; NaN: as Running
	KV       float64 // of the fullest key-value cache, 0..1
	SM       float64 // share of SMs at work, mean over the GPUs, 0..1 (GPM or DCGM profiling)
	// Utilization is the share of time in which any kernel ran, mean over the GPUs,
	// 0..1 (NVML).
	Utilization float64
	// Energy is the joules consumed for the pool since the process began, a counter
	// that never falls. Pools that share a GPU divide its energy by their requests in
	// flight. NaN: no GPU counts its energy.
	Energy float64
	Stale  bool          // telemetry is configured, and nothing of it is fresh
	Age    time.Duration // of the newest reading; zero without telemetry
}

// UnknownLoad is a load of which nothing is known.
func UnknownLoad() Load {
	n := math.NaN()
	return Load{Running: n, Waiting: n, Queued: n, Capacity: n, InFlight: n, KV: n, SM: n, Utilization: n, Energy: n}
}

// MarshalJSON leaves out what is not known.
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

// Finite returns nil for NaN and infinities, which JSON cannot express.
func Finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// Parts says what the pressure is made of: the weight of each part. 0 leaves a
// part out, 1 takes it as it is. The pressure is the largest of them.
type Parts struct {
	Load        float64 `yaml:"load"`        // (running + waiting) / capacity
	KV          float64 `yaml:"kv"`          // KV cache, 1 at 80 % full
	Waiting     float64 `yaml:"waiting"`     // queue, 1 at 5 requests
	GPU         float64 `yaml:"gpu"`         // what the GPUs say beyond the requests of ours, see gpuPart
	Utilization float64 `yaml:"utilization"` // the GPUs' utilization as it is read; it saturates early, so the default leaves it out
	Clip        float64 `yaml:"clip"`        // the pressure never counts more
}

// DefaultParts is the joined signal.
func DefaultParts() Parts { return Parts{Load: 1, KV: 1, Waiting: 1, GPU: 1, Clip: 3} }

// FullKV is the use of a KV cache that counts as fully loaded: engines preempt and
// recompute when the cache runs out.
const FullKV = 0.8

const (
	longQueue    = 5   // requests
	saturatingAt = 4   // requests that make a GPU read as fully utilized, measured on inference servers
	absurdCount  = 1e6 // requests at once; more is a broken reading
)

// Pressure is how hard the pool is pressed: 1 is full, 0 idle, more than 1 is
// demand beyond what it can serve, up to Clip. A value that is not known or
// absurd leaves its parts out; ok is false when no part is left or nothing in
// the pool can serve.
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
	queued := known(waiting, 0) // running alone is a lower bound
	join(p.Load, (running+queued)/capacity)
	join(p.KV, within(l.KV, 1)/FullKV)
	join(p.Waiting, waiting/longQueue)
	join(p.GPU, gpuPart(known(within(l.SM, 1), within(l.Utilization, 1)), inFlight, capacity))
	join(p.Utilization, within(l.Utilization, 1))
	return min(s, p.Clip), ok
}

// gpuPart reads pressure out of the GPUs' own activity. Both NVML's utilization
// and the share of busy SMs saturate: a few requests drive them near 1, long
// before the pool is full. So what our requests can explain counts by how full
// they make the pool, and only what they cannot explain counts as it is:
// someone else works on those GPUs.
func gpuPart(activity, inFlight, capacity float64) float64 {
	ours := activity * min(1, inFlight/capacity)
	others := activity - inFlight/saturatingAt
	if math.IsNaN(ours) {
		return others
	}
	return max(ours, others)
}

// within is v, or NaN when it is negative, above limit or not a number.
func within(v, limit float64) float64 {
	if v >= 0 && v <= limit {
		return v
	}
	return math.NaN()
}

// known is v, or other when v is NaN.
func known(v, other float64) float64 {
	if math.IsNaN(v) {
		return other
	}
	return v
}
