package l402

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Msat is an amount of money in millisatoshi (a thousandth of a satoshi).
// All money in this module is an Msat; floats never touch it.
type Msat int64

// MsatPerSat is the number of millisatoshi in one satoshi.
const MsatPerSat Msat = 1000

// MaxMsat is the largest amount handled: 21 million bitcoin. It leaves
// headroom in an int64, so that two valid amounts can always be added.
const MaxMsat Msat = 21_000_000 * 100_000_000 * MsatPerSat

// ErrMsatRange reports an amount outside 0..MaxMsat or a sum that overflows.
var ErrMsatRange = errors.New("amount out of range")

// Add returns m+n. It fails with ErrMsatRange when the sum overflows an
// int64; either side may be negative.
func (m Msat) Add(n Msat) (Msat, error) {
	if (n > 0 && m > math.MaxInt64-n) || (n < 0 && m < math.MinInt64-n) {
		return 0, ErrMsatRange
	}
	return m + n, nil
}

// Valid reports whether m is within 0..MaxMsat.
func (m Msat) Valid() bool { return m >= 0 && m <= MaxMsat }

// CeilSats returns m rounded up to whole satoshis, still in millisatoshi.
// m must be Valid.
func (m Msat) CeilSats() Msat {
	return (m + MsatPerSat - 1) / MsatPerSat * MsatPerSat
}

// String renders the amount with its unit, as "1500 msat".
func (m Msat) String() string { return strconv.FormatInt(int64(m), 10) + " msat" }

// ParseMsat reads a plain decimal number of millisatoshi: digits only, no
// sign, no leading zeros, within 0..MaxMsat. It is the strict form that
// caveats and headers use.
func ParseMsat(s string) (Msat, error) {
	n, ok := parseDecimal(s, int64(MaxMsat))
	if !ok {
		return 0, fmt.Errorf("%q is not a number of msat within 0..%d: %w", clip(s), int64(MaxMsat), ErrMsatRange)
	}
	return Msat(n), nil
}

// parseDecimal reads a number within 0..limit, written in the only way that
// strconv.FormatInt would: no sign, no leading zeros, nothing around it.
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

// clip shortens hostile input before it goes into an error.
func clip(s string) string {
	if len(s) > 32 {
		return s[:32] + "…"
	}
	return s
}
