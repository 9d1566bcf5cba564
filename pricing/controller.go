package pricing

import (
	"math"
	"time"
)

// Controller moves the price of one model. It is pure, a function of its
// parameters and what it was told, and not safe for concurrent use.
//
// For any observation the decided multiplier is a positive number within floor
// and ceiling, and no further than one slew step per interval from the one
// before. Only fixed prices stand above that: the static policy, which is the
// rate card, and the kill switch (Observation.Fixed).
type Controller struct {
	p          Params
	multiplier float64
	smoothed   float64
	anchor     float64   // of the curve's hysteresis; NaN: none yet
	seen       time.Time // of the newest reading that was smoothed in
	fresh      time.Time // since when the signal may have gone stale
	stepped    time.Time // of the last step, or of the epoch taken over
	last       Decision
}

// State is what a controller starts from after a restart: the last epoch's
// multiplier and signal, and when it was published. The zero State starts at
// the rate card, idle.
type State struct {
	Multiplier float64 // 0: none yet
	Smoothed   float64
	At         time.Time
}

// Observation is what there is to decide from at one moment.
type Observation struct {
	At       time.Time
	Pressure float64 // of Parts.Pressure
	OK       bool    // the pressure is fresh and sane
	Floor    float64 // lowest multiplier, from the cost of energy; 0: none
	Hook     float64 // multiplier that the operator's program gave; 0 or NaN: none that is fresh
	Fixed    float64 // the kill switch: this multiplier, at once; 0: off
}

// Decision is the outcome of a step.
type Decision struct {
	Multiplier float64
	Signal     float64 // the smoothed pressure that was followed
	BoundBy    string  // what decided: one of BoundFixed … BoundStale
}

// NewController starts from state. The parameters must have passed Validate. A
// multiplier outside of floor and ceiling, as after they were changed, starts
// at the nearer one.
func NewController(p Params, state State) *Controller {
	c := &Controller{p: p, multiplier: 1, anchor: math.NaN(), stepped: state.At}
	if sane(state.Multiplier) {
		c.multiplier = state.Multiplier
	}
	if state.Smoothed > 0 {
		c.smoothed = min(state.Smoothed, p.Parts.Clip)
	}
	c.multiplier = c.bounded(c.multiplier)
	return c
}

// Observe takes a reading in without deciding, as a replica does that is not
// the writer: should it become the writer, it knows the load already.
func (c *Controller) Observe(o Observation) {
	if c.fresh.IsZero() {
		c.fresh = o.At
	}
	if o.OK && o.Pressure >= 0 && !o.At.Equal(c.seen) {
		next := c.p.Smoothing*min(o.Pressure, c.p.Parts.Clip) + (1-c.p.Smoothing)*c.smoothed
		c.smoothed = min(next, c.p.Parts.Clip) // rounding must not carry it above
		c.seen = o.At
	}
	if c.usable(o) {
		c.fresh = o.At
	}
}

// usable says whether o tells what the policy follows.
func (c *Controller) usable(o Observation) bool {
	if c.p.Policy == PolicyHook {
		return sane(o.Hook)
	}
	return o.OK && o.Pressure >= 0
}

// Follow takes over a price that another process decided.
func (c *Controller) Follow(multiplier float64, at time.Time) {
	if sane(multiplier) {
		c.multiplier, c.stepped = c.bounded(multiplier), at
	}
}

// State is what a later controller would start from.
func (c *Controller) State() State {
	return State{Multiplier: c.multiplier, Smoothed: c.smoothed, At: c.stepped}
}

// Step observes o and decides the price, once per interval. A step that comes
// within half an interval of the last one, or of the epoch taken over, changes
// nothing: two writers in a row do not move a price twice.
func (c *Controller) Step(o Observation) Decision {
	c.Observe(o)
	since := o.At.Sub(c.stepped)
	d := Decision{Signal: c.smoothed}
	switch {
	case sane(o.Fixed):
		c.multiplier, d.BoundBy = o.Fixed, BoundFixed
	case c.p.Policy == PolicyStatic:
		c.multiplier, d.BoundBy = 1, BoundFixed
	case !c.stepped.IsZero() && since >= 0 && since < c.p.Interval/2:
		d.BoundBy = c.last.BoundBy
		if d.BoundBy == "" {
			d.BoundBy = BoundNone
		}
		d.Multiplier = c.multiplier
		return d
	case !c.usable(o):
		d.BoundBy = c.stale(o.At, since)
	default:
		d.BoundBy = c.move(c.wanted(o), o.Floor)
	}
	d.Multiplier = c.multiplier
	c.stepped, c.last = o.At, d
	return d
}

// stale freezes the price; once nothing usable came for StaleAfter intervals it
// lets it sink to 1, halving its way there every HalfLife. It never raises it.
func (c *Controller) stale(now time.Time, since time.Duration) string {
	c.multiplier = c.bounded(c.multiplier) // after the kill switch
	if now.Sub(c.fresh) < time.Duration(c.p.StaleAfter)*c.p.Interval {
		return BoundNone
	}
	if at := math.Log(c.multiplier); at > 0 && since > 0 {
		step := at * (math.Exp2(-float64(since)/float64(c.p.HalfLife)) - 1)
		c.multiplier = c.bounded(math.Exp(at + max(step, -c.p.SlewDown)))
	}
	return BoundStale
}

// wanted is the change of ln price that the policy asks for.
func (c *Controller) wanted(o Observation) float64 {
	switch c.p.Policy {
	case PolicyCurve:
		if math.IsNaN(c.anchor) {
			c.anchor = c.smoothed
		}
		// Play: the anchor is dragged along at a distance.
		c.anchor = min(max(c.anchor, c.smoothed-c.p.Hysteresis), c.smoothed+c.p.Hysteresis)
		return math.Log(onCurve(c.p.Curve, c.anchor) / c.multiplier)
	case PolicyHook:
		return math.Log(o.Hook / c.multiplier)
	default:
		e := (c.smoothed - c.p.Target) / c.p.Target
		if math.Abs(e) < c.p.DeadBand {
			return 0
		}
		return c.p.Gain * e
	}
}

// move takes a step of ln price as far as slew, floor and ceiling let it, and
// says which of them decided. A floor from energy pulls the price up no faster
// than the slew, and no higher than the ceiling.
func (c *Controller) move(step, energyFloor float64) string {
	start, bound := c.bounded(c.multiplier), BoundNone
	next := start
	if limited := min(max(step, -c.p.SlewDown), c.p.SlewUp); limited != step {
		next, bound = start*math.Exp(limited), BoundSlew
	} else if step != 0 {
		next = start * math.Exp(step)
	}
	floor := c.p.Floor
	if energyFloor > floor && energyFloor <= MaxMultiplier {
		floor = min(energyFloor, c.p.Ceiling)
	}
	if next < floor {
		next, bound = min(floor, start*math.Exp(c.p.SlewUp)), BoundFloor
	}
	if next > c.p.Ceiling {
		next, bound = c.p.Ceiling, BoundCeiling
	}
	c.multiplier = c.bounded(next)
	return bound
}

// bounded is m within floor and ceiling.
func (c *Controller) bounded(m float64) float64 {
	return min(max(m, c.p.Floor), c.p.Ceiling)
}

// sane says whether m can be a multiplier.
func sane(m float64) bool { return m > 0 && m <= MaxMultiplier }

// onCurve interpolates between the corners; beyond the first and the last the
// curve is flat.
func onCurve(curve []Point, x float64) float64 {
	last := curve[0]
	for _, p := range curve {
		if x <= p.Pressure {
			if p.Pressure == last.Pressure {
				return p.Multiplier
			}
			share := (x - last.Pressure) / (p.Pressure - last.Pressure)
			return last.Multiplier + share*(p.Multiplier-last.Multiplier)
		}
		last = p
	}
	return last.Multiplier
}
