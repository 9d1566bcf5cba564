package metering

import (
	"encoding/binary"
	"fmt"

	"sluice.example/sluice/pricing"
)

// Rates and usage are stored in one of two forms. Each form is a version byte followed by a list of unsigned varints.
//
// The positional form has the numbers of seven units in a fixed order. The writer leaves trailing zeros out. The reader
// refuses more numbers than the seven.
//
// The form of pairs has a unit and its number for each unit whose number is not zero, in ascending order of units. The
// reader refuses anything else.
//
// An operator upgrades a fleet gateway by gateway, and any gateway may have to sweep, settle or audit what another
// gateway wrote. So a version that writes a new form comes after a version that reads it. Versions before this one read
// the positional form only. This version reads both forms. It writes pairs only for a value that the positional form
// cannot hold: a value with a unit that is not among the seven. As long as no such unit has a price, a gateway of the
// version before reads everything that this version writes.
const (
	positionalForm = 1
	pairForm       = 2
)

// The units of the positional form, in its order. These lists must never be changed, because stored rows depend on
// them.
var (
	usagePositions = []pricing.Unit{pricing.InputTokens, pricing.CachedInputTokens, pricing.OutputTokens,
		pricing.Calls, pricing.Bytes, pricing.WallMicros, pricing.GPUMicros}
	ratePositions = []pricing.Unit{pricing.InputTokens, pricing.CachedInputTokens, pricing.OutputTokens,
		pricing.GPUMicros, pricing.Calls, pricing.Bytes, pricing.WallMicros}
)

// appendUsage encodes a usage whose counts are not negative.
func appendUsage(b []byte, u pricing.Units) []byte { return appendNumbers(b, u[:], usagePositions) }

// readUsage decodes what appendUsage wrote. b must contain nothing else. It fails with errNewer or errCodec.
func readUsage(b []byte) (u pricing.Units, err error) {
	err = readNumbers(b, u[:], usagePositions)
	return u, err
}

// appendRates encodes valid rates.
func appendRates(b []byte, r pricing.Rates) []byte { return appendNumbers(b, r[:], ratePositions) }

// readRates decodes what appendRates wrote. b must contain nothing else. It fails with errNewer or errCodec.
func readRates(b []byte) (r pricing.Rates, err error) {
	err = readNumbers(b, r[:], ratePositions)
	return r, err
}

// appendNumbers encodes numbers that are indexed by unit and not negative. It uses the positional form if that form can
// hold the numbers, and pairs otherwise.
func appendNumbers(b []byte, n []int64, order []pricing.Unit) []byte {
	for u := len(order) + 1; u < len(n); u++ { // the units of the positional form are the first units
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

// readNumbers reads either form into a slice of zeros. When it fails, the slice has the numbers that were read before
// the failure.
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

// pairs reads pairs up to the end. An unknown unit makes the whole value unreadable, because the cost would lack that
// unit's number.
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

// shortest reads a number, and sets bad if the number is not in its shortest encoding.
func (d *decoder) shortest() int64 {
	before := d.b
	v := d.number()
	if n := len(before) - len(d.b); n > 1 && before[n-1] == 0 {
		d.bad = true
	}
	return v
}
