package pricing

import (
	"math"
	"time"
)

// Controller moves the price of one model. Its decisions depend only on its parameters and on what it
// was told. It is not safe for concurrent use.
//
// For any observation the decided multiplier is a positive number within floor and ceiling. It differs
// from the multiplier before by at most one slew step per interval. Only fixed prices are not bound by
// these rules: the static policy, which is the rate card, and the kill switch (Observation.Fixed).
type Controller struct {
	p          Params
	multiplier float64
	smoothed   float64
	anchor     float64   // anchor of the curve's hysteresis; NaN means that there is none yet
	seen       time.Time // time of the newest reading that was smoothed in
	fresh      time.Time // time of the last usable observation, or of the first observation
	stepped    time.Time // time of the last step, or of the epoch taken over
	last       Decision
}

// State is what a controller starts from after a restart: the last epoch's multiplier and signal, and
// when that epoch was published. The zero State means multiplier 1 and a signal of 0.
type State struct {
	Multiplier float64 // 0 means that there is none yet
	Smoothed   float64
	At         time.Time
}

// Observation is what a controller decides from at one moment.
type Observation struct {
	// At is the time of the reading.
	At       time.Time
	Pressure float64 // see Parts.Pressure
	OK       bool    // the pressure is fresh and possible
	Floor    float64 // lowest multiplier that pays for the energy; 0 means none
	Hook     float64 // multiplier from the operator's program; 0 or NaN means none is fresh
	Fixed    float64 // the kill switch sets this multiplier at once; 0 means off
}

// Decision is the outcome of a step.
type Decision struct {
	Multiplier float64
	Signal     float64 // the smoothed pressure that was followed
	BoundBy    string  // the rule that decided: one of BoundFixed … BoundStale
}

// NewController makes a controller that starts from state. The parameters must have passed Validate. A
// multiplier outside floor and ceiling is moved to the nearer of the two. This happens if the operator
// has changed floor or ceiling.
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

// Observe records a reading and does not decide. A replica that is not the writer calls Observe, so that
// it knows the load already if it becomes the writer.
func (c *Controller) Observe(o Observation) {
	if c.fresh.IsZero() {
		c.fresh = o.At
	}
	if o.OK && o.Pressure >= 0 && !o.At.Equal(c.seen) {
		next := c.p.Smoothing*min(o.Pressure, c.p.Parts.Clip) + (1-c.p.Smoothing)*c.smoothed
		c.smoothed = min(next, c.p.Parts.Clip) // rounding must not make it exceed Clip
		c.seen = o.At
	}
	if c.usable(o) {
		c.fresh = o.At
	}
}

// usable says whether o holds what the policy follows.
func (c *Controller) usable(o Observation) bool {
	if c.p.Policy == PolicyHook {
		return sane(o.Hook)
	}
	return o.OK && o.Pressure >= 0
}

// Follow takes over a price that another process decided at the time at.
func (c *Controller) Follow(multiplier float64, at time.Time) {
	if sane(multiplier) {
		c.multiplier, c.stepped = c.bounded(multiplier), at
	}
}

// State returns the state from which a later controller would start.
func (c *Controller) State() State {
	return State{Multiplier: c.multiplier, Smoothed: c.smoothed, At: c.stepped}
}

// Step observes o and decides the price. The caller calls it once per interval. A step within half an
// interval after the last step, or after the epoch taken over, changes nothing. So two writers in a row
// do not move a price twice. Fixed prices take effect at any time.
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

// stale keeps the price as it is. Once no usable observation came for StaleAfter intervals, it lowers a
// price above 1 towards 1, and halves the distance of ln price every HalfLife. It never raises the
// price.
func (c *Controller) stale(now time.Time, since time.Duration) string {
	c.multiplier = c.bounded(c.multiplier) // the kill switch may have left it outside
	if now.Sub(c.fresh) < time.Duration(c.p.StaleAfter)*c.p.Interval {
		return BoundNone
	}
	if at := math.Log(c.multiplier); at > 0 && since > 0 {
		step := at * (math.Exp2(-float64(since)/float64(c.p.HalfLife)) - 1)
		c.multiplier = c.bounded(math.Exp(at + max(step, -c.p.SlewDown)))
	}
	return BoundStale
}

// wanted returns the change of ln price that the policy asks for.
func (c *Controller) wanted(o Observation) float64 {
	switch c.p.Policy {
	case PolicyCurve:
		if math.IsNaN(c.anchor) {
			c.anchor = c.smoothed
		}
		// The anchor follows the smoothed pressure, and stays at most Hysteresis away from it.
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

// move changes ln price by step, as far as slew, floor and ceiling allow. It returns which of these
// rules decided. A floor from energy raises the price no faster than the slew allows, and not above the
// ceiling.
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

// bounded returns m, moved into the range from floor to ceiling.
func (c *Controller) bounded(m float64) float64 {
	return min(max(m, c.p.Floor), c.p.Ceiling)
}

// sane says whether m can be a multiplier.
func sane(m float64) bool { return m > 0 && m <= MaxMultiplier }

// onCurve interpolates between the corners of the curve. Before the first corner and after the last the
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
