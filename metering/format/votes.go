package format

import (
	"math"
	"slices"
)

const (
	maxVoters    = 32  // accounts whose newest answers are remembered
	votesDefault = 4   // that the default has: fewer accounts than that do not outvote it
	maxVoteStep  = 1.2 // by which the vote of one account moves an estimate at once, as a factor
)

// votes is a robust estimate of one number: the median over accounts. Each account
// has one vote, its newest answer, so that no account moves the estimate beyond what
// others say, however often it asks.
type votes struct {
	ring     [maxVoters]vote
	sorted   [maxVoters]float64 // the values of ring: each answer casts votes, so sorting anew would cost too much
	n        int                // votes in ring, and values in sorted
	cast     int64              // votes ever cast
	fallback float64            // what the default says; above 0
	estimate float64
	spread   float64 // median distance of the votes from their middle, relative to it
	seen     int64   // cast, when estimate was made
	moves    int     // accounts that have voted since then
}

type vote struct {
	voter uint64
	at    int64
	value float64
}

func newVotes(fallback float64) votes {
	return votes{fallback: fallback, estimate: fallback, spread: 1}
}

// known reports whether the accounts outvote the default.
func (v *votes) known() bool { return v.n > votesDefault }

// add casts one vote; a value that is no positive number is none. The vote of a new
// account takes the place of the oldest one.
func (v *votes) add(voter uint64, value float64) {
	if !(value > 0) || math.IsInf(value, 0) {
		return
	}
	v.cast++
	at, oldest := -1, 0
	for i := range v.ring[:v.n] {
		if v.ring[i].at < v.ring[oldest].at {
			oldest = i
		}
		if v.ring[i].voter == voter {
			at = i
		}
	}
	values := v.sorted[:v.n]
	switch {
	case at >= 0:
	case v.n < maxVoters:
		at = v.n
		v.n++
	default:
		at = oldest
	}
	if at < len(values) {
		i, _ := slices.BinarySearch(values, v.ring[at].value)
		values = slices.Delete(values, i, i+1)
	}
	i, _ := slices.BinarySearch(values, value)
	_ = slices.Insert(values, i, value) // in place: there is room
	if old := v.ring[at]; old.voter != voter || old.at <= v.seen {
		v.moves++
	}
	v.ring[at] = vote{voter, v.cast, value}
}

// refresh makes the estimate anew where votes were cast: the median, or as near to
// it as the accounts that voted since may move it.
func (v *votes) refresh() {
	if v.seen == v.cast {
		return
	}
	middle := v.median()
	step := math.Pow(maxVoteStep, float64(v.moves))
	v.estimate = min(max(middle, v.estimate/step), v.estimate*step)
	v.seen, v.moves = v.cast, 0
	v.spread = spread(v.sorted[:v.n], middle)
}

// median is that of the votes and of those that the default has.
func (v *votes) median() float64 {
	values := v.sorted[:v.n]
	first, _ := slices.BinarySearch(values, v.fallback) // where the default's votes stand
	at := func(i int) float64 {
		switch {
		case i < first:
			return values[i]
		case i < first+votesDefault:
			return v.fallback
		}
		return values[i-votesDefault]
	}
	n := v.n + votesDefault
	return (at((n-1)/2) + at(n/2)) / 2
}

// spread is the median of the distances of sorted values from middle, relative to it.
// There is at least one value.
func spread(values []float64, middle float64) float64 {
	above, _ := slices.BinarySearch(values, middle)
	below := above - 1
	var last, before float64 // the two largest of the distances so far
	for range len(values)/2 + 1 {
		before = last
		if above == len(values) || below >= 0 && middle-values[below] <= values[above]-middle {
			last = middle - values[below]
			below--
		} else {
			last = values[above] - middle
			above++
		}
	}
	if len(values)%2 == 1 {
		before = last
	}
	return (before + last) / 2 / middle
}
