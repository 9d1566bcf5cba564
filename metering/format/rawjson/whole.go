package rawjson

import (
	"math"
	"strconv"
)

// Whole reads a JSON number that is a whole one, however it is written: 4096,
// 4096.0 and 4.096e3 are the same. A number beyond an int64 is the largest or
// smallest int64. ok is false for fractions and for all that is no number; a
// string of digits is none, because backends disagree about it.
func Whole(v []byte) (n int64, ok bool) {
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

// SaysNothing reports whether a value says nothing: null, false, "", {}, [] or 0.
func SaysNothing(v []byte) bool {
	switch v[0] {
	case 'n', 'f':
		return true
	case '"':
		return len(v) == 2
	case '{', '[':
		return SkipSpace(v, 1) == len(v)-1
	}
	return string(v) == "0"
}
