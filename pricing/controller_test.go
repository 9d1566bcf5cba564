package pricing_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"sluice.example/sluice/pricing"
)

// drive steps a controller at its own interval.
type drive struct {
	c        *pricing.Controller
	interval time.Duration
	now      time.Time
}

func newDrive(t *testing.T, start pricing.State, change func(*pricing.Params)) *drive {
	t.Helper()
	p := pricing.DefaultParams()
	// The numbers are round, so that steps can be computed by hand.
	p.Target, p.Gain, p.Smoothing, p.SlewUp, p.SlewDown = 0.8, 0.125, 0.5, 0.10, 0.05
	if change != nil {
		change(&p)
	}
	if _, err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	return &drive{c: pricing.NewController(p, start), interval: p.Interval, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

func (d *drive) step(o pricing.Observation) pricing.Decision {
	d.now = d.now.Add(d.interval)
	o.At = d.now
	return d.c.Step(o)
}

func (d *drive) at(pressure float64) pricing.Decision {
	return d.step(pricing.Observation{Pressure: pressure, OK: true})
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestTargetRule(t *testing.T) {
	d := newDrive(t, pricing.State{Multiplier: 2, Smoothed: 0.8}, nil)
	for i, want := range []struct {
		pressure, signal, ln float64
		bound                string
	}{
		{0.8, 0.8, 0, pricing.BoundNone},
		{0.86, 0.83, 0, pricing.BoundNone}, // inside the dead band
		{0.97, 0.9, 0.125 * 0.125, pricing.BoundNone},
		{2.9, 1.9, 0.10, pricing.BoundSlew}, // ⅛ · 1.375 is more than the slew
		{0, 0.95, 0.125 * 0.1875, pricing.BoundNone},
		{0, 0.475, -0.05, pricing.BoundSlew},
		{0.765, 0.62, -0.125 * 0.225, pricing.BoundNone},
	} {
		before := d.c.State().Multiplier
		got := d.at(want.pressure)
		if !near(got.Signal, want.signal) || !near(math.Log(got.Multiplier/before), want.ln) || got.BoundBy != want.bound {
			t.Errorf("step %d: %+v after %g, want signal %g, ln step %g, %s", i, got, before, want.signal, want.ln, want.bound)
		}
	}
}

func TestFloorAndCeilingDecideAtTheEnds(t *testing.T) {
	d := newDrive(t, pricing.State{}, nil)
	if got := d.at(0); got.Multiplier != 1 || got.BoundBy != pricing.BoundFloor {
		t.Errorf("idle: %+v", got)
	}
	var got pricing.Decision
	for range 20 {
		got = d.at(3)
	}
	if got.Multiplier != 4 || got.BoundBy != pricing.BoundCeiling {
		t.Errorf("overloaded: %+v", got)
	}
}

func TestChangedLimitsHoldFromTheFirstStep(t *testing.T) {
	d := newDrive(t, pricing.State{Multiplier: 9, Smoothed: 0.8}, nil)
	if got := d.at(0.8); got.Multiplier != 4 {
		t.Errorf("started at %+v, ceiling 4", got)
	}
}

func TestStaleSignalFreezesThenSinksToTheRateCard(t *testing.T) {
	d := newDrive(t, pricing.State{Multiplier: 4, Smoothed: 3}, nil)
	d.at(0.8)
	start := d.c.State().Multiplier
	blind := pricing.Observation{Pressure: math.NaN()}
	for range 2 {
		if got := d.step(blind); got.Multiplier != start || got.BoundBy != pricing.BoundNone {
			t.Fatalf("within three intervals: %+v, want %g", got, start)
		}
	}
	var got pricing.Decision
	for range 120 { // ten minutes, which is one half-life
		got = d.step(blind)
	}
	if want := math.Sqrt(start); got.BoundBy != pricing.BoundStale || math.Abs(got.Multiplier-want) > 0.01 {
		t.Errorf("after one half-life: %+v, want %g", got, want)
	}
	if got = d.at(3); got.BoundBy == pricing.BoundStale || got.Signal < 1 {
		t.Errorf("after a fresh reading: %+v", got)
	}
}

func TestStaleSignalNeverRaisesAPrice(t *testing.T) {
	d := newDrive(t, pricing.State{Multiplier: 0.5}, func(p *pricing.Params) { p.Floor = 0.25 })
	for range 500 {
		if got := d.step(pricing.Observation{Pressure: 2, Floor: 3}); got.Multiplier != 0.5 {
			t.Fatalf("%+v, want 0.5", got)
		}
	}
}

func TestKillSwitch(t *testing.T) {
	d := newDrive(t, pricing.State{Multiplier: 3, Smoothed: 3}, nil)
	if got := d.step(pricing.Observation{Pressure: 3, OK: true, Fixed: 7}); got.Multiplier != 7 || got.BoundBy != pricing.BoundFixed {
		t.Errorf("on: %+v", got)
	}
	if got := d.step(pricing.Observation{Fixed: 0.1}); got.Multiplier != 0.1 || got.BoundBy != pricing.BoundFixed {
		t.Errorf("without telemetry: %+v", got)
	}
	if got := d.at(3); !near(got.Multiplier, math.Exp(0.1)) {
		t.Errorf("lifted: %+v, want one step from the floor", got)
	}
	if got := d.step(pricing.Observation{Fixed: math.Inf(1)}); got.BoundBy == pricing.BoundFixed {
		t.Errorf("a multiplier that is none: %+v", got)
	}
}

func TestEnergyFloorPullsUpWithinSlewAndCeiling(t *testing.T) {
	d := newDrive(t, pricing.State{}, nil)
	o := pricing.Observation{OK: true, Floor: 1.5}
	if got := d.step(o); !near(got.Multiplier, math.Exp(0.10)) || got.BoundBy != pricing.BoundFloor {
		t.Errorf("first step: %+v", got)
	}
	for range 10 {
		d.step(o)
	}
	if got := d.step(o); got.Multiplier != 1.5 || got.BoundBy != pricing.BoundFloor {
		t.Errorf("settled: %+v", got)
	}
	for range 30 {
		d.step(pricing.Observation{OK: true, Floor: 100})
	}
	if got := d.c.State().Multiplier; got != 4 {
		t.Errorf("energy dearer than the ceiling: %g", got)
	}
	if got := d.step(pricing.Observation{OK: true, Floor: math.NaN()}); got.Multiplier >= 4 {
		t.Errorf("a floor that is none: %+v", got)
	}
}

func TestCurveWithHysteresis(t *testing.T) {
	d := newDrive(t, pricing.State{}, func(p *pricing.Params) {
		p.Policy, p.Smoothing, p.Hysteresis, p.SlewUp, p.SlewDown = pricing.PolicyCurve, 1, 0.1, 10, 10
		p.Curve = []pricing.Point{{Pressure: 0, Multiplier: 1}, {Pressure: 1, Multiplier: 3}}
	})
	for i, want := range [][2]float64{
		{0.5, 2},   // the first reading counts as it is
		{0.55, 2},  // within the hysteresis
		{0.8, 2.4}, // the anchor follows, 0.1 behind
		{0.65, 2.4},
		{0.5, 2.2},
		{2, 3},
	} {
		if got := d.at(want[0]); !near(got.Multiplier, want[1]) {
			t.Errorf("step %d: at %g %+v, want %g", i, want[0], got, want[1])
		}
	}
}

func TestHook(t *testing.T) {
	d := newDrive(t, pricing.State{}, func(p *pricing.Params) { p.Policy = pricing.PolicyHook })
	if got := d.step(pricing.Observation{Hook: 1.05}); !near(got.Multiplier, 1.05) || got.BoundBy != pricing.BoundNone {
		t.Errorf("%+v", got)
	}
	if got := d.step(pricing.Observation{Hook: 1000, Pressure: 0.5, OK: true}); !near(got.Multiplier, 1.05*math.Exp(0.1)) || got.BoundBy != pricing.BoundSlew {
		t.Errorf("an absurd hook: %+v", got)
	}
	before := d.c.State().Multiplier
	for _, none := range []float64{math.NaN(), 0, -1, math.Inf(1)} {
		if got := d.step(pricing.Observation{Hook: none, Pressure: 3, OK: true}); got.Multiplier > before {
			t.Errorf("hook %g: %+v", none, got)
		}
	}
	if got := d.step(pricing.Observation{}); got.BoundBy != pricing.BoundStale {
		t.Errorf("a hook that fell silent: %+v", got)
	}
}

func TestStaticIsTheRateCard(t *testing.T) {
	d := newDrive(t, pricing.State{Multiplier: 3}, func(p *pricing.Params) { p.Policy = pricing.PolicyStatic })
	if got := d.step(pricing.Observation{Pressure: 3, OK: true, Floor: 2}); got.Multiplier != 1 || got.BoundBy != pricing.BoundFixed {
		t.Errorf("%+v", got)
	}
}

func TestTwoWritersInARowMoveAPriceOnce(t *testing.T) {
	d := newDrive(t, pricing.State{Multiplier: 2, Smoothed: 3}, nil)
	other := newDrive(t, pricing.State{Multiplier: 2, Smoothed: 3}, nil)
	first := d.at(3)
	other.c.Observe(pricing.Observation{At: d.now, Pressure: 3, OK: true})
	other.c.Follow(first.Multiplier, d.now)
	if got := other.c.Step(pricing.Observation{At: d.now.Add(time.Second), Pressure: 3, OK: true}); got.Multiplier != first.Multiplier {
		t.Errorf("one second after the hand-over: %+v, want %g", got, first.Multiplier)
	}
	got := other.c.Step(pricing.Observation{At: d.now.Add(d.interval), Pressure: 3, OK: true})
	if !near(got.Multiplier, first.Multiplier*math.Exp(0.1)) {
		t.Errorf("one interval after the hand-over: %+v", got)
	}
}

func TestTheSameReadingIsSmoothedOnce(t *testing.T) {
	d := newDrive(t, pricing.State{}, nil)
	o := pricing.Observation{At: d.now, Pressure: 2, OK: true}
	d.c.Observe(o)
	d.c.Observe(o)
	if got := d.c.Step(o); got.Signal != 1 {
		t.Errorf("signal %g, want 1", got.Signal)
	}
}

func TestClockSetBack(t *testing.T) {
	d := newDrive(t, pricing.State{Multiplier: 2, Smoothed: 3}, nil)
	d.at(3)
	d.now = d.now.Add(-time.Hour)
	if before, got := d.c.State().Multiplier, d.at(3); !(got.Multiplier > before) {
		t.Errorf("%+v after %g: the price stands still until the clock has caught up", got, before)
	}
}

// odd returns a reading. Most are plausible, and some are what broken telemetry reports.
func odd(r *rand.Rand, most float64) float64 {
	switch r.IntN(12) {
	case 0:
		return math.NaN()
	case 1:
		return math.Inf(r.IntN(2)*2 - 1)
	case 2:
		return -r.Float64() * most
	case 3:
		return r.Float64() * 1e300
	}
	return r.Float64() * most
}

func randomParams(r *rand.Rand) pricing.Params {
	p := pricing.DefaultParams()
	p.Policy = []string{pricing.PolicyTarget, pricing.PolicyTarget, pricing.PolicyCurve, pricing.PolicyHook}[r.IntN(4)]
	p.Interval = time.Duration(100+r.IntN(60_000)) * time.Millisecond
	p.Target = 0.1 + 2*r.Float64()
	p.Gain, p.Smoothing, p.DeadBand = 0.001+10*r.Float64(), 0.01+0.99*r.Float64(), 0.5*r.Float64()
	p.SlewUp, p.SlewDown = 0.001+r.Float64(), 0.001+r.Float64()
	p.Floor = math.Exp(4 * (r.Float64() - 0.5))
	p.Ceiling = p.Floor * math.Exp(5*r.Float64())
	p.HalfLife, p.StaleAfter = time.Duration(1+r.IntN(1e12)), 1+r.IntN(5)
	p.Hysteresis = 0.3 * r.Float64()
	p.Curve = []pricing.Point{{Pressure: r.Float64(), Multiplier: 0.5}, {Pressure: 1 + r.Float64(), Multiplier: 1 + 9*r.Float64()}}
	return p
}

// This test checks the limits of prices for any load. It draws 10,000 loads at random, and follows each
// for 40 intervals with random parameters.
func TestGuardRailsOverRandomLoads(t *testing.T) {
	base := pricing.Rates{pricing.InputTokens: 150_000, pricing.CachedInputTokens: 1, pricing.OutputTokens: pricing.MaxRate, pricing.Calls: 10}
	for seed := range uint64(10_000) {
		r := rand.New(rand.NewPCG(seed, 0))
		p := randomParams(r)
		if _, err := p.Validate(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		c := pricing.NewController(p, pricing.State{Multiplier: odd(r, 5), Smoothed: odd(r, 3)})
		now := time.Unix(1e9, 0)
		last := c.State().Multiplier
		for range 40 {
			now = now.Add(p.Interval * time.Duration(1+r.IntN(3)))
			s, ok := p.Parts.Pressure(pricing.Load{Running: odd(r, 64), Waiting: odd(r, 64), Capacity: odd(r, 64), InFlight: odd(r, 64),
				KV: odd(r, 1), SM: odd(r, 1), Utilization: odd(r, 1)})
			if ok && !(s >= 0 && s <= p.Parts.Clip) {
				t.Fatalf("seed %d: pressure %g", seed, s)
			}
			if r.IntN(4) == 0 {
				s, ok = odd(r, 3), r.IntN(2) == 0
			}
			d := c.Step(pricing.Observation{At: now, Pressure: s, OK: ok, Floor: odd(r, 3), Hook: odd(r, 5)})
			if !(d.Multiplier >= p.Floor && d.Multiplier <= p.Ceiling) || !(d.Signal >= 0 && d.Signal <= p.Parts.Clip) {
				t.Fatalf("seed %d: %+v, floor %g, ceiling %g", seed, d, p.Floor, p.Ceiling)
			}
			step := math.Log(d.Multiplier / last)
			if !(step <= p.SlewUp+1e-9 && step >= -p.SlewDown-1e-9) {
				t.Fatalf("seed %d: a step of %g, slew %g and %g", seed, step, p.SlewUp, p.SlewDown)
			}
			if d.BoundBy == pricing.BoundStale && step > 0 {
				t.Fatalf("seed %d: a stale signal raised the price by %g", seed, step)
			}
			rates := base.Scale(d.Multiplier)
			if err := rates.Validate(); err != nil || rates[pricing.InputTokens] < 1 || rates[pricing.CachedInputTokens] < 1 || rates[pricing.Calls] < 1 || rates[pricing.Bytes] != 0 {
				t.Fatalf("seed %d: %+v, %v", seed, rates, err)
			}
			last = d.Multiplier
		}
	}
}

func BenchmarkStep(b *testing.B) {
	p := pricing.DefaultParams()
	c := pricing.NewController(p, pricing.State{})
	now := time.Unix(0, 0)
	for b.Loop() {
		now = now.Add(p.Interval)
		s, ok := p.Parts.Pressure(pricing.Load{Running: 25, Waiting: 2, Capacity: 32, InFlight: 25, KV: 0.4, SM: math.NaN(), Utilization: 0.97})
		c.Step(pricing.Observation{At: now, Pressure: s, OK: ok})
	}
}
