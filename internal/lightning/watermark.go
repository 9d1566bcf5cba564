package lightning

import "slices"

// watermark turns settle indexes that arrive in any order into a cursor that
// is safe to store: the end of the unbroken run of indexes seen.
//
// lnd numbers settlements 1, 2, 3 … without gaps, and sends live ones in that
// order; but with a SQL database it replays in the order of creation
// (SQLStore.InvoicesSettledSince of lnd 0.21). Were the cursor simply the last
// index, a crash amid such a replay would lose what comes after it.
type watermark struct {
	started bool
	at      uint64          // all up to here were seen
	above   map[uint64]bool // seen, beyond a gap
}

// start says that all up to at were seen.
func (w *watermark) start(at uint64) { w.started, w.at = true, at }

// saw notes the indexes of one event and returns the safe cursor, 0 while
// there is none. Without a start, the newest index of the first event is the
// first of the live ones, and all before it were settled before the
// subscription: they have been listed.
func (w *watermark) saw(indexes []uint64) uint64 {
	if !w.started && len(indexes) > 0 {
		w.start(slices.Max(indexes) - 1)
	}
	for _, i := range indexes {
		if i <= w.at {
			continue
		}
		if w.above == nil {
			w.above = make(map[uint64]bool)
		}
		w.above[i] = true
	}
	for w.above[w.at+1] {
		delete(w.above, w.at+1)
		w.at++
	}
	return w.at
}

// believe gives up on gaps: nothing came for so long that what is missing does
// not exist.
func (w *watermark) believe() {
	for i := range w.above {
		w.at = max(w.at, i)
	}
	clear(w.above)
}
