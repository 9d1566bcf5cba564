package chat

import (
	"math"
	"slices"
)

const (
	maxVotes     = 32  // answers that are remembered
	votesEach    = 8   // of them that one account may have cast
	votesDefault = 9   // that the default has: more than one account
	votesToTrust = 4   // below which nothing is known where there is no default
	maxVoteStep  = 1.2 // by which one vote moves an estimate, as a factor
)

// votes is a robust estimate of one number: the median of many answers. An
// account that has cast its share replaces its own oldest vote, so that it cannot
// push out those of others.
type votes struct {
	ring     [maxVotes]vote
	n        int     // votes in ring
	cast     int64   // votes ever cast
	fallback float64 // 0: there is no default
	estimate float64
	spread   float64 // median distance of the votes from the estimate, relative to it
	seen     int64   // cast, when estimate was made
}

type vote struct {
	voter uint64
	at    int64
	value float64
}

func newVotes(fallback float64) votes {
	return votes{fallback: fallback, estimate: fallback, spread: 1}
}

// known reports whether the votes outweigh the default.
func (v *votes) known() bool {
	if v.fallback > 0 {
		return v.n > votesDefault
	}
	return v.n >= votesToTrust
}

// add casts one vote; a value that is no positive number is none.
func (v *votes) add(voter uint64, value float64) {
	if !(value > 0) || math.IsInf(value, 0) {
		return
	}
	v.cast++
	own, mine, oldest := -1, 0, 0
	for i := range v.ring[:v.n] {
		if v.ring[i].at < v.ring[oldest].at {
			oldest = i
		}
		if v.ring[i].voter != voter {
			continue
		}
		if mine++; own < 0 || v.ring[i].at < v.ring[own].at {
			own = i
		}
	}
	switch {
	case mine >= votesEach:
	case v.n < maxVotes:
		own = v.n
		v.n++
	default:
		own = oldest
	}
	v.ring[own] = vote{voter, v.cast, value}
}

// refresh makes the estimate anew where votes were cast: the median, or as near to
// it as the votes cast since may move it.
func (v *votes) refresh() {
	if v.seen == v.cast {
		return
	}
	var room [maxVotes + votesDefault]float64
	values := room[:v.n]
	for i := range values {
		values[i] = v.ring[i].value
	}
	if v.fallback > 0 {
		for range votesDefault {
			values = append(values, v.fallback)
		}
	}
	middle := median(values)
	if v.estimate > 0 && (v.fallback > 0 || v.n > votesEach) {
		step := math.Pow(maxVoteStep, float64(v.cast-v.seen))
		middle = min(max(middle, v.estimate/step), v.estimate*step)
	}
	v.estimate, v.seen = middle, v.cast
	values = values[:0]
	for i := range v.ring[:v.n] {
		values = append(values, math.Abs(v.ring[i].value-middle)/middle)
	}
	v.spread = median(values)
}

// median sorts the values, of which there is at least one.
func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
