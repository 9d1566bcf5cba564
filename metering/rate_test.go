package metering

import (
	"math/rand/v2"
	"testing"
	"time"
)

// at returns a moment, in seconds after the beginning of a window, as µs since 1970.
func at(seconds float64) int64 { return 1000*minuteMicros + int64(seconds*1e6) }

func TestRateWait(t *testing.T) {
	for _, test := range []struct {
		name            string
		count, previous int64
		perMinute       int64
		now             int64
		want            time.Duration
	}{
		{"empty", 0, 0, 5, at(10), 0},
		{"room", 4, 0, 5, at(10), 0},
		{"full", 5, 0, 5, at(10), 62 * time.Second}, // one of the five has faded 12 s into the next window
		{"full of one", 1, 0, 1, at(10), 110 * time.Second},
		{"the past weighs", 0, 10, 5, at(0), 36 * time.Second}, // until 10·(1−t/60) ≤ 4
		{"the past has faded", 0, 10, 5, at(36), 0},
		{"almost", 0, 10, 5, at(35.9), time.Second},
		{"none allowed", 0, 0, 0, at(0), time.Minute},
	} {
		row := WindowRow{Window: 1000, Count: test.count, Previous: test.previous}
		if got := row.wait(test.perMinute, test.now); got != test.want {
			t.Errorf("%s: wait %s, want %s", test.name, got, test.want)
		}
	}
}

func TestCurrentWindow(t *testing.T) {
	row := &WindowRow{Window: 1000, Count: 7, Previous: 3}
	for now, want := range map[int64]WindowRow{
		at(59):   {Window: 1000, Count: 7, Previous: 3},
		at(60):   {Window: 1001, Previous: 7},
		at(120):  {Window: 1002},
		at(-0.5): {Window: 1000, Count: 7, Previous: 3}, // the clock stepped back
	} {
		if got := currentWindow(row, now); got != want {
			t.Errorf("%d: %+v, want %+v", now, got, want)
		}
	}
}

// TestRateIsKept makes requests at random times. It checks that a request passes after the wait that it was told, and
// that no minute of the clock lets more requests pass than the limit.
func TestRateIsKept(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		limit := 1 + rnd.Int64N(20)
		var row *WindowRow
		now := at(0)
		byWindow := map[int64]int64{}
		for range 300 {
			now += rnd.Int64N(2 * minuteMicros / limit)
			r := currentWindow(row, now)
			if wait := r.wait(limit, now); wait > 0 {
				now += wait.Microseconds()
				if r = currentWindow(row, now); r.wait(limit, now) != 0 {
					t.Fatalf("limit %d: refused again after waiting %s", limit, wait)
				}
			}
			r.Count++
			row = &r
			byWindow[r.Window]++
		}
		for window, n := range byWindow {
			if n > limit {
				t.Errorf("limit %d: %d in minute %d", limit, n, window)
			}
		}
	}
}
