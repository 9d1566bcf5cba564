package lightning

import (
	"maps"
	"slices"
	"time"

	"sluice.example/sluice/l402"
)

// watermark turns settlements that arrive in any order into a cursor that is safe to store. The
// safe cursor is the newest invoice of the unbroken run of settle indexes that have come.
//
// lnd numbers settlements 1, 2, 3 … and sends live settlements in that order. With a SQL database,
// however, lnd replays in the order of creation (SQLStore.InvoicesSettledSince of lnd 0.21). If the
// cursor were the last index that came, a crash during such a replay would lose the settlements
// that come after it.
//
// Nodes that have run for long lack some indexes for ever (lightningnetwork/lnd issue 7071). After
// some time the watermark therefore treats a gap as nonexistent indexes: see expire and maxAbove.
type watermark struct {
	started bool
	at      uint64           // all indexes up to at have come, or are treated as nonexistent
	cursor  Cursor           // the newest invoice up to at; an AMP payment has no invoice of its own
	above   map[uint64]above // settlements that came beyond a gap, by index
	top     uint64           // the largest index that has come
	filled  time.Time        // when an index below top last came, which may mean that lnd replays
}

// above is one settlement that came beyond a gap.
type above struct {
	hash l402.PaymentHash // zero: an AMP payment
	seen time.Time
}

// maxAbove bounds watermark.above, to about 20 MB. A settlement is lost by it only if a replay
// differs from the order of settlement by more than half of maxAbove and a crash interrupts that
// replay. lnd makes fewer invoices than that within the lifetime of one invoice.
const maxAbove = 1 << 18

// start records that all indexes up to at have come.
func (w *watermark) start(at uint64) { w.started, w.at = true, at }

// listed records an invoice of the listing. It means nothing for lower indexes, because invoices
// are not listed in the order of settlement.
func (w *watermark) listed(c Cursor) {
	if c.Index > w.cursor.Index {
		w.cursor = c
	}
}

// saw records the indexes of one event and returns the safe cursor. Index 0 means that there is no
// safe cursor yet. hash is zero for an AMP payment.
//
// If start was not called before, the newest index of the first event is the first live index. All
// indexes before it were settled before the subscription, so the listing has shown them.
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

// run moves at forward over all indexes that have come, and returns the safe cursor.
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

// begin starts the watermark after a listing. The newest listed invoice may have been settled after
// the subscription began. The indexes before it are then still to come.
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

// pass makes c the cursor if an invoice was settled at c.Index. All indexes up to c.Index must have
// come.
func (w *watermark) pass(c Cursor) {
	if c.Hash != (l402.PaymentHash{}) && c.Index > w.cursor.Index {
		w.cursor = c
	}
}

// believe treats the missing indexes up to upTo as nonexistent.
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

// expire treats each gap that is at least age old as nonexistent indexes. New settlements do not
// delay this. No gap counts as old while indexes still come out of order, because lnd may be
// replaying. Live indexes come in order, so they do not delay expire. It returns how many indexes
// are treated as nonexistent.
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
