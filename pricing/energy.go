package pricing

import "math"

const joulesPerKWh = 3.6e6

// EnergyFloor is the multiplier at which work sold pays for its electricity:
// joules were drawn while work worth baseMsat at the base rates was delivered.
// overhead is the factor from the GPUs' joules to those on the bill, at least
// 1 (cooling, hosts). ok is false when nothing was delivered or a number
// makes no sense.
//
// An idle GPU draws power too, so over a quiet time joules per work grow
// without bound, and a floor from them would keep buyers away. Use an
// EnergyMeter, which leaves quiet times out.
func EnergyFloor(joules, satPerKWh, overhead, baseMsat float64) (multiplier float64, ok bool) {
	m := joules / joulesPerKWh * satPerKWh * 1000 * overhead / baseMsat
	if !(joules >= 0) || !(satPerKWh >= 0) || !(overhead >= 1) || !(baseMsat > 0) || !(m <= MaxMultiplier) {
		return 0, false
	}
	return m, true
}

// EnergyMeter gathers joules and work over the times in which a pool was put to
// use. Its memory fades, so the floor follows changes of hardware and of mix.
// The zero EnergyMeter is ready. It is not safe for concurrent use.
type EnergyMeter struct {
	joules, baseMsat float64
}

const (
	workingLoad = 0.5  // running/capacity from which on a pool counts as working
	energyKept  = 0.99 // of the past, per addition: at 5 s half of it fades in six minutes
)

// Add counts one interval: the joules drawn, the work delivered in msat at the
// base rates, and the share of the capacity that was running. Intervals less
// than half full, and numbers that make no sense, are left out.
func (m *EnergyMeter) Add(joules, baseMsat, load float64) {
	if !(load >= workingLoad) || !(joules >= 0) || !(baseMsat >= 0) || math.IsInf(joules+baseMsat, 0) {
		return
	}
	m.joules = m.joules*energyKept + joules
	m.baseMsat = m.baseMsat*energyKept + baseMsat
}

// Floor is EnergyFloor of what was gathered; false before the pool was at work.
func (m *EnergyMeter) Floor(satPerKWh, overhead float64) (multiplier float64, ok bool) {
	return EnergyFloor(m.joules, satPerKWh, overhead, m.baseMsat)
}
