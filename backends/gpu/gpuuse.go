package gpu

import (
	"math"
	"time"
)

// gaps is the time in which the work of one GPU of a backend was not known. The feed was stale, the
// feed did not know the device, or the device does not report its work, like a MIG instance without
// profiling. All fields are guarded by fleet.mu.
type gaps struct {
	mark  time.Time // time of the last event
	until time.Time // the time up to which the readings so far cover the GPU's work
	// share is how many seconds a request would have that was in flight since the beginning, as its
	// parts of the gaps.
	share   float64
	seconds float64 // length of all gaps that had a request in flight
}

// pass brings the gaps of a GPU of the backend up to now. It shares out the time that passed with
// unknown work in equal parts among the requests in flight, as the divider does with the GPU's busy
// time.
func (b *Backend) pass(g *binding, now time.Time) {
	s, old, from := &g.gaps, g.snapshot, g.gaps.mark
	s.mark = now
	b.look(g, now)
	before, unknown := s.until, 0.0
	if g.tells() {
		s.until = g.snapshot.At.Add(b.set.StaleAfter)
		unknown = overlap(from, now, before, g.snapshot.At)
	} else if g.snapshot != old && before.After(g.snapshot.At) {
		s.until = g.snapshot.At // from this reading on the work is not known
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

// tells says whether the latest reading holds the GPU and knows how busy the GPU is.
func (g *binding) tells() bool { return g.device != nil && !math.IsNaN(g.device.BusyShare()) }

// overlap returns how many seconds the spans from…to and a…b have in common.
func overlap(from, to, a, b time.Time) float64 {
	if a.Before(from) {
		a = from
	}
	if b.After(to) {
		b = to
	}
	return max(0, b.Sub(a).Seconds())
}

// gpuKnown says whether the work of each of the backend's GPUs is known now. It is false for a backend
// without GPUs.
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
	// Measured is the sum, over the GPUs of the backend, of the integral of the GPU's utilization
	// divided by the number of requests in flight on the GPU, counted over all backends that work on
	// it. The shares of all requests add up to the busy time that was seen.
	Measured time.Duration
	// Fallback covers the time in which a GPU's work was not known. It is that time divided by the
	// number of requests in flight on the GPU, which is what the request would have had of a GPU that
	// works all the time. Zero means that all work was known.
	Fallback time.Duration
}

// Total returns the sum of Measured and Fallback.
func (u GPUUse) Total() time.Duration { return u.Measured + u.Fallback }

// GPUUse returns the request's share of its backend's GPUs until now. After Done it returns the share
// of the whole request. The share never falls. GPUUse takes the fleet's lock, so a caller should call
// it only about once per renewal of a hold.
func (l *Lease) GPUUse(now time.Time) GPUUse {
	f := l.backend.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.done {
		return l.gpuUse
	}
	return l.measure(now)
}

// GPUTime returns the measured part of GPUUse. It returns false if a GPU of the backend is not known
// now, if the reading of a GPU is stale, or if the backend has no GPU.
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
