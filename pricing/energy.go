package pricing

import "math"

const joulesPerKWh = 3.6e6

// EnergyFloor returns the multiplier at which the work sold pays for its electricity. joules is the
// energy that the GPUs drew while they delivered work that costs baseMsat at the base rates. overhead
// is the factor from the GPUs' joules to the joules on the bill (cooling, hosts), and is at least 1. ok
// is false if nothing was delivered or a number is impossible.
//
// An idle GPU draws power too. So over a quiet time the joules per work grow without bound, and a floor
// computed from them would keep buyers away. Callers use an EnergyMeter, which leaves quiet times out.
func EnergyFloor(joules, satPerKWh, overhead, baseMsat float64) (multiplier float64, ok bool) {
	m := joules / joulesPerKWh * satPerKWh * 1000 * overhead / baseMsat
	if !(joules >= 0) || !(satPerKWh >= 0) || !(overhead >= 1) || !(baseMsat > 0) || !(m <= MaxMultiplier) {
		return 0, false
	}
	return m, true
}

// EnergyMeter adds up joules and work over the times in which a pool was busy. Old intervals count less
// and less, so that the floor follows changes of the hardware and of the kinds of requests. The zero
// EnergyMeter is ready for use. It is not safe for concurrent use.
type EnergyMeter struct {
	joules, baseMsat float64
}

const (
	workingLoad = 0.5 // running/capacity from which a pool counts as working
	// energyKept is the share of the past that each addition keeps. At an addition every 5 s, half of
	// the past is gone after six minutes.
	energyKept = 0.99
)

// Add counts one interval: the joules drawn, the work delivered in msat at the base rates, and the
// share of the capacity that was running. It ignores intervals that are less than half full, and
// numbers that are impossible.
func (m *EnergyMeter) Add(joules, baseMsat, load float64) {
	if !(load >= workingLoad) || !(joules >= 0) || !(baseMsat >= 0) || math.IsInf(joules+baseMsat, 0) {
		return
	}
	m.joules = m.joules*energyKept + joules
	m.baseMsat = m.baseMsat*energyKept + baseMsat
}

// Floor returns EnergyFloor of what was added up. ok is false before the pool was at work.
func (m *EnergyMeter) Floor(satPerKWh, overhead float64) (multiplier float64, ok bool) {
	return EnergyFloor(m.joules, satPerKWh, overhead, m.baseMsat)
}
