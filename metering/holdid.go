package metering

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"
)

// HoldID is the id of one reservation and later of its charge. It is a UUID of version 7 (RFC 9562). Ids that were made
// one after the other are neighbours in an index, so inserting charges stays cheap however many charges there are. The
// id is no secret: it is the request id that a client sees.
type HoldID [16]byte

// ErrHoldID reports a text that is no canonical UUID.
var ErrHoldID = errors.New("not a request id: want a UUID such as 0195f0c2-8a3e-7d10-9c4b-0242ac120002")

// NewHoldID returns a fresh id: 48 bits of time in milliseconds since 1970, and random bits for the rest.
func NewHoldID() HoldID {
	var id HoldID
	rand.Read(id[6:])
	ms := uint64(time.Now().UnixMilli())
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70 // version 7
	id[8] = id[8]&0x3f | 0x80 // RFC 9562 variant
	return id
}

// Time returns when the id was made, in whole milliseconds of the clock of the process that made it.
func (id HoldID) Time() time.Time {
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms)
}

// dashes are the positions of the hyphens in the canonical form.
var dashes = [4]int{8, 13, 18, 23}

// String returns the canonical lower-case form.
func (id HoldID) String() string {
	var b [36]byte
	id.appendTo(b[:0])
	return string(b[:])
}

func (id HoldID) appendTo(b []byte) []byte {
	for i, c := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, []byte{c})
	}
	return b
}

// MarshalText returns the canonical form, for JSON.
func (id HoldID) MarshalText() ([]byte, error) { return id.appendTo(make([]byte, 0, 36)), nil }

// UnmarshalText reads what ParseHoldID reads.
func (id *HoldID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseHoldID(string(b))
	return err
}

// ParseHoldID reads the canonical form of any UUID, in upper or lower case. It returns ErrHoldID for anything else.
func ParseHoldID(s string) (HoldID, error) {
	var id HoldID
	if len(s) != 36 {
		return id, ErrHoldID
	}
	digits := make([]byte, 0, 32)
	from := 0
	for _, d := range dashes {
		if s[d] != '-' {
			return id, ErrHoldID
		}
		digits = append(digits, s[from:d]...)
		from = d + 1
	}
	digits = append(digits, s[from:]...)
	if _, err := hex.Decode(id[:], digits); err != nil {
		return HoldID{}, ErrHoldID
	}
	return id, nil
}
