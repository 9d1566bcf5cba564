package gpu

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func wantUse(t *testing.T, what string, l *Lease, measured, fallback time.Duration) {
	t.Helper()
	got := l.GPUUse(time.Now())
	if (got.Measured-measured).Abs() > time.Microsecond || (got.Fallback-fallback).Abs() > time.Microsecond {
		t.Errorf("%s: %v measured and %v by the clock, want %v and %v", what, got.Measured, got.Fallback, measured, fallback)
	}
}

// Time in which the work of a GPU is not known is shared out by the clock, because an unknown reading
// does not count as 0.
func TestUnknownGPUTimeIsTheClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newGauge("node")
		f := newFleet(t, Config{
			Backends: []BackendConfig{server("one", 4, nil, GPU{node.feed, "GPU-a"}), server("two", 4, nil, GPU{node.feed, "GPU-a"}, GPU{node.feed, "GPU-b"})},
			Pools:    []PoolConfig{{Model: "m", Backends: []string{"one"}}, {Model: "n", Backends: []string{"two"}}},
		})
		first := mustLease(t, f.Pool("m"))
		time.Sleep(2 * time.Second)
		wantUse(t, "before the first reading", first, 0, 2*time.Second)
		second := mustLease(t, f.Pool("m"))
		time.Sleep(2 * time.Second)
		wantUse(t, "shared with another", first, 0, 3*time.Second)
		wantUse(t, "shared with the first", second, 0, time.Second)
		second.Done(Result{Status: 200})

		node.reading(device("GPU-a", 0, 0.5), device("GPU-b", 1, 1))
		wantUse(t, "known now", first, 0, 3*time.Second)
		time.Sleep(4 * time.Second)
		wantUse(t, "measured", first, 2*time.Second, 3*time.Second)

		// The device no longer reports its work, like MIG without profiling.
		node.reading(device("GPU-a", 0, math.NaN()), device("GPU-b", 1, 1))
		time.Sleep(time.Second)
		wantUse(t, "without utilization", first, 2*time.Second, 4*time.Second)
		node.reading(device("GPU-b", 1, 1)) // the device has vanished
		time.Sleep(time.Second)
		wantUse(t, "vanished", first, 2*time.Second, 5*time.Second)
		node.reading(device("GPU-a", 0, 1), device("GPU-b", 1, 0.25))
		time.Sleep(time.Second)
		wantUse(t, "back", first, 3*time.Second, 5*time.Second)

		// The feed stops. Its last reading counts for 15 s, of which 1 s has passed.
		time.Sleep(DefaultStaleAfter - time.Second + 10*time.Second)
		wantUse(t, "stale", first, 2*time.Second+DefaultStaleAfter, 15*time.Second)
		first.Done(Result{Status: 200})
		time.Sleep(time.Minute)
		wantUse(t, "after its end", first, 2*time.Second+DefaultStaleAfter, 15*time.Second)

		// The request uses two GPUs whose work is not known. It shares one of them with no other
		// request.
		both := mustLease(t, f.Pool("n"))
		time.Sleep(3 * time.Second)
		wantUse(t, "two GPUs", both, 0, 6*time.Second)
		s := f.Status()
		if s[0].Guessed != 2 || s[1].Guessed != 0 || s[0].GPUs[0].Source != "wall" || math.Abs(s[0].GPUs[0].Fallback-16) > 1e-6 {
			t.Errorf("status %+v", s[0])
		}
		node.reading(device("GPU-a", 0, 1), device("GPU-b", 1, 0.25))
		if s := f.Status(); s[0].GPUs[0].Source != "measured" {
			t.Errorf("status %+v", s[0].GPUs)
		}
	})
}

// This owner would rather sell nothing than estimate GPU time.
func TestBackendsWithoutGPUTimeAreNotUsedWhereItIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newGauge("node")
		f := newFleet(t, Config{
			Backends: []BackendConfig{server("a", 4, nil, GPU{node.feed, "GPU-a"}), server("b", 4, nil, GPU{node.feed, "GPU-b"})},
			Pools:    []PoolConfig{{Model: "m", Backends: []string{"a", "b"}, NeedGPUTime: true}},
		})
		p := f.Pool("m")
		if _, err := p.Admit(Key{}); err == nil || p.Serves() || f.Healthy("m") {
			t.Error("served before anything was read")
		}
		node.reading(device("GPU-a", 0, math.NaN()), device("GPU-b", 1, 0))
		for range 4 {
			l := mustLease(t, p)
			if l.Backend().Name() != "b" {
				t.Errorf("served by %s", l.Backend().Name())
			}
			l.Done(Result{Status: 200})
		}
		time.Sleep(DefaultStaleAfter + time.Second)
		if _, err := p.Admit(Key{}); err == nil || p.Serves() {
			t.Error("served by a stale reading")
		}
	})
}
