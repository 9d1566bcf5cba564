package chat

import (
	"math"
	"strconv"
)

// whole reads a JSON number that is a whole one, however it is written: 4096,
// 4096.0 and 4.096e3 are the same. A number beyond an int64 is the largest or
// smallest int64. ok is false for fractions and for all that is no number; a
// string of digits is none, because backends disagree about it.
func whole(v []byte) (n int64, ok bool) {
	if len(v) == 0 || (v[0] != '-' && (v[0] < '0' || v[0] > '9')) {
		return 0, false
	}
	if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(string(v), 64)
	switch {
	case err != nil && !math.IsInf(f, 0):
		return 0, false
	case f != math.Trunc(f):
		return 0, false
	case f >= math.MaxInt64:
		return math.MaxInt64, true
	case f <= math.MinInt64:
		return math.MinInt64, true
	}
	return int64(f), true
}

// capOf reads a cap in tokens; 0 where it says that there is none: null, as SDKs
// write an absent one, and -1, as llama.cpp and Ollama do. 0 is refused: to one
// engine it is no limit, to another one token, to a third none.
func capOf(name string, v []byte) (int64, error) {
	n, ok := whole(v)
	switch {
	case isNull(v) || (ok && n == -1):
		return 0, nil
	case !ok || n < 1:
		return 0, refuseParam(name,
			"%s must be a whole number from 1 on; give the most tokens to generate, or leave it out", name)
	}
	return n, nil
}

// countOf reads a number of completions, at least 1; null is 1.
func countOf(name string, v []byte) (int64, error) {
	n, ok := whole(v)
	switch {
	case isNull(v):
		return 1, nil
	case !ok || n < 1:
		return 0, refuseParam(name, "%s must be a whole number from 1 on; leave it out for one", name)
	}
	return n, nil
}
