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
	if s == "" || len(s) > 19 || (len(s) > 1 && s[0] == '0') {
		return 0, fmt.Errorf("%q is not a number of msat: %w", clip(s), ErrMsatRange)
	}
	var n int64
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c < '0' || c > '9' || n > math.MaxInt64/10-1 {
			return 0, fmt.Errorf("%q is not a number of msat: %w", clip(s), ErrMsatRange)
		}
		n = n*10 + int64(c-'0')
	}
	if !Msat(n).Valid() {
		return 0, fmt.Errorf("%q msat: %w", s, ErrMsatRange)
	}
	return Msat(n), nil
}

// clip shortens hostile input before it goes into an error.
func clip(s string) string {
	if len(s) > 32 {
		return s[:32] + "…"
	}
	return s
}
