package lightning

import (
	"slices"

	"sluice/l402"
)

// watermark turns settlements that arrive in any order into a cursor that is
// safe to store: the newest invoice of the unbroken run of settle indexes seen.
//
// lnd numbers settlements 1, 2, 3 … without gaps, and sends live ones in that
// order; but with a SQL database it replays in the order of creation
// (SQLStore.InvoicesSettledSince of lnd 0.21). Were the cursor simply the last
// index, a crash amid such a replay would lose what comes after it.
type watermark struct {
	started bool
	at      uint64                      // all up to here were seen
	cursor  Cursor                      // the newest invoice up to at; an AMP payment has no invoice of its own
	above   map[uint64]l402.PaymentHash // seen beyond a gap; a zero hash is an AMP payment
}

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
func (w *watermark) saw(indexes []uint64, hash l402.PaymentHash) Cursor {
	if !w.started && len(indexes) > 0 {
		w.begin(slices.Max(indexes) - 1)
	}
	for _, i := range indexes {
		if i > w.at {
			w.note(i, hash)
		}
	}
	for {
		hash, ok := w.above[w.at+1]
		if !ok {
			return w.cursor
		}
		delete(w.above, w.at+1)
		w.at++
		w.pass(Cursor{Index: w.at, Hash: hash})
	}
}

// begin starts after a listing. The newest invoice of the listing may have been
// settled after the subscription began; what lies between is yet to come then.
func (w *watermark) begin(at uint64) {
	w.start(at)
	if top := w.cursor; top.Index > at {
		w.cursor = Cursor{}
		w.note(top.Index, top.Hash)
	}
}

func (w *watermark) note(index uint64, hash l402.PaymentHash) {
	if w.above == nil {
		w.above = make(map[uint64]l402.PaymentHash)
	}
	w.above[index] = hash
}

// pass takes an index that is complete as the cursor, if an invoice was settled
// there.
func (w *watermark) pass(c Cursor) {
	if c.Hash != (l402.PaymentHash{}) && c.Index > w.cursor.Index {
		w.cursor = c
	}
}

// believe gives up on gaps: nothing came for so long that what is missing does
// not exist.
func (w *watermark) believe() {
	for i, hash := range w.above {
		w.at = max(w.at, i)
		w.pass(Cursor{Index: i, Hash: hash})
	}
	clear(w.above)
}
