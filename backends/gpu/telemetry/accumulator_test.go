package telemetry

import (
	"errors"
	"math"
	"testing"
	"time"
)

func joules(t *testing.T, f *Feed, uuid string) float64 {
	t.Helper()
	totals, ok := f.Latest().Totals(uuid)
	if !ok {
		t.Fatalf("no totals of %s", uuid)
	}
	return totals.Joules
}

func TestEnergy(t *testing.T) {
	f, s, c, _ := newScripted(t)
	read := func(energy float64) {
		t.Helper()
		s.Devices = []Device{gpu("a", func(d *Device) { d.Energy, d.PowerLimit = energy, 700 }), NewDevice("b")}
		f.Poll(t.Context())
		c.pass(time.Second)
	}
	want := func(j float64) {
		t.Helper()
		if got := joules(t, f, "a"); got != j {
			t.Errorf("%v joules, want %v", got, j)
		}
	}
	read(1e6)
	want(0)
	read(1e6 + 500)
	want(500)
	read(math.NaN()) // not reported this time
	read(1e6 + 1500)
	want(1500)
	read(20) // a driver reload
	want(1500)
	read(320)
	want(1800)
	read(9e5) // impossible: 900 kJ in a second
	want(1800)
	read(9e5 + 100)
	want(1900)
	if st := f.Stats(); st.Resets != 1 || st.Refused["energy_step"] != 1 {
		t.Errorf("counted %+v", st)
	}
	if !math.IsNaN(joules(t, f, "b")) {
		t.Error("a device without a counter has consumed something")
	}
	// The device vanishes for a minute. What it consumed meanwhile counts.
	s.Devices = nil
	f.Poll(t.Context())
	c.pass(time.Minute)
	want(1900)
	read(9e5 + 30100)
	want(31900)
}

func TestBusy(t *testing.T) {
	f, s, c, _ := newScripted(t)
	busy := func(want float64) {
		t.Helper()
		if got, ok := f.Latest().Busy("a", c.now); !ok || math.Abs(got-want) > 1e-9 {
			t.Errorf("%v s busy, want %v", got, want)
		}
	}
	read := func(share float64) {
		s.Devices = []Device{gpu("a", func(d *Device) { d.Utilization = share })}
		f.Poll(t.Context())
	}
	read(0.5)
	busy(0)
	c.pass(time.Second)
	busy(0.5)
	read(1)
	busy(0.5)
	c.pass(2 * time.Second)
	busy(2.5)
	s.err = errors.New("away") // the last utilization counts for a while
	f.Poll(t.Context())
	busy(2.5)
	c.pass(time.Hour)
	busy(0.5 + DefaultHold.Seconds())
	s.err = nil
	read(math.NaN()) // not reported
	c.pass(time.Second)
	busy(15.5)
	s.Devices = []Device{gpu("a", func(d *Device) { d.SM, d.MIG = 0.25, true })}
	f.Poll(t.Context())
	c.pass(4 * time.Second)
	busy(16.5)
	s.Devices = nil // the device has vanished
	f.Poll(t.Context())
	c.pass(4 * time.Second)
	busy(16.5)
	if _, ok := f.Latest().Busy("never", c.now); ok {
		t.Error("a stranger was busy")
	}
}

// An exporter that invents new devices each time must not make the feed grow.
func TestStrangersAreForgotten(t *testing.T) {
	f, s, _, _ := newScripted(t)
	for round := range 12 {
		s.Devices = []Device{NewDevice("stays")}
		for i := range maxDevices {
			s.Devices = append(s.Devices, NewDevice(string(rune('a'+round))+string(rune(0x4e00+i))))
		}
		f.Poll(t.Context())
	}
	if len(f.sums.tracks) > maxTracks || len(f.sums.known) != len(f.sums.tracks) {
		t.Errorf("%d devices are remembered", len(f.sums.tracks))
	}
	if _, ok := f.Latest().Totals("stays"); !ok || len(f.Latest().Devices) != maxDevices {
		t.Errorf("%d devices", len(f.Latest().Devices))
	}
}
