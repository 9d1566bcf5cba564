package metering

import "time"

// A rate limit is a sliding window of a minute, estimated from two fixed ones:
// what was counted in the window before, weighted by how much of it still lies
// within the last minute, plus what was counted in this one. It needs one row
// per limit however many requests there are.

const minuteMicros = int64(time.Minute / time.Microsecond)

// currentWindow is the row (nil: none yet) as it stands at now.
func currentWindow(row *WindowRow, now int64) WindowRow {
	window := now / minuteMicros
	if row == nil {
		return WindowRow{Window: window}
	}
	r := *row
	switch {
	case r.Window >= window: // or the store's clock stepped back: keep counting
	case r.Window == window-1:
		r.Previous, r.Count, r.Window = r.Count, 0, window
	default:
		r.Previous, r.Count, r.Window = 0, 0, window
	}
	return r
}

// wait is how long until one more request fits; 0 when it fits now, else at
// least a second.
func (r WindowRow) wait(perMinute, now int64) time.Duration {
	if perMinute <= 0 {
		return time.Minute
	}
	elapsed := min(max(now-r.Window*minuteMicros, 0), minuteMicros)
	var at int64 // µs into this window at which it fits
	if r.Count < perMinute {
		at = fits(r.Previous, perMinute-1-r.Count)
	} else {
		at = minuteMicros + fits(r.Count, perMinute-1)
	}
	if at <= elapsed {
		return 0
	}
	return max(time.Second, time.Duration(at-elapsed)*time.Microsecond)
}

// fits is how far into a window (µs) the count of the one before has faded to at
// most room.
func fits(previous, room int64) int64 {
	if previous <= room {
		return 0
	}
	// previous·(minute−at)/minute ≤ room
	return minuteMicros - minuteMicros*room/previous
}
