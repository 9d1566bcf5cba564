package metering

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// The context of a hold is stored as a version byte followed by binary parts, because every request writes it and may
// read it. This takes a third of the bytes of JSON and no reflection. The rates come last, in a form of their own: see
// appendRates.

// Versions of the stored context of a hold. This program reads all of them, and writes the newest.
const (
	firstVersion  = 1
	lockedVersion = 2 // firstVersion, with the payment that locked the rates before the rest
	ownedVersion  = 3 // a flag, then the payment if the flag is 1; each budget with its expiry
)

var (
	// errCodec reports stored bytes that this version cannot have written.
	errCodec = errors.New("damaged or newer ledger row")
	// errNewer is the errCodec of rates or usage whose form or unit only a later version knows.
	errNewer = fmt.Errorf("%w: a unit or form that this version does not know", errCodec)
)

// holdContext is everything that a charge depends on or records. It is stored with the hold, so that a sweep can charge
// the hold when the owner is gone.
type holdContext struct {
	budgets     []l402.Budget // without their labels
	chain       l402.ChainID
	service     string
	model       string
	epoch       int64
	rates       pricing.Rates
	prompt      int64
	idempotency *Idempotency
	lock        l402.PaymentHash // payment that locked the rates; zero: no lock
}

// appendContext encodes c. It expects names of at most maxName bytes and numbers that are not negative, which Reserve
// checks.
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

// readContext decodes what appendContext wrote. It returns errCodec for any other bytes.
func readContext(b []byte) (*holdContext, error) {
	d, c := decoder{b: b}, &holdContext{}
	version := d.byte()
	switch version {
	case firstVersion:
	case lockedVersion, ownedVersion:
		if version == lockedVersion || d.flag() {
			d.array(c.lock[:])
			d.bad = d.bad || c.lock == (l402.PaymentHash{})
		}
	default:
		return nil, errCodec
	}
	n := d.number()
	if n > int64(len(b)/32) { // each budget takes more than 32 bytes, so this bounds the allocation by the input's size
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

// decoder reads parts off the front of b. After the first part that does not fit, bad is set, and all later parts read
// as zero.
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
