package format

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestVotes compares the votes, which are kept in order, with the definition.
func TestVotes(t *testing.T) {
	middleOf := func(values []float64) float64 {
		slices.Sort(values)
		n := len(values)
		return (values[(n-1)/2] + values[n/2]) / 2
	}
	near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(b)) }
	for range 200 {
		v := newVotes(4)
		accounts, most := uint64(1+rand.IntN(2*maxVoters)), 1+rand.IntN(9)
		for range 100 {
			v.add(rand.Uint64N(accounts), float64(1+rand.IntN(most)))
			var values, distances []float64
			for _, x := range v.ring[:v.n] {
				values = append(values, x.value)
			}
			for range votesDefault {
				values = append(values, v.fallback)
			}
			middle := middleOf(values)
			m := v.merge()
			if got := m.median(); got != middle {
				t.Fatalf("median %v, want %v of %v", got, middle, values)
			}
			lowest, highest := math.Inf(1), 0.0
			for i, x := range v.sorted[:v.n] {
				rest := slices.Clone(values)
				at, _ := slices.BinarySearch(rest, x)
				want := middleOf(slices.Delete(rest, at, at+1))
				if got := m.without(i); got != want {
					t.Fatalf("without %v it is %v, want %v of %v", x, got, want, values)
				}
				lowest, highest = min(lowest, want), max(highest, want)
			}
			if m.without(v.n-1) != lowest || m.without(0) != highest {
				t.Fatalf("without one of %v it is %v to %v, want %v to %v", values, m.without(v.n-1), m.without(0), lowest, highest)
			}
			for _, x := range v.ring[:v.n] {
				distances = append(distances, math.Abs(x.value-middle)/middle)
			}
			if got, want := spread(v.sorted[:v.n], middle), middleOf(distances); !near(got, want) {
				t.Fatalf("spread %v, want %v of %v", got, want, distances)
			}
		}
	}
}

func BenchmarkVotes(b *testing.B) {
	v := newVotes(4)
	for i := range 100 {
		v.add(uint64(i), float64(i%7+1))
	}
	for i := 0; b.Loop(); i++ {
		v.add(uint64(i%50), float64(i%9+1))
		v.refresh()
	}
}
