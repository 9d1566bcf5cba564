package metering

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// Rates, usage and the context of a hold are stored as a version byte and a
// list of unsigned varints: a third of the bytes of JSON, no reflection, and
// they are written and read on every request. Trailing zeros are left out;
// unknown trailing numbers are refused.

const codecVersion = 1

// Versions of the context of a hold. Each is read; the newest is written.
const (
	lockedVersion = 2 // codecVersion, with the payment that locked the rates in front
	ownedVersion  = 3 // a flag and the payment if it is set; budgets with their expiry
)

// errCodec reports stored bytes that this version did not write.
var errCodec = errors.New("damaged or newer ledger row")

// The units of the positional form, in its order. A list is never changed.
var (
	usagePositions = []pricing.Unit{pricing.InputTokens, pricing.CachedInputTokens, pricing.OutputTokens,
		pricing.Calls, pricing.Bytes, pricing.WallMicros, pricing.GPUMicros}
	ratePositions = []pricing.Unit{pricing.InputTokens, pricing.CachedInputTokens, pricing.OutputTokens,
		pricing.GPUMicros, pricing.Calls, pricing.Bytes, pricing.WallMicros}
)

// appendNumbers writes the version and the numbers without trailing zeros. All
// numbers are non-negative.
func appendNumbers(b []byte, n []int64, order []pricing.Unit) []byte {
	for len(order) > 0 && n[order[len(order)-1]] == 0 {
		order = order[:len(order)-1]
	}
	b = append(b, codecVersion)
	for _, u := range order {
		b = binary.AppendUvarint(b, uint64(n[u]))
	}
	return b
}

// readNumbers reads what appendNumbers wrote; b is nothing else.
func readNumbers(b []byte, into []int64, order []pricing.Unit) error {
	if len(b) == 0 || b[0] != codecVersion {
		return errCodec
	}
	b = b[1:]
	for _, u := range order {
		if len(b) == 0 {
			return nil
		}
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<63-1 {
			return errCodec
		}
		into[u], b = int64(v), b[n:]
	}
	if len(b) != 0 {
		return errCodec
	}
	return nil
}

// appendUsage encodes a usage whose counts are non-negative.
func appendUsage(b []byte, u pricing.Units) []byte { return appendNumbers(b, u[:], usagePositions) }

func readUsage(b []byte) (u pricing.Units, err error) {
	err = readNumbers(b, u[:], usagePositions)
	return u, err
}

// appendRates encodes valid rates.
func appendRates(b []byte, r pricing.Rates) []byte { return appendNumbers(b, r[:], ratePositions) }

func readRates(b []byte) (r pricing.Rates, err error) {
	err = readNumbers(b, r[:], ratePositions)
	return r, err
}

// holdContext is the part of a reservation that a sweep needs when its owner is
// gone: everything that a charge depends on or records.
type holdContext struct {
	budgets     []l402.Budget // labels left out
	chain       l402.ChainID
	service     string
	model       string
	epoch       int64
	rates       pricing.Rates
	prompt      int64
	idempotency *Idempotency
	lock        l402.PaymentHash // payment that locked rates; zero: none
}

// appendContext encodes c. Names are at most maxName bytes long and numbers
// non-negative, which Reserve checks.
func appendContext(b []byte, c *holdContext) []byte {
	b = append(b, ownedVersion)
	if c.lock == (l402.PaymentHash{}) {
		b = append(b, 0)
	} else {
		b = append(append(b, 1), c.lock[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(c.budgets)))
	for i := range c.budgets {
		b = append(b, c.budgets[i].ID[:]...)
		b = binary.AppendUvarint(b, uint64(c.budgets[i].Limit))
		b = binary.AppendUvarint(b, uint64(max(0, c.budgets[i].ValidUntil)))
	}
	if c.chain == (l402.ChainID{}) {
		b = append(b, 0)
	} else {
		b = append(append(b, 1), c.chain[:]...)
	}
	b = appendBytes(b, c.service)
	b = appendBytes(b, c.model)
	b = binary.AppendUvarint(b, uint64(c.epoch))
	b = binary.AppendUvarint(b, uint64(c.prompt))
	if c.idempotency == nil {
		b = append(b, 0)
	} else {
		b = append(append(append(b, 1), c.idempotency.Key[:]...), c.idempotency.Body[:]...)
	}
	return appendRates(b, c.rates)
}

func appendBytes(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// readContext decodes what appendContext wrote; anything else is errCodec.
func readContext(b []byte) (*holdContext, error) {
	d, c := decoder{b: b}, &holdContext{}
	version := d.byte()
	switch version {
	case codecVersion:
	case lockedVersion, ownedVersion:
		if version == lockedVersion || d.flag() {
			d.array(c.lock[:])
			d.bad = d.bad || c.lock == (l402.PaymentHash{})
		}
	default:
		return nil, errCodec
	}
	n := d.number()
	if n > int64(len(b)/32) { // each takes more than 32 bytes: no allocation beyond the input's size
		return nil, errCodec
	}
	for range n {
		var l l402.Budget
		d.array(l.ID[:])
		l.Limit = l402.Msat(d.number())
		if version == ownedVersion {
			l.ValidUntil = d.number()
		}
		c.budgets = append(c.budgets, l)
	}
	if d.flag() {
		d.array(c.chain[:])
	}
	c.service, c.model = d.text(), d.text()
	c.epoch, c.prompt = d.number(), d.number()
	if d.flag() {
		c.idempotency = new(Idempotency)
		d.array(c.idempotency.Key[:])
		d.array(c.idempotency.Body[:])
	}
	if d.bad {
		return nil, errCodec
	}
	var err error
	if c.rates, err = readRates(d.b); err != nil {
		return nil, fmt.Errorf("rates: %w", err)
	}
	return c, nil
}

// decoder reads parts off the front of b; after the first that does not fit, bad
// is set and everything else reads as zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) array(into []byte) { copy(into, d.take(len(into))) }

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) flag() bool {
	v := d.byte()
	d.bad = d.bad || v > 1
	return v == 1
}

func (d *decoder) number() int64 {
	v, n := binary.Uvarint(d.b)
	if d.bad || n <= 0 || v > 1<<63-1 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return int64(v)
}

func (d *decoder) text() string {
	n := d.number()
	if n > int64(len(d.b)) {
		d.bad = true
		return ""
	}
	return string(d.take(int(n)))
}
