package lightning

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"sluice/l402"
)

// hashOf is the hash of the invoice settled at an index; every seventh is an
// AMP payment, which has none.
func hashOf(index uint64) (h l402.PaymentHash) {
	if index%7 != 0 {
		binary.BigEndian.PutUint64(h[:], index)
	}
	return h
}

// TestWatermark: whatever the order, the cursor never passes an index that was
// not seen, never falls, names the invoice settled at its index, and ends at the
// last invoice.
func TestWatermark(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Uint64Range(0, 1_000).Draw(t, "from")
		count := rapid.IntRange(1, 50).Draw(t, "count")
		all := make([]uint64, count)
		want := Cursor{}
		for i := range all {
			all[i] = from + 1 + uint64(i)
			if h := hashOf(all[i]); h != (l402.PaymentHash{}) {
				want = Cursor{all[i], h}
			}
		}
		order := rapid.Permutation(all).Draw(t, "order")
		var w watermark
		w.start(from)
		seen := map[uint64]bool{}
		last := Cursor{}
		for _, i := range order {
			seen[i] = true
			c := w.saw([]uint64{i}, hashOf(i))
			if rapid.Bool().Draw(t, "twice") {
				c = w.saw([]uint64{i}, hashOf(i))
			}
			if c.Index < last.Index {
				t.Fatalf("fell from %d to %d", last.Index, c.Index)
			}
			if c.Index > 0 && c.Hash != hashOf(c.Index) {
				t.Fatalf("at %d with the hash %s", c.Index, c.Hash)
			}
			for j := from + 1; j <= c.Index; j++ {
				if !seen[j] {
					t.Fatalf("at %d without %d", c.Index, j)
				}
			}
			last = c
		}
		if last != want || w.at != from+uint64(count) || len(w.above) != 0 {
			t.Fatalf("ended at %v, %d, with %d left over; want %v", last, w.at, len(w.above), want)
		}
	})
}

// TestWatermarkAfterListing: the newest listed invoice is the cursor as long as
// nothing before it is still to come through the subscription.
func TestWatermarkAfterListing(t *testing.T) {
	at := func(i uint64) Cursor { return Cursor{i, hashOf(i)} }
	listed := func(indexes ...uint64) *watermark {
		w := &watermark{}
		for _, i := range indexes {
			w.listed(at(i))
		}
		return w
	}
	one := func(i uint64) []uint64 { return []uint64{i} }

	w := listed(3, 9, 5)
	if w.cursor != at(9) {
		t.Errorf("listed to 9, at %v", w.cursor)
	}
	// 10 and 11 were AMP payments of others before the subscription.
	if c := w.saw(one(12), hashOf(12)); c != at(12) {
		t.Errorf("after 12 at %v", c)
	}

	// 8 settles first after the subscription began, and the listing shows 10 already.
	w = listed(3, 10)
	if c := w.saw(one(8), hashOf(8)); c != at(8) {
		t.Errorf("10 was listed and 9 is missing, but at %v", c)
	}
	if c := w.saw(one(9), hashOf(9)); c != at(10) {
		t.Errorf("9 came, at %v", c)
	}
	// The only event is an AMP payment: nothing is known at or below 13 but 10.
	w = listed(3, 10)
	if c := w.saw(one(14), hashOf(14)); c != at(10) {
		t.Errorf("after an AMP payment at %v", c)
	}
	// As before, but what was listed lies above it.
	w = listed(3, 16)
	if c := w.saw(one(14), hashOf(14)); c.Index != 0 {
		t.Errorf("14 is an AMP payment and 15 is missing, but at %v", c)
	}
}

func TestWatermarkWithoutStart(t *testing.T) {
	var w watermark
	if c := w.saw(nil, hashOf(1)); c.Index != 0 {
		t.Errorf("nothing seen, at %v", c)
	}
	// An AMP invoice that was paid before, as number 3, is paid again as 9.
	if c := w.saw([]uint64{3, 9}, l402.PaymentHash{}); c.Index != 0 || w.at != 9 {
		t.Errorf("at %v, %d", c, w.at)
	}
	if c := w.saw([]uint64{10}, hashOf(10)); c.Index != 10 {
		t.Errorf("at %v", c)
	}
	w.saw([]uint64{12}, hashOf(12))
	for _, i := range []uint64{15, 17, 18, 19, 22, 23, 24, 28} { // 28 is AMP
		w.saw([]uint64{i}, hashOf(i))
	}
	w.believe()
	if w.at != 28 || w.cursor != (Cursor{24, hashOf(24)}) {
		t.Errorf("at %d and %v after believing the gaps", w.at, w.cursor)
	}
	if c := w.saw([]uint64{29}, hashOf(29)); c != (Cursor{29, hashOf(29)}) {
		t.Errorf("at %v after believing the gap", c)
	}
}
