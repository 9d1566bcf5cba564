package lightning

import (
	"encoding/binary"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice.example/sluice/l402"
)

// hashOf returns the hash of the invoice settled at an index. Every seventh settlement is an AMP
// payment, which has no hash.
func hashOf(index uint64) (h l402.PaymentHash) {
	if index%7 != 0 {
		binary.BigEndian.PutUint64(h[:], index)
	}
	return h
}

var noon = time.Unix(1_800_000_000, 0)

// TestWatermark checks, for any order of events, that the cursor never passes an index that has not
// come, never falls, names the invoice settled at its index, and ends at the last invoice.
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
			c := w.saw([]uint64{i}, hashOf(i), noon)
			if rapid.Bool().Draw(t, "twice") {
				c = w.saw([]uint64{i}, hashOf(i), noon)
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

// TestWatermarkAfterListing checks that the newest listed invoice is the cursor as long as no index
// before it is still to come through the subscription.
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
	// The indexes 10 and 11 were AMP payments to others before the subscription.
	if c := w.saw(one(12), hashOf(12), noon); c != at(12) {
		t.Errorf("after 12 at %v", c)
	}

	// Index 8 settles first after the subscription began, and the listing already shows index 10.
	w = listed(3, 10)
	if c := w.saw(one(8), hashOf(8), noon); c != at(8) {
		t.Errorf("10 was listed and 9 is missing, but at %v", c)
	}
	if c := w.saw(one(9), hashOf(9), noon); c != at(10) {
		t.Errorf("9 came, at %v", c)
	}
	// The only event is an AMP payment. Of the indexes up to 13 only 10 is known.
	w = listed(3, 10)
	if c := w.saw(one(14), hashOf(14), noon); c != at(10) {
		t.Errorf("after an AMP payment at %v", c)
	}
	// This is as before, but the listed index is above the event's index.
	w = listed(3, 16)
	if c := w.saw(one(14), hashOf(14), noon); c.Index != 0 {
		t.Errorf("14 is an AMP payment and 15 is missing, but at %v", c)
	}
}

func TestWatermarkWithoutStart(t *testing.T) {
	var w watermark
	if c := w.saw(nil, hashOf(1), noon); c.Index != 0 {
		t.Errorf("nothing seen, at %v", c)
	}
	// An AMP invoice that was paid before, as number 3, is paid again as 9.
	if c := w.saw([]uint64{3, 9}, l402.PaymentHash{}, noon); c.Index != 0 || w.at != 9 {
		t.Errorf("at %v, %d", c, w.at)
	}
	if c := w.saw([]uint64{10}, hashOf(10), noon); c.Index != 10 {
		t.Errorf("at %v", c)
	}
	w.saw([]uint64{12}, hashOf(12), noon)
	for _, i := range []uint64{15, 17, 18, 19, 22, 23, 24, 28} { // 28 is AMP
		w.saw([]uint64{i}, hashOf(i), noon)
	}
	w.believe(w.top)
	if w.at != 28 || w.cursor != (Cursor{24, hashOf(24)}) {
		t.Errorf("at %d and %v after believing the gaps", w.at, w.cursor)
	}
	if c := w.saw([]uint64{29}, hashOf(29), noon); c != (Cursor{29, hashOf(29)}) {
		t.Errorf("at %v after believing the gap", c)
	}
}

// TestGapsAreBelievedByAge has a settlement every second on a node that left out some numbers for
// ever. The cursor follows, and the watermark keeps little in memory.
func TestGapsAreBelievedByAge(t *testing.T) {
	const age = 2 * time.Minute
	var w watermark
	w.start(0)
	now, most := noon, 0
	for i := uint64(1); i <= 4000; i++ {
		if i%500 == 100 {
			continue
		}
		now = now.Add(time.Second)
		w.saw([]uint64{i}, hashOf(i), now)
		w.expire(now, age)
		most = max(most, len(w.above))
		if lag := i - w.cursor.Index; lag > 130 {
			t.Fatalf("at %d the cursor stands at %d", i, w.cursor.Index)
		}
	}
	if most > 125 || w.cursor.Index < 3990 {
		t.Errorf("kept %d settlements, the cursor ended at %d", most, w.cursor.Index)
	}
}

// TestReplayKeepsGapsYoung has a replay that takes longer than the age at which a gap counts as
// old. The indexes that are still to come in the replay do not count as nonexistent.
func TestReplayKeepsGapsYoung(t *testing.T) {
	const age = 2 * time.Minute
	var w watermark
	w.start(0)
	now := noon
	see := func(i uint64) {
		now = now.Add(30 * time.Second)
		w.saw([]uint64{i}, hashOf(i), now)
		if missing := w.expire(now, age); missing > 0 {
			t.Fatalf("%d numbers were given up when %d came", missing, i)
		}
	}
	for i := uint64(50); i >= 2; i-- { // backwards
		see(i)
	}
	if w.cursor.Index != 0 {
		t.Errorf("1 is missing and the cursor stands at %d", w.cursor.Index)
	}
	see(1)
	if w.cursor != (Cursor{50, hashOf(50)}) || len(w.above) != 0 {
		t.Errorf("ended at %v", w.cursor)
	}
	// From here on every index comes in order.
	see(52)
	for i := uint64(53); now.Sub(w.above[52].seen) < age-30*time.Second; i++ {
		see(i)
	}
	if missing := w.expire(now.Add(30*time.Second), age); missing != 1 || w.cursor.Index < 52 {
		t.Errorf("%d numbers were given up, the cursor stands at %v", missing, w.cursor)
	}
}

// TestWatermarkIsBounded has more settlements beyond a gap than the watermark keeps.
func TestWatermarkIsBounded(t *testing.T) {
	var w watermark
	w.start(0)
	for i := uint64(2); i < maxAbove+10; i++ {
		w.saw([]uint64{i}, hashOf(i), noon)
	}
	if len(w.above) > maxAbove || w.cursor.Index < maxAbove/2-10 {
		t.Errorf("%d kept, the cursor stands at %d", len(w.above), w.cursor.Index)
	}
}
