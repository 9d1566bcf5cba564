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
	n        int     // votes in ring
	cast     int64   // votes ever cast
	fallback float64 // what the default says; above 0
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
	switch {
	case at >= 0:
	case v.n < maxVoters:
		at = v.n
		v.n++
	default:
		at = oldest
	}
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
	var room [maxVoters + votesDefault]float64
	values := room[:v.n]
	for i := range values {
		values[i] = v.ring[i].value
	}
	for range votesDefault {
		values = append(values, v.fallback)
	}
	middle := median(values)
	step := math.Pow(maxVoteStep, float64(v.moves))
	v.estimate = min(max(middle, v.estimate/step), v.estimate*step)
	v.seen, v.moves = v.cast, 0
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
