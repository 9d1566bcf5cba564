package telemetry

import (
	"math"
	"time"
)

// Totals are what a feed added up over one device since it first saw it. They
// never fall: not when a counter begins again, nor when the device vanishes.
type Totals struct {
	Joules float64 // consumed; NaN: the device has no energy counter

	busy float64 // GPU-seconds until at
	rate float64 // GPU-seconds per second since then
	at   time.Time
	hold time.Duration
}

// Busy is how many seconds the device has been busy until now: the integral of
// BusyShare. Between two readings the last one holds, for at most the feed's
// Hold. It never falls.
func (t Totals) Busy(now time.Time) float64 {
	return t.busy + t.rate*held(now.Sub(t.at), t.hold)
}

// BusyShare is the share of time in which the device works, as GPU-seconds
// count it: its utilization, or SM utilization where there is no other (a MIG
// instance). NaN: not known.
func (d *Device) BusyShare() float64 {
	if math.IsNaN(d.Utilization) {
		return d.SM
	}
	return d.Utilization
}

// maxTracks bounds what a feed remembers of devices that vanished.
const maxTracks = 4 * maxDevices

// accumulator adds up over the devices of one feed.
type accumulator struct {
	hold       time.Duration
	tracks     []track
	known      map[string]int // by UUID
	generation uint64         // counts changes of known
	round      uint64         // counts readings
}

// track is one device over time.
type track struct {
	Totals
	uuid   string
	round  uint64 // of the reading that had it last
	gone   bool
	energy float64 // the counter, when it was read last; NaN: never
	readAt time.Time
}

type counter uint8

const (
	counterRuns  counter = iota
	counterReset         // began again
	counterJump          // by more than the device can have consumed
)

// pass adds up the time until now, at the rates of the last reading, each for
// at most its hold.
func (t *accumulator) pass(now time.Time) {
	t.round++
	for i := range t.tracks {
		c := &t.tracks[i]
		c.busy, c.at, c.rate = c.Busy(now), now, 0
	}
}

func held(d, hold time.Duration) float64 { return min(max(0, d), hold).Seconds() }

// of returns the track of a device that is there, a fresh one if it is new.
func (t *accumulator) of(uuid string, now time.Time) *track {
	i, ok := t.known[uuid]
	if !ok {
		if t.known == nil {
			t.known = map[string]int{}
		}
		i = len(t.tracks)
		t.known[uuid] = i
		t.generation++
		t.tracks = append(t.tracks, track{uuid: uuid, energy: math.NaN(), Totals: Totals{Joules: math.NaN(), at: now, hold: t.hold}})
	}
	c := &t.tracks[i]
	c.round, c.gone = t.round, false
	return c
}

// take reads the device.
func (c *track) take(d *Device, now time.Time) counter {
	if share := d.BusyShare(); share > 0 {
		c.rate = share
	}
	if math.IsNaN(d.Energy) {
		return counterRuns
	}
	step, since := d.Energy-c.energy, now.Sub(c.readAt)
	c.energy, c.readAt = d.Energy, now
	switch {
	case math.IsNaN(step): // the first reading
		c.Joules = 0
	case step < 0:
		return counterReset
	case step > mostPower(d)*(since.Seconds()+1): // counters are updated up to a second late
		return counterJump
	default:
		c.Joules += step
	}
	return counterRuns
}

// mostPower is what a device can draw, in watts, spikes included.
func mostPower(d *Device) float64 {
	if d.PowerLimit > 0 {
		return min(maxPower, 2*d.PowerLimit)
	}
	return maxPower
}

// vanished tells once of each device that is not in this reading.
func (t *accumulator) vanished(tell func(uuid string)) {
	for i := range t.tracks {
		if c := &t.tracks[i]; !c.gone && c.round != t.round {
			c.gone = true
			tell(c.uuid)
		}
	}
}

// forget drops the devices that vanished.
func (t *accumulator) forget() {
	kept := t.tracks[:0]
	clear(t.known)
	for _, c := range t.tracks {
		if !c.gone {
			t.known[c.uuid] = len(kept)
			kept = append(kept, c)
		}
	}
	t.tracks = kept
	t.generation++
}

func (t *accumulator) totals() []Totals {
	list := make([]Totals, len(t.tracks))
	for i := range t.tracks {
		list[i] = t.tracks[i].Totals
	}
	return list
}
