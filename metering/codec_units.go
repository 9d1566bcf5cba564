package metering

import (
	"encoding/binary"
	"fmt"

	"sluice.example/sluice/pricing"
)

// Rates and usage are stored in one of two forms. Each is a version byte and a list
// of unsigned varints.
//
// The positional form has the numbers of seven units in a fixed order. Trailing zeros
// are left out, and unknown trailing numbers are refused.
//
// The form of pairs has a unit and its number for each unit whose number is not zero,
// by ascending units. All else is refused.
//
// A fleet is upgraded gateway by gateway, and any of them may have to sweep, settle or
// audit what another one wrote. So a form is written one version after it can be read.
// Versions before this one read the positional form only. This version reads both, and
// writes pairs for nothing but a value that the positional form cannot say: one with a
// unit that is not among the seven. As long as no such unit has a price, a gateway of
// the version before reads everything that this one writes.
const (
	positionalForm = 1
	pairForm       = 2
)

// The units of the positional form, in its order. A list is never changed.
var (
	usagePositions = []pricing.Unit{pricing.InputTokens, pricing.CachedInputTokens, pricing.OutputTokens,
		pricing.Calls, pricing.Bytes, pricing.WallMicros, pricing.GPUMicros}
	ratePositions = []pricing.Unit{pricing.InputTokens, pricing.CachedInputTokens, pricing.OutputTokens,
		pricing.GPUMicros, pricing.Calls, pricing.Bytes, pricing.WallMicros}
)

// appendUsage encodes a usage whose counts are not negative.
func appendUsage(b []byte, u pricing.Units) []byte { return appendNumbers(b, u[:], usagePositions) }

// readUsage decodes what appendUsage wrote; b is nothing else. It fails with errNewer
// or errCodec.
func readUsage(b []byte) (u pricing.Units, err error) {
	err = readNumbers(b, u[:], usagePositions)
	return u, err
}

// appendRates encodes valid rates.
func appendRates(b []byte, r pricing.Rates) []byte { return appendNumbers(b, r[:], ratePositions) }

// readRates decodes what appendRates wrote; b is nothing else. It fails with errNewer
// or errCodec.
func readRates(b []byte) (r pricing.Rates, err error) {
	err = readNumbers(b, r[:], ratePositions)
	return r, err
}

// appendNumbers encodes numbers, indexed by unit and none of them negative: in the
// positional form if that can say them.
func appendNumbers(b []byte, n []int64, order []pricing.Unit) []byte {
	for u := len(order) + 1; u < len(n); u++ { // the positional form has the first units
		if n[u] != 0 {
			return appendPairs(b, n)
		}
	}
	for len(order) > 0 && n[order[len(order)-1]] == 0 {
		order = order[:len(order)-1]
	}
	b = append(b, positionalForm)
	for _, u := range order {
		b = binary.AppendUvarint(b, uint64(n[u]))
	}
	return b
}

func appendPairs(b []byte, n []int64) []byte {
	b = append(b, pairForm)
	for u, v := range n {
		if v != 0 {
			b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(u)), uint64(v))
		}
	}
	return b
}

// readNumbers reads either form into numbers that are all zero. When it fails, the
// numbers that it has read so far stand there.
func readNumbers(b []byte, into []int64, order []pricing.Unit) error {
	d := decoder{b: b}
	switch form := d.byte(); {
	case form == positionalForm:
		for _, u := range order {
			if len(d.b) == 0 {
				break
			}
			into[u] = d.number()
		}
		if d.bad || len(d.b) != 0 {
			return errCodec
		}
		return nil
	case form == pairForm:
		return d.pairs(into)
	case form > pairForm:
		return fmt.Errorf("form %d: %w", form, errNewer)
	}
	return errCodec
}

// pairs reads to the end. A unit that is not known makes all of them unreadable: its
// number would be missing from a cost.
func (d *decoder) pairs(into []int64) error {
	for last := int64(0); len(d.b) > 0; {
		unit, n := d.shortest(), d.shortest()
		if d.bad || unit <= last || n == 0 {
			return errCodec
		}
		if last = unit; unit >= int64(len(into)) {
			return fmt.Errorf("unit %d: %w", unit, errNewer)
		}
		into[unit] = n
	}
	return nil
}

// shortest reads a number in its one canonical encoding.
func (d *decoder) shortest() int64 {
	before := d.b
	v := d.number()
	if n := len(before) - len(d.b); n > 1 && before[n-1] == 0 {
		d.bad = true
	}
	return v
}
