package format

import "math/bits"

// MulSat is a·b, at most the largest int64; neither is negative.
func MulSat(a, b int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi != 0 || lo > MaxInt64 {
		return MaxInt64
	}
	return int64(lo)
}

// AddSat is a+b, at most the largest int64; neither is negative.
func AddSat(a, b int64) int64 {
	if a > MaxInt64-b {
		return MaxInt64
	}
	return a + b
}

const MaxInt64 = 1<<63 - 1
