package format_test

import (
	"testing"
	"time"

	"sluice.example/sluice/metering/format"
)

// One account learns for itself; the others follow once a second one met the same.
func TestOneAccountDoesNotMoveTheOthersBounds(t *testing.T) {
	var o format.Overhead
	now := time.Unix(1_800_000_000, 0)
	if got := o.For(1, now); got != 0 {
		t.Errorf("%d tokens, and nothing was learnt", got)
	}
	o.Learn(1, 160, now)
	o.Learn(1, 100, now) // a longer prompt hides more of it
	if own, other := o.For(1, now), o.For(2, now); own != 160 || other != 0 {
		t.Errorf("one account: %d for itself, %d for others", own, other)
	}
	o.Learn(2, 150, now)
	if own, other := o.For(1, now), o.For(3, now); own != 160 || other != 150 {
		t.Errorf("two accounts: %d, and %d for others", own, other)
	}
	o.Learn(9, 1<<40, now)
	if own, other := o.For(9, now), o.For(3, now); own != 8192 || other != 160 {
		t.Errorf("an absurd one: %d for itself, %d for others", own, other)
	}
	for i := range uint64(1000) {
		o.Learn(100+i, 1, now)
	}
	if got := o.For(5, now); got != 1 {
		t.Errorf("after a crowd: %d", got)
	}
	if got := o.For(100+999, now.Add(25*time.Hour)); got != 0 {
		t.Errorf("a day later: %d", got)
	}
}
