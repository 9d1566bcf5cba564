package l402

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Msat is an amount of money in millisatoshi (a thousandth of a satoshi). Every amount of money in
// this module is an Msat. No amount is ever a floating-point number.
type Msat int64

// MsatPerSat is the number of millisatoshi in one satoshi.
const MsatPerSat Msat = 1000

// MaxMsat is the largest amount that this module handles: 21 million bitcoin. The sum of two valid
// amounts always fits into an int64.
const MaxMsat Msat = 21_000_000 * 100_000_000 * MsatPerSat

// ErrMsatRange reports an amount outside 0..MaxMsat or a sum that overflows.
var ErrMsatRange = errors.New("amount out of range")

// Add returns m+n. It fails with ErrMsatRange when the sum overflows an int64. m and n may be
// negative.
func (m Msat) Add(n Msat) (Msat, error) {
	if (n > 0 && m > math.MaxInt64-n) || (n < 0 && m < math.MinInt64-n) {
		return 0, ErrMsatRange
	}
	return m + n, nil
}

// Valid reports whether m is within 0..MaxMsat.
func (m Msat) Valid() bool { return m >= 0 && m <= MaxMsat }

// CeilSats returns m rounded up to whole satoshis, as an amount in millisatoshi. m must be Valid.
func (m Msat) CeilSats() Msat {
	return (m + MsatPerSat - 1) / MsatPerSat * MsatPerSat
}

// String returns the amount with its unit, such as "1500 msat".
func (m Msat) String() string { return strconv.FormatInt(int64(m), 10) + " msat" }

// ParseMsat reads a plain decimal number of millisatoshi: only digits, no sign, no leading zeros,
// within 0..MaxMsat. Caveats and headers use this strict form.
func ParseMsat(s string) (Msat, error) {
	n, ok := parseDecimal(s, int64(MaxMsat))
	if !ok {
		return 0, fmt.Errorf("%q is not a number of msat within 0..%d: %w", clip(s), int64(MaxMsat), ErrMsatRange)
	}
	return Msat(n), nil
}

// parseDecimal reads a number within 0..limit. It accepts only the spelling of strconv.FormatInt:
// no sign, no leading zeros, no spaces.
func parseDecimal(s string, limit int64) (int64, bool) {
	if s == "" || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		d := int64(s[i]) - '0'
		if d < 0 || d > 9 || n > (limit-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// clip shortens input from outside, which may be long, for an error text.
func clip(s string) string {
	if len(s) > 32 {
		return s[:32] + "…"
	}
	return s
}
