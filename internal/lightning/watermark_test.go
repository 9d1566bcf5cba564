package lightning

import (
	"testing"

	"pgregory.net/rapid"
)

// TestWatermark: whatever the order, the cursor never passes an index that was
// not seen, never falls, and ends at the end.
func TestWatermark(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Uint64Range(0, 1_000).Draw(t, "from")
		count := rapid.IntRange(1, 50).Draw(t, "count")
		all := make([]uint64, count)
		for i := range all {
			all[i] = from + 1 + uint64(i)
		}
		order := rapid.Permutation(all).Draw(t, "order")
		var w watermark
		w.start(from)
		seen := map[uint64]bool{}
		last := uint64(0)
		for _, i := range order {
			seen[i] = true
			at := w.saw([]uint64{i})
			if rapid.Bool().Draw(t, "twice") {
				at = w.saw([]uint64{i})
			}
			if at < last {
				t.Fatalf("fell from %d to %d", last, at)
			}
			for j := from + 1; j <= at; j++ {
				if !seen[j] {
					t.Fatalf("at %d without %d", at, j)
				}
			}
			last = at
		}
		if last != from+uint64(count) || len(w.above) != 0 {
			t.Fatalf("ended at %d with %d left over", last, len(w.above))
		}
	})
}

func TestWatermarkWithoutStart(t *testing.T) {
	var w watermark
	if at := w.saw(nil); at != 0 {
		t.Errorf("nothing seen, at %d", at)
	}
	// An AMP invoice that was paid before, as number 3, is paid again as 9.
	if at := w.saw([]uint64{3, 9}); at != 9 {
		t.Errorf("at %d", at)
	}
	w.saw([]uint64{12})
	w.believe()
	if at := w.saw([]uint64{13}); at != 13 {
		t.Errorf("at %d after believing the gap", at)
	}
}
