package pricing

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// The policies, which say how a price follows the pressure.
const (
	PolicyStatic = "static" // not at all: the price is the rate card
	PolicyCurve  = "curve"  // a piecewise linear curve from pressure to multiplier
	PolicyTarget = "target" // in steps that bring the pressure to a target
	PolicyHook   = "hook"   // a multiplier from the operator's own program
)

// MaxMultiplier bounds every multiplier.
const MaxMultiplier = 1e6

// Params are the settings of one controller. Configuration files and policy files use the YAML names.
type Params struct {
	Policy   string        `yaml:"policy"`
	Interval time.Duration `yaml:"interval"` // time between two steps, 100 ms to 1 h

	Target    float64 `yaml:"target"`    // the pressure that the target policy steers to
	Gain      float64 `yaml:"gain"`      // change of ln price per relative error, in the target policy
	DeadBand  float64 `yaml:"dead_band"` // relative error below which the price does not move
	Smoothing float64 `yaml:"smoothing"` // weight of the newest pressure in the smoothed one, above 0 to 1

	SlewUp   float64 `yaml:"slew_up"`   // most that ln price rises per interval
	SlewDown float64 `yaml:"slew_down"` // most that ln price falls per interval
	Floor    float64 `yaml:"floor"`     // lowest multiplier
	Ceiling  float64 `yaml:"ceiling"`   // highest multiplier

	HalfLife   time.Duration `yaml:"half_life"`   // half-life of ln price on its way back to 1 while the signal is stale
	StaleAfter int           `yaml:"stale_after"` // intervals without a fresh signal before the price falls

	Curve      []Point `yaml:"curve"`      // corners for the curve policy, sorted by pressure
	Hysteresis float64 `yaml:"hysteresis"` // pressure must turn by twice this before the curve's multiplier turns
	Parts      Parts   `yaml:"parts"`      // the weights of the pressure's parts

	// The next two are assumptions about the demand. Only the stability check uses them.
	Elasticity float64 `yaml:"elasticity"` // relative fall of demand per relative rise of the price
	// Delay is the time until a new price shows in the load: service time, scraping, and quotes that
	// are locked.
	Delay time.Duration `yaml:"delay"`
}

// Point is one corner of a curve.
type Point struct {
	Pressure   float64 `yaml:"pressure"`
	Multiplier float64 `yaml:"multiplier"`
}

// DefaultParams returns the policy of a model whose owner chooses none. It is the target policy with
// the default parts, between one and four times the rate card. With these numbers a simulated surge to
// three times the demand keeps the 99th percentile of waits below 5 s for practically every seed. A
// queue that forms within seconds has to be answered within seconds, so the default does not smooth and
// allows fast rises. docs/pricing.md has the comparison.
func DefaultParams() Params {
	return Params{
		Policy: PolicyTarget, Interval: 5 * time.Second,
		Target: 0.78, Gain: 0.2, DeadBand: 0.05, Smoothing: 1,
		SlewUp: 0.40, SlewDown: 0.05, Floor: 1, Ceiling: 4,
		HalfLife: 10 * time.Minute, StaleAfter: 3,
		Curve:      []Point{{0.6, 1}, {0.8, 1.5}, {1, 2.5}, {1.5, 4}},
		Hysteresis: 0.05, Parts: DefaultParts(),
		Elasticity: 1.5, Delay: 20 * time.Second,
	}
}

// Validate returns an error that joins one error for each setting that cannot work, each with the
// setting's name. It returns a warning for each setting that works but is likely to disappoint: a loop
// that oscillates with the assumed demand, or a curve that lies wholly outside floor and ceiling.
func (p Params) Validate() (warnings []string, err error) {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	switch p.Policy {
	case PolicyStatic, PolicyCurve, PolicyTarget, PolicyHook:
	default:
		check(false, "policy: %q is not known, want %s, %s, %s or %s", p.Policy, PolicyTarget, PolicyCurve, PolicyStatic, PolicyHook)
	}
	// Each condition is written so that NaN fails it.
	check(p.Interval >= 100*time.Millisecond && p.Interval <= time.Hour, "interval: want 100ms to 1h, got %v", p.Interval)
	check(p.Target > 0 && p.Target < p.Parts.Clip, "target: want more than 0 and less than parts.clip (%g), got %g", p.Parts.Clip, p.Target)
	check(p.Gain > 0 && p.Gain <= 100, "gain: want more than 0, at most 100, got %g", p.Gain)
	check(p.DeadBand >= 0 && p.DeadBand < 1, "dead_band: want 0 to less than 1, got %g", p.DeadBand)
	check(p.Smoothing > 0 && p.Smoothing <= 1, "smoothing: want more than 0, at most 1, got %g", p.Smoothing)
	check(p.SlewUp > 0 && p.SlewUp <= 100, "slew_up: want more than 0, at most 100, got %g", p.SlewUp)
	check(p.SlewDown > 0 && p.SlewDown <= 100, "slew_down: want more than 0, at most 100, got %g", p.SlewDown)
	check(p.Floor >= 1/MaxMultiplier && p.Floor <= MaxMultiplier, "floor: want %g to %g, got %g", 1/MaxMultiplier, MaxMultiplier, p.Floor)
	check(p.Ceiling >= p.Floor && p.Ceiling <= MaxMultiplier, "ceiling: want floor (%g) to %g, got %g", p.Floor, MaxMultiplier, p.Ceiling)
	check(p.HalfLife > 0, "half_life: want more than 0, got %v", p.HalfLife)
	check(p.StaleAfter >= 1 && p.StaleAfter <= 1000, "stale_after: want 1 to 1000 intervals, got %d", p.StaleAfter)
	check(p.Hysteresis >= 0 && p.Hysteresis < 1, "hysteresis: want 0 to less than 1, got %g", p.Hysteresis)
	check(p.Elasticity > 0 && p.Elasticity <= 100, "elasticity: want more than 0, at most 100, got %g", p.Elasticity)
	check(p.Delay >= 0 && p.Delay <= 24*time.Hour, "delay: want 0 to 24h, got %v", p.Delay)
	p.Parts.validate(check)
	if p.Policy == PolicyCurve {
		validateCurve(p.Curve, check)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p.warnings(), nil
}

func (p Parts) validate(check func(bool, string, ...any)) {
	sum := 0.0
	for _, w := range []struct {
		name   string
		weight float64
	}{{"load", p.Load}, {"kv", p.KV}, {"waiting", p.Waiting}, {"gpu", p.GPU}, {"utilization", p.Utilization}} {
		check(w.weight >= 0 && w.weight <= 100, "parts.%s: want a weight of 0 to 100, got %g", w.name, w.weight)
		sum += w.weight
	}
	check(sum > 0, "parts: all weights are 0, so there is no signal")
	check(p.Clip > 0 && p.Clip <= 1e6, "parts.clip: want more than 0, at most 1e6, got %g", p.Clip)
}

func validateCurve(curve []Point, check func(bool, string, ...any)) {
	check(len(curve) >= 2, "curve: want at least 2 points, got %d", len(curve))
	for i, pt := range curve {
		check(pt.Pressure >= 0 && pt.Pressure <= 1e6, "curve[%d].pressure: want 0 to 1e6, got %g", i, pt.Pressure)
		check(pt.Multiplier > 0 && pt.Multiplier <= MaxMultiplier, "curve[%d].multiplier: want more than 0, at most %g, got %g", i, MaxMultiplier, pt.Multiplier)
		if i > 0 {
			check(pt.Pressure > curve[i-1].Pressure, "curve[%d].pressure: want more than the point before (%g), got %g", i, curve[i-1].Pressure, pt.Pressure)
			check(pt.Multiplier >= curve[i-1].Multiplier, "curve[%d].multiplier: a price must not fall as pressure rises, got %g after %g", i, pt.Multiplier, curve[i-1].Multiplier)
		}
	}
}

func (p Params) warnings() (w []string) {
	if limit := p.StableGain(); p.Policy == PolicyTarget && p.Gain >= limit {
		w = append(w, fmt.Sprintf("the price may oscillate: gain %.3g × elasticity %.3g = %.3g, but with a delay of %v at an interval of %v it must stay below %.3g; "+
			"lower gain below %.3g, or shorten the delay (quote_ttl, scraping)", p.Gain, p.Elasticity, p.Gain*p.Elasticity, p.Delay, p.Interval, limit*p.Elasticity, limit))
	}
	if p.Policy == PolicyCurve {
		first, last := p.Curve[0].Multiplier, p.Curve[len(p.Curve)-1].Multiplier
		if first > p.Ceiling || last < p.Floor {
			w = append(w, fmt.Sprintf("the curve runs from %g to %g, all of it outside floor %g and ceiling %g: the price will never move", first, last, p.Floor, p.Ceiling))
		}
	}
	return w
}

// StableGain returns the gain at which the target policy begins to oscillate, for the assumed
// elasticity ε and delay. The loop is an integrator behind d intervals of delay. Its phase reaches
// -180° where its gain is 2·sin(π/(2(2d+1))), so k·ε has to stay below that value, where k is Gain.
// Smoothing with weight α delays by (1-α)/α intervals on average, which count as a part of d.
func (p Params) StableGain() float64 {
	d := float64(p.Delay)/float64(p.Interval) + (1-p.Smoothing)/p.Smoothing
	return 2 * math.Sin(math.Pi/(2*(2*d+1))) / p.Elasticity
}
