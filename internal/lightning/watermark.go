package lightning

import (
	"maps"
	"slices"
	"time"

	"sluice.example/sluice/l402"
)

// watermark turns settlements that arrive in any order into a cursor that is
// safe to store: the newest invoice of the unbroken run of settle indexes seen.
//
// lnd numbers settlements 1, 2, 3 … and sends live ones in that order; but with a
// SQL database it replays in the order of creation (SQLStore.InvoicesSettledSince
// of lnd 0.21). Were the cursor simply the last index, a crash amid such a replay
// would lose what comes after it.
//
// Nodes that have run for long lack some numbers for ever (lightningnetwork/lnd
// issue 7071). So a gap is believed in the end: see expire and maxAbove.
type watermark struct {
	started bool
	at      uint64           // all up to here were seen, or are believed to be missing
	cursor  Cursor           // the newest invoice up to at; an AMP payment has no invoice of its own
	above   map[uint64]above // seen beyond a gap
	top     uint64           // the largest index seen
	filled  time.Time        // when an index last came that lies below top: a replay may be under way
}

// above is one settlement beyond a gap.
type above struct {
	hash l402.PaymentHash // zero: an AMP payment
	seen time.Time
}

// maxAbove bounds watermark.above, to about 20 MB. A replay whose order differs
// from that of settlement by more than half of it, and a crash amid that replay,
// would be needed to lose anything by it: lnd makes fewer invoices within the life
// of one.
const maxAbove = 1 << 18

// start says that all up to at were seen.
func (w *watermark) start(at uint64) { w.started, w.at = true, at }

// listed notes an invoice of the listing. It says nothing about lower indexes,
// because invoices are not listed in the order of settlement.
func (w *watermark) listed(c Cursor) {
	if c.Index > w.cursor.Index {
		w.cursor = c
	}
}

// saw notes the indexes of one event and returns the safe cursor, whose Index
// is 0 while there is none. hash is zero for an AMP payment.
//
// Without a start, the newest index of the first event is the first of the live
// ones, and all before it were settled before the subscription: they have been
// listed.
func (w *watermark) saw(indexes []uint64, hash l402.PaymentHash, now time.Time) Cursor {
	if !w.started && len(indexes) > 0 {
		w.begin(slices.Max(indexes)-1, now)
	}
	for _, i := range indexes {
		if i > w.at {
			w.note(i, hash, now)
		}
	}
	return w.run()
}

// run moves on over all that is complete, and returns the safe cursor.
func (w *watermark) run() Cursor {
	for {
		next, ok := w.above[w.at+1]
		if !ok {
			return w.cursor
		}
		delete(w.above, w.at+1)
		w.at++
		w.pass(Cursor{Index: w.at, Hash: next.hash})
	}
}

// begin starts after a listing. The newest invoice of the listing may have been
// settled after the subscription began; what lies between is yet to come then.
func (w *watermark) begin(at uint64, now time.Time) {
	w.start(at)
	if top := w.cursor; top.Index > at {
		w.cursor = Cursor{}
		w.note(top.Index, top.Hash, now)
	}
}

func (w *watermark) note(index uint64, hash l402.PaymentHash, now time.Time) {
	if w.above == nil {
		w.above = make(map[uint64]above)
	}
	if _, known := w.above[index]; !known && index < w.top {
		w.filled = now
	}
	w.top = max(w.top, index)
	w.above[index] = above{hash, now}
	if len(w.above) > maxAbove {
		indexes := slices.Sorted(maps.Keys(w.above))
		w.believe(indexes[len(indexes)/2])
	}
}

// pass takes an index that is complete as the cursor, if an invoice was settled
// there.
func (w *watermark) pass(c Cursor) {
	if c.Hash != (l402.PaymentHash{}) && c.Index > w.cursor.Index {
		w.cursor = c
	}
}

// believe gives up on the gaps up to an index: what is missing does not exist.
func (w *watermark) believe(upTo uint64) {
	for i, seen := range w.above {
		if i <= upTo {
			w.at = max(w.at, i)
			w.pass(Cursor{Index: i, Hash: seen.hash})
			delete(w.above, i)
		}
	}
	w.run()
}

// expire gives up on each gap that has been known for as long as age, however much
// settles meanwhile. While indexes still come out of order no gap is old, because
// lnd may be replaying: live ones come in order, so that they keep no gap young. It
// returns how many numbers were given up.
func (w *watermark) expire(now time.Time, age time.Duration) (missing uint64) {
	if len(w.above) == 0 || now.Sub(w.filled) < age {
		return 0
	}
	var upTo uint64
	for i, seen := range w.above {
		if now.Sub(seen.seen) >= age {
			upTo = max(upTo, i)
		}
	}
	if upTo <= w.at {
		return 0
	}
	missing = upTo - w.at
	for i := range w.above {
		if i <= upTo {
			missing--
		}
	}
	w.believe(upTo)
	return missing
}
