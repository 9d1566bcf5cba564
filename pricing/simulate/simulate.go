// Package simulate tries prices before anyone pays them. It plays a demand, made up or recorded,
// against a model of a pool. The price in the model is moved by the same pricing.Controller that the
// gateway runs. The result says how the policy did:
//
//	scenario := simulate.Surge(simulate.DefaultPool(), simulate.DefaultBase, simulate.DefaultFactor)
//	policy, _ := simulate.Named("default")
//	result, err := simulate.Run(scenario, policy, 1)
//
// ReadTrace reads recorded demand from CSV, from the answer of a Prometheus range query, or from the
// gateway's own stored epochs.
//
// In the model, buyers arrive at random (Poisson). The higher the price, the fewer buyers arrive
// (constant elasticity). Each buyer's request takes one of the pool's slots for a random time
// (exponential). It waits for a slot in a FIFO queue, and is refused if the queue is full or the wait
// is too long. GPU utilization is near 1 with few requests already, as NVML's utilization is. All
// random numbers come from the seed, so a run can be repeated, and policies are compared on the same
// stream of buyers.
package simulate

import (
	"errors"
	"fmt"
	"math"
	"time"

	"sluice.example/sluice/pricing"
)

// Pool is the modelled pool of inference servers, and its buyers.
type Pool struct {
	Slots   int           // requests that run at once
	Service time.Duration // mean time that a request runs
	// KV is the share of the KV cache that full slots fill. If it is above 1, the KV cache and not the
	// slots decides how many requests run.
	KV           float64
	Queue        int           // requests that may wait; 0 means any number
	QueueTimeout time.Duration // longest wait; 0 means any
	Elasticity   float64       // relative fall of demand per relative rise of the price
	// Reaction is the time until buyers act on a new price. A buyer pays the price that it acted on, or
	// the price in force if that is lower (quote lock).
	Reaction time.Duration
	Rates    pricing.Rates // the rate card at multiplier 1
	Pace     float64       // completion tokens per second of service
}

// DefaultPool returns the pool of the default surge, with the gateway's default queue.
func DefaultPool() Pool {
	return Pool{
		Slots: 32, Service: 12 * time.Second, KV: 0.6, Queue: 64, QueueTimeout: 30 * time.Second, Elasticity: 1.5,
		Rates: pricing.Rates{pricing.OutputTokens: 600_000}, Pace: 30,
	}
}

func (p Pool) validate() error {
	switch {
	case p.Slots < 1 || p.Slots > 100_000:
		return fmt.Errorf("slots: want 1 to 100000, got %d", p.Slots)
	case p.Service < time.Millisecond || p.Service > 24*time.Hour:
		return fmt.Errorf("service time: want 1ms to 24h, got %v", p.Service)
	case !(p.KV > 0 && p.KV <= float64(p.Slots)):
		return fmt.Errorf("KV cache: want more than 0, and room for one request at least (%d), got %g", p.Slots, p.KV)
	case p.Queue < 0 || p.QueueTimeout < 0 || p.Reaction < 0:
		return errors.New("queue, queue timeout and reaction must not be negative")
	case !(p.Elasticity >= 0 && p.Elasticity <= 100):
		return fmt.Errorf("elasticity: want 0 to 100, got %g", p.Elasticity)
	case !(p.Pace > 0 && p.Pace <= 1e6):
		return fmt.Errorf("pace: want more than 0, at most 1e6 tokens/s, got %g", p.Pace)
	}
	return p.Rates.Validate()
}

// Segment is the demand from one moment until the next segment.
type Segment struct {
	At     float64 // seconds from the start
	Rate   float64 // buyers per second at multiplier 1
	Others float64 // utilization of the GPUs by the work of others, 0..1
}

// Scenario is what a policy is tried on.
type Scenario struct {
	Name     string
	Pool     Pool
	Demand   []Segment // sorted by time; the first segment begins at 0
	End      float64   // seconds
	From, To float64   // the time that results cover, in seconds
}

const (
	maxSeconds  = 31 * 24 * 3600
	maxArrivals = 5_000_000
)

func (s Scenario) validate() error {
	if err := s.Pool.validate(); err != nil {
		return err
	}
	if len(s.Demand) == 0 || s.Demand[0].At != 0 {
		return errors.New("the demand must begin at second 0")
	}
	for i, d := range s.Demand {
		if i > 0 && !(d.At > s.Demand[i-1].At) {
			return errors.New("the demand must be in order of time")
		}
		if !(d.Rate >= 0 && d.Rate <= 1e6) || !(d.Others >= 0 && d.Others <= 1) {
			return fmt.Errorf("the demand at %g s is out of range", d.At)
		}
	}
	if !(s.End > 0 && s.End <= maxSeconds) || !(s.From >= 0 && s.From < s.To && s.To <= s.End) {
		return fmt.Errorf("want up to 31 days, with the measured time within; got %g s, measured %g to %g s", s.End, s.From, s.To)
	}
	return nil
}

// settling is the first part of the measured time, which price_sd_ln leaves out, because the price
// still moves to its level then.
const settling = 1.0 / 6

// settled returns when the deviation of the price begins to count.
func (s Scenario) settled() float64 { return s.From + (s.To-s.From)*settling }

const (
	surgeFrom = 600  // seconds
	surgeTo   = 4200 // seconds
	surgeEnd  = 5400 // seconds
)

// Surge returns a scenario of three parts: ten minutes of demand for the share base of the pool's
// capacity, an hour of demand that is factor times as much from the first moment on, and twenty minutes
// of base again. Results cover the hour.
func Surge(p Pool, base, factor float64) Scenario {
	rate := base * float64(p.Slots) / p.Service.Seconds()
	return Scenario{
		Name: fmt.Sprintf("surge: %d slots, %v service, elasticity %g, demand from %.3g to %.3g of capacity", p.Slots, p.Service, p.Elasticity, base, base*factor),
		Pool: p, End: surgeEnd, From: surgeFrom, To: surgeTo,
		Demand: []Segment{{At: 0, Rate: rate}, {At: surgeFrom, Rate: rate * factor}, {At: surgeTo, Rate: rate}},
	}
}

// The base and factor of the default surge.
const (
	DefaultBase   = 0.55
	DefaultFactor = 3
)

// Result is how a policy did over the measured time of a scenario.
type Result struct {
	Policy    string  `json:"policy"`
	LoadMean  float64 `json:"load_mean"`    // running / slots
	WaitP50   float64 `json:"wait_p50_s"`   // seconds, over all who queued, including those who gave up
	WaitP99   float64 `json:"wait_p99_s"`   // the same
	PriceMean float64 `json:"price_mean"`   // multiplier, mean over time
	PriceSDLn float64 `json:"price_sd_ln"`  // standard deviation of ln multiplier, after settling
	Refused   int     `json:"refused"`      // requests that met a full queue, or waited too long
	Revenue   int64   `json:"revenue_msat"` // of requests that arrived in that time and were served

	Series []Sample `json:"-"` // one sample per interval, over the whole scenario
}

// Sample is one interval of a run.
type Sample struct {
	At         float64 // end of the interval, in seconds
	Multiplier float64 // decided at the interval's end
	BoundBy    string
	Signal     float64 // smoothed pressure
	Load       float64 // running / slots, mean over the interval
	Waiting    int     // requests, at the interval's end
	Wait       float64 // seconds, mean over the requests that began to run in the interval
	Refused    int     // requests refused in the interval
	Revenue    int64   // msat, of requests that began to run in the interval
}

// Run plays a scenario under a policy. It fails if the scenario or the policy is not valid.
func Run(s Scenario, p Policy, seed uint64) (Result, error) {
	if err := s.validate(); err != nil {
		return Result{}, fmt.Errorf("simulate: %w", err)
	}
	if _, err := p.Params.Validate(); err != nil {
		return Result{}, fmt.Errorf("policy %s: %w", p.Name, err)
	}
	m := newModel(s, p, seed)
	if err := m.run(); err != nil {
		return Result{}, fmt.Errorf("simulate: %w", err)
	}
	return m.result(), nil
}

// round4 rounds to four decimals, which is more than the model's accuracy.
func round4(v float64) float64 { return math.Round(v*1e4) / 1e4 }
