package telemetry

import (
	"math"
	"time"
)

// Totals holds what a feed added up over one device since it first saw the device. Totals never fall,
// neither when a counter begins again nor when the device vanishes.
type Totals struct {
	Joules float64 // consumed; NaN means that the device has no energy counter

	busy float64 // GPU-seconds until at
	rate float64 // GPU-seconds per second since at
	// at is the time of the last reading.
	at time.Time
	// hold is how long after at the rate counts.
	hold time.Duration
}

// Busy returns how many seconds the device has been busy until now, which is the integral of BusyShare.
// Between two readings the value of the earlier reading counts, for at most the feed's Hold. Busy never
// falls.
func (t Totals) Busy(now time.Time) float64 {
	return t.busy + t.rate*held(now.Sub(t.at), t.hold)
}

// BusyShare returns the share of time in which the device works, 0..1, as GPU-seconds count it. It is
// the device's utilization, or its SM utilization if there is no other (a MIG instance). NaN means not
// known.
func (d *Device) BusyShare() float64 {
	if math.IsNaN(d.Utilization) {
		return d.SM
	}
	return d.Utilization
}

// maxTracks bounds how many devices a feed remembers, including those that vanished.
const maxTracks = 4 * maxDevices

// accumulator adds up the busy time and energy of the devices of one feed.
type accumulator struct {
	hold       time.Duration
	tracks     []track
	known      map[string]int // index in tracks by UUID
	generation uint64         // counts the changes of the map known
	round      uint64         // counts readings
}

// track is one device over time.
type track struct {
	Totals
	uuid  string
	round uint64 // round of the last reading that held the device
	// gone says that the device has vanished.
	gone   bool
	energy float64 // the counter at the last reading, in joules; NaN means never read
	// readAt is when energy was read.
	readAt time.Time
}

type counter uint8

const (
	counterRuns  counter = iota
	counterReset         // the counter began again
	counterJump          // the counter rose by more than the device can have consumed
)

// pass adds up the busy time until now, at the rates of the last reading. Each rate counts for at most
// its hold.
func (t *accumulator) pass(now time.Time) {
	t.round++
	for i := range t.tracks {
		c := &t.tracks[i]
		c.busy, c.at, c.rate = c.Busy(now), now, 0
	}
}

func held(d, hold time.Duration) float64 { return min(max(0, d), hold).Seconds() }

// of returns the track of a device that is in the reading. It makes a track if the device is new.
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

// take records a reading of the device, and returns what its energy counter did.
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
	case step > mostPower(d)*(since.Seconds()+1): // the driver may update the counter up to a second late
		return counterJump
	default:
		c.Joules += step
	}
	return counterRuns
}

// mostPower returns the most that a device can draw in a spike, in watts.
func mostPower(d *Device) float64 {
	if d.PowerLimit > 0 {
		return min(maxPower, 2*d.PowerLimit)
	}
	return maxPower
}

// vanished calls tell for each device that is missing from this reading, once until the device comes
// back.
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
