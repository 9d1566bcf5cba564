package metering

import "time"

// A rate limit counts requests in a sliding window of one minute. The ledger estimates that count from two fixed
// windows: the count of this window, plus the count of the window before, weighted by the part of it that lies within
// the last minute. Each limit needs one row, however many requests there are.

const minuteMicros = int64(time.Minute / time.Microsecond)

// currentWindow returns the row as of now (µs since 1970), with the windows moved on. A row of nil means that nothing
// was counted yet.
func currentWindow(row *WindowRow, now int64) WindowRow {
	window := now / minuteMicros
	if row == nil {
		return WindowRow{Window: window}
	}
	r := *row
	switch {
	case r.Window >= window: // this window, or a later one because the store's clock stepped back: keep counting
	case r.Window == window-1:
		r.Previous, r.Count, r.Window = r.Count, 0, window
	default:
		r.Previous, r.Count, r.Window = 0, 0, window
	}
	return r
}

// wait returns how long the client must wait until one more request fits: 0 when it fits now, otherwise at least a
// second. now is in µs since 1970.
func (r WindowRow) wait(perMinute, now int64) time.Duration {
	if perMinute <= 0 {
		return time.Minute
	}
	elapsed := min(max(now-r.Window*minuteMicros, 0), minuteMicros)
	var at int64 // µs into this window at which the request fits
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

// fits returns after how many µs of a window the weighted count of the window before is at most room.
func fits(previous, room int64) int64 {
	if previous <= room {
		return 0
	}
	// previous·(minute−at)/minute ≤ room
	return minuteMicros - minuteMicros*room/previous
}
