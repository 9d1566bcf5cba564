package gpu

import (
	"math"
	"time"
)

// gaps is the time in which the work of one GPU of a backend was not known: its
// feed was stale or did not know the device, or the device does not tell, as a MIG
// instance without profiling. Guarded by fleet.mu.
type gaps struct {
	mark    time.Time // of the last event
	until   time.Time // the readings so far tell of the GPU's work until then
	share   float64   // seconds that a request in flight since the beginning would have: of each gap, its part
	seconds float64   // in all, with a request in flight
}

// pass brings a GPU of the backend up to now, and shares out what passed unknown
// in equal parts among the requests in flight, as the divider does with what the GPU
// was busy.
func (b *Backend) pass(g *binding, now time.Time) {
	s, old, from := &g.gaps, g.snapshot, g.gaps.mark
	s.mark = now
	b.look(g, now)
	before, unknown := s.until, 0.0
	if g.tells() {
		s.until = g.snapshot.At.Add(b.set.StaleAfter)
		unknown = overlap(from, now, before, g.snapshot.At)
	} else if g.snapshot != old && before.After(g.snapshot.At) {
		s.until = g.snapshot.At // from this reading on it is not known
	}
	unknown += overlap(from, now, s.until, now)
	n := b.inFlight
	if g.divider != nil {
		n = g.divider.inFlight
	}
	if from.IsZero() || unknown <= 0 || n <= 0 || b.inFlight == 0 {
		return
	}
	s.share += unknown / float64(n)
	s.seconds += unknown * float64(b.inFlight) / float64(n)
}

// tells says whether the latest reading has the GPU and knows how busy it is.
func (g *binding) tells() bool { return g.device != nil && !math.IsNaN(g.device.BusyShare()) }

// overlap is how many seconds from…to and a…b have in common.
func overlap(from, to, a, b time.Time) float64 {
	if a.Before(from) {
		a = from
	}
	if b.After(to) {
		b = to
	}
	return max(0, b.Sub(a).Seconds())
}

// gpuKnown says whether the work of each of the backend's GPUs is known now.
func (b *Backend) gpuKnown(now time.Time) bool {
	for _, g := range b.gpus {
		b.pass(g, now)
		if !g.tells() || !g.snapshot.Fresh(now, b.set.StaleAfter) {
			return false
		}
	}
	return len(b.gpus) > 0
}

// GPUUse is a request's share of its backend's GPUs.
type GPUUse struct {
	// Measured is, for each GPU, the integral of utilization divided by the requests
	// in flight there, of all backends that work on it. The shares of all requests
	// add up to the busy time that was seen.
	Measured time.Duration
	// Fallback is, for the time in which a GPU's work was not known, that time
	// divided by the requests in flight there: what the request would have had of a
	// GPU that works all the time. Zero where all was known.
	Fallback time.Duration
}

// Total is both.
func (u GPUUse) Total() time.Duration { return u.Measured + u.Fallback }

// GPUUse is the request's share of its backend's GPUs until now, and after Done
// that of the whole request. It never falls. It takes the fleet's lock, so once per
// renewal of a hold is often enough.
func (l *Lease) GPUUse(now time.Time) GPUUse {
	f := l.backend.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.done {
		return l.gpuUse
	}
	return l.measure(now)
}

// GPUTime is the measured part of GPUUse. False: a GPU of the backend is not known
// now, or its reading is stale, or the backend has none.
func (l *Lease) GPUTime(now time.Time) (time.Duration, bool) {
	f := l.backend.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.done {
		return l.gpuUse.Measured, l.gpuKnown
	}
	return l.measure(now).Measured, l.backend.gpuKnown(now)
}

func (l *Lease) measure(now time.Time) GPUUse {
	s := l.backend.gpuShare(now)
	return GPUUse{Measured: seconds(s.measured - l.gpuSince.measured), Fallback: seconds(s.fallback - l.gpuSince.fallback)}
}

func seconds(s float64) time.Duration { return time.Duration(max(0, s) * float64(time.Second)) }
