package pricing_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/pricing"
)

func TestDefaultsAreValidAndStable(t *testing.T) {
	if w, err := pricing.DefaultParams().Validate(); err != nil || len(w) > 0 {
		t.Errorf("%q, %v", w, err)
	}
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	nan := math.NaN()
	for want, change := range map[string]func(*pricing.Params){
		"policy: \"surge\"":      func(p *pricing.Params) { p.Policy = "surge" },
		"interval:":              func(p *pricing.Params) { p.Interval = 0 },
		"target:":                func(p *pricing.Params) { p.Target = 3 },
		"gain:":                  func(p *pricing.Params) { p.Gain = nan },
		"dead_band:":             func(p *pricing.Params) { p.DeadBand = -1 },
		"smoothing:":             func(p *pricing.Params) { p.Smoothing = 0 },
		"slew_up:":               func(p *pricing.Params) { p.SlewUp = math.Inf(1) },
		"slew_down:":             func(p *pricing.Params) { p.SlewDown = 0 },
		"floor:":                 func(p *pricing.Params) { p.Floor = 0 },
		"ceiling:":               func(p *pricing.Params) { p.Ceiling = 0.5 },
		"half_life:":             func(p *pricing.Params) { p.HalfLife = 0 },
		"stale_after:":           func(p *pricing.Params) { p.StaleAfter = 0 },
		"hysteresis:":            func(p *pricing.Params) { p.Hysteresis = nan },
		"elasticity:":            func(p *pricing.Params) { p.Elasticity = 0 },
		"delay:":                 func(p *pricing.Params) { p.Delay = -1 },
		"parts.kv:":              func(p *pricing.Params) { p.Parts.KV = -1 },
		"parts: all weights":     func(p *pricing.Params) { p.Parts = pricing.Parts{Clip: 3} },
		"parts.clip:":            func(p *pricing.Params) { p.Parts.Clip = nan },
		"curve: want at least 2": func(p *pricing.Params) { p.Policy, p.Curve = "curve", nil },
		"curve[1].pressure:":     func(p *pricing.Params) { p.Policy, p.Curve[1].Pressure = "curve", 0 },
		"curve[2].multiplier: a price must not fall": func(p *pricing.Params) { p.Policy, p.Curve[2].Multiplier = "curve", 1.1 },
		"curve[0].multiplier:":                       func(p *pricing.Params) { p.Policy, p.Curve[0].Multiplier = "curve", nan },
	} {
		p := pricing.DefaultParams()
		change(&p)
		if _, err := p.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := (pricing.Params{}).Validate(); err == nil || strings.Count(err.Error(), "\n") < 8 {
		t.Errorf("not all that is wrong with nothing at all: %v", err)
	}
}

func TestStabilityViolationIsFlagged(t *testing.T) {
	for name, change := range map[string]func(*pricing.Params){
		"gain":       func(p *pricing.Params) { p.Gain = 1 },
		"elasticity": func(p *pricing.Params) { p.Elasticity = 4 },
		"delay":      func(p *pricing.Params) { p.Delay = 2 * time.Minute },
	} {
		p := pricing.DefaultParams()
		change(&p)
		w, err := p.Validate()
		if err != nil || len(w) != 1 || !strings.Contains(w[0], "may oscillate") {
			t.Errorf("%s: %q, %v", name, w, err)
		}
		p.Gain = 0.99 * p.StableGain()
		if w, err := p.Validate(); err != nil || len(w) > 0 {
			t.Errorf("%s, with a gain that is stable: %q, %v", name, w, err)
		}
	}
	p := pricing.DefaultParams()
	p.Policy, p.Ceiling, p.Curve = pricing.PolicyCurve, 2, []pricing.Point{{Pressure: 0, Multiplier: 3}, {Pressure: 1, Multiplier: 5}}
	if w, err := p.Validate(); err != nil || len(w) != 1 || !strings.Contains(w[0], "will never move") {
		t.Errorf("a curve above the ceiling: %q, %v", w, err)
	}
}

// The limit is compared with a linear form of the loop itself: ln price integrates the smoothed error,
// which shows the price of d intervals ago.
func TestStableGainIsWhereTheLoopBeginsToSwing(t *testing.T) {
	swings := func(gain, smoothing float64, d int) bool {
		history := make([]float64, d+1) // of ln price; the newest is last
		history[d] = 1
		e, early, late := 0.0, 0.0, 0.0
		for i := range 8000 {
			e = smoothing*history[0] + (1-smoothing)*e
			next := history[d] - gain*e
			history = append(history[1:], next)
			if i < 1000 {
				early = max(early, math.Abs(next))
			}
			if i >= 7000 {
				late = max(late, math.Abs(next))
			}
		}
		return !(late < early)
	}
	for _, smoothing := range []float64{1, 0.5} {
		for d := range 12 {
			p := pricing.DefaultParams()
			p.Elasticity, p.Smoothing, p.Delay = 1, smoothing, time.Duration(d)*p.Interval
			limit := p.StableGain()
			if swings(0.95*limit, smoothing, d) {
				t.Errorf("smoothing %g, delay %d: swings below the limit %g", smoothing, d, limit)
			}
			// The delay of smoothing is an approximation, which is on the safe side if d is small.
			if smoothing == 1 && !swings(1.05*limit, smoothing, d) || d > 3 && !swings(1.3*limit, smoothing, d) {
				t.Errorf("smoothing %g, delay %d: does not swing above the limit %g", smoothing, d, limit)
			}
		}
	}
}
