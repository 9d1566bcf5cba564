package format

import (
	"math"
	"slices"
)

const (
	maxVoters    = 32  // accounts whose newest answers are remembered
	votesDefault = 4   // that the default has: fewer accounts than that do not outvote it
	maxInfluence = 1.1 // of the vote of one account on an estimate, as a factor
)

// votes is a robust estimate of one number: the median over accounts. Each account
// has one vote, its newest answer. A median is taken only while it stays nearly the
// same without any one of the votes: otherwise a single account could decide between
// two groups of others, or between the others and the default. Until then the estimate
// stays what it was.
type votes struct {
	ring     [maxVoters]vote
	sorted   [maxVoters]float64 // the values of ring: each answer casts votes, so sorting anew would cost too much
	n        int                // votes in ring, and values in sorted
	cast     int64              // votes ever cast
	fallback float64            // what the default says; above 0
	estimate float64
	spread   float64 // median distance of the votes from their middle, relative to it
	seen     int64   // cast, when estimate was made
	learnt   bool    // estimate is a median of votes that outvote the default
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
	v.ring[at] = vote{voter, v.cast, value}
}

// refresh makes the estimate anew where votes were cast: the median, if no single
// vote decides it.
func (v *votes) refresh() {
	if v.seen == v.cast {
		return
	}
	v.seen = v.cast
	m := v.merge()
	middle := m.median()
	if m.without(v.n-1)*maxInfluence >= middle && m.without(0) <= middle*maxInfluence {
		v.estimate, v.learnt = middle, v.known()
	}
	v.spread = spread(m.values, middle)
}

// merged are the votes of accounts and those that the default has, in order.
type merged struct {
	values   []float64 // of the accounts
	first    int       // where the default's votes stand
	fallback float64
}

func (v *votes) merge() merged {
	values := v.sorted[:v.n]
	first, _ := slices.BinarySearch(values, v.fallback)
	return merged{values, first, v.fallback}
}

func (m *merged) at(i int) float64 {
	switch {
	case i < m.first:
		return m.values[i]
	case i < m.first+votesDefault:
		return m.fallback
	}
	return m.values[i-votesDefault]
}

func (m *merged) median() float64 {
	n := len(m.values) + votesDefault
	return (m.at((n-1)/2) + m.at(n/2)) / 2
}

// without is the median without the vote of the account at i in order. Without the
// highest vote it is the lowest, and the other way round.
func (m *merged) without(i int) float64 {
	if i >= m.first {
		i += votesDefault
	}
	at := func(j int) float64 {
		if j >= i {
			j++
		}
		return m.at(j)
	}
	n := len(m.values) + votesDefault - 1
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
