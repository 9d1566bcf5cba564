package telemetry

import (
	"maps"
	"strconv"
	"strings"
	"time"
)

// Snapshot is the latest reading of a feed. Nobody changes a snapshot, nor its slices and devices.
type Snapshot struct {
	Reading
	At  time.Time // when the values were read; zero means never
	Err error     // error of the last sample; if not nil, the reading is from an earlier sample

	index  *index
	totals []Totals
}

// Fresh says whether there is a reading that is at most as old as within.
func (s *Snapshot) Fresh(now time.Time, within time.Duration) bool {
	return !s.At.IsZero() && now.Sub(s.At) <= within
}

// Device returns the device of the reading that ref names. ref is the UUID of a GPU or a MIG instance,
// the driver's index ("0", which never means a MIG instance), or labels of an exporter
// ("gpu=0,GPU_I_ID=1"), which must all match. If ref matches several devices, Device returns none.
func (s *Snapshot) Device(ref string) (*Device, bool) {
	if i, ok := s.index.devices[ref]; ok {
		if i < 0 {
			return nil, false
		}
		return &s.Devices[i], true
	}
	if !strings.Contains(ref, "=") {
		return nil, false
	}
	var found *Device
	for i := range s.Devices {
		if s.Devices[i].labelled(ref) {
			if found != nil {
				return nil, false
			}
			found = &s.Devices[i]
		}
	}
	return found, found != nil
}

// labelled says whether the device has every label of ref, which looks like "a=b,c=d".
func (d *Device) labelled(ref string) bool {
	for ref != "" {
		var pair string
		pair, ref, _ = strings.Cut(ref, ",")
		name, value, ok := strings.Cut(pair, "=")
		if have, known := d.label(strings.TrimSpace(name)); !ok || !known || have != strings.TrimSpace(value) {
			return false
		}
	}
	return true
}

// label returns a label's value. The case of the name does not matter, because some versions of
// exporters write Hostname and others hostname.
func (d *Device) label(name string) (value string, ok bool) {
	if value, ok = d.Labels[name]; ok {
		return value, true
	}
	for have, v := range d.Labels {
		if strings.EqualFold(have, name) {
			if ok && v != value {
				return "", false // two values that differ tell nothing
			}
			value, ok = v, true
		}
	}
	return value, ok
}

// Totals returns what was added up over the device with this UUID. The device may have vanished since.
// False means that the feed does not know the device.
func (s *Snapshot) Totals(uuid string) (Totals, bool) {
	i, ok := s.index.totals[uuid]
	if !ok {
		return Totals{}, false
	}
	return s.totals[i], true
}

// Busy returns Totals.Busy of the device with this UUID.
func (s *Snapshot) Busy(uuid string, now time.Time) (seconds float64, ok bool) {
	t, ok := s.Totals(uuid)
	return t.Busy(now), ok
}

// index finds devices and totals by name. Snapshots share an index as long as the devices stay the
// same.
type index struct {
	generation uint64 // generation of the accumulator
	ids        []identity
	devices    map[string]int // by UUID and by the driver's index; -1 means that several devices match
	totals     map[string]int // by UUID
}

type identity struct {
	uuid  string
	index int
	mig   bool
}

func identify(d *Device) identity { return identity{d.UUID, d.Index, d.MIG} }

func newIndex(devices []Device, t *accumulator) *index {
	x := &index{generation: t.generation, devices: make(map[string]int, 2*len(devices)), totals: maps.Clone(t.known)}
	for i := range devices {
		d := &devices[i]
		x.ids = append(x.ids, identify(d))
		if d.Index < 0 || d.MIG {
			continue
		}
		ref := strconv.Itoa(d.Index)
		if _, taken := x.devices[ref]; taken {
			x.devices[ref] = -1
		} else {
			x.devices[ref] = i
		}
	}
	for i := range devices { // after the indices, because a UUID takes precedence
		x.devices[devices[i].UUID] = i
	}
	return x
}

// fits says whether the index is right for these devices.
func (x *index) fits(devices []Device, t *accumulator) bool {
	if x.generation != t.generation || len(x.ids) != len(devices) {
		return false
	}
	for i := range devices {
		if x.ids[i] != identify(&devices[i]) {
			return false
		}
	}
	return true
}
