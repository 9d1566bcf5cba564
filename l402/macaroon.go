package l402

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"gopkg.in/macaroon.v2"
)

// MaxMacaroonSize bounds a binary macaroon in bytes. Anything larger is not
// even parsed; a token that our own services accept is far smaller.
const MaxMacaroonSize = 64 << 10

// maxCaveats bounds the caveats of a macaroon, far above what a token may
// have: each one costs an HMAC per key before a forgery shows.
const maxCaveats = 1024

// Field types of the version 2 binary format. Source: libmacaroons
// doc/format.txt.
const (
	fieldEnd          = 0
	fieldLocation     = 1
	fieldIdentifier   = 2
	fieldVerification = 4
	fieldSignature    = 6
)

// rawMacaroon is a parsed, unverified macaroon. Its slices point into the
// bytes it was parsed from.
type rawMacaroon struct {
	id        []byte
	caveats   []rawCaveat
	signature []byte // 32 bytes
}

// rawCaveat is a third party's when verification is set, which is then never
// empty.
type rawCaveat struct {
	id           []byte
	verification []byte
}

// parseMacaroon reads exactly one version 2 binary macaroon. It is stricter
// than the macaroon library, which also takes version 1 and ignores what
// follows the signature: here a macaroon has one encoding only, the one that
// the library itself would write, and at most maxCaveats caveats.
func parseMacaroon(b []byte) (rawMacaroon, error) {
	var m rawMacaroon
	if len(b) == 0 || len(b) > MaxMacaroonSize || b[0] != 2 {
		return m, ErrMacaroon
	}
	r := packetReader{rest: b[1:]}
	r.optional(fieldLocation)
	m.id = r.field(fieldIdentifier)
	r.end()
	m.caveats = make([]rawCaveat, 0, 8)
	for !r.bad && !r.atEnd() {
		located := r.optional(fieldLocation) != nil
		c := rawCaveat{id: r.field(fieldIdentifier)}
		c.verification = r.optional(fieldVerification)
		r.end()
		if located && c.verification == nil {
			r.bad = true // only third parties have a location
		}
		if len(m.caveats) == maxCaveats {
			r.bad = true
		}
		m.caveats = append(m.caveats, c)
	}
	r.end()
	m.signature = r.field(fieldSignature)
	if r.bad || len(m.signature) != 32 || len(r.rest) != 0 {
		return rawMacaroon{}, ErrMacaroon
	}
	return m, nil
}

// packetReader walks the packets of a macaroon. After the first error bad
// stays set and all reads yield nothing.
type packetReader struct {
	rest []byte
	bad  bool
}

// atEnd reports whether the next packet ends the section.
func (r *packetReader) atEnd() bool { return len(r.rest) > 0 && r.rest[0] == fieldEnd }

// end consumes the end of a section.
func (r *packetReader) end() {
	if r.bad || !r.atEnd() {
		r.bad = true
		return
	}
	r.rest = r.rest[1:]
}

// optional reads a field of type want if it comes next, which must then not
// be empty, and returns nil otherwise.
func (r *packetReader) optional(want byte) []byte {
	if r.bad || len(r.rest) == 0 || r.rest[0] != want {
		return nil
	}
	f := r.field(want)
	if len(f) == 0 {
		r.bad = true
		return nil
	}
	return f
}

// field reads a field of type want: type, length, data.
func (r *packetReader) field(want byte) []byte {
	if r.bad || len(r.rest) == 0 || r.rest[0] != want {
		r.bad = true
		return nil
	}
	n, used := minimalUvarint(r.rest[1:])
	if used == 0 || n > len(r.rest)-1-used {
		r.bad = true
		return nil
	}
	data := r.rest[1+used : 1+used+n : 1+used+n]
	r.rest = r.rest[1+used+n:]
	return data
}

// minimalUvarint reads a length of at most MaxMacaroonSize. Lengths that could
// be written with fewer bytes are refused (used 0): they would give one
// macaroon many encodings.
func minimalUvarint(b []byte) (n, used int) {
	for i := 0; i < len(b) && i < 3; i++ {
		n |= int(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			if i > 0 && b[i] == 0 {
				return 0, 0
			}
			return n, i + 1
		}
	}
	return 0, 0
}

// Inspect reads a macaroon without verifying it: its identifier and the
// conditions of its first-party caveats, in order. A client uses it to compare
// the payment hash with an invoice's before paying. It fails with ErrMacaroon
// or ErrIdentifier.
func Inspect(unverified []byte) (Identifier, []string, error) {
	m, err := parseMacaroon(unverified)
	if err != nil {
		return Identifier{}, nil, err
	}
	id, err := ParseIdentifier(m.id)
	if err != nil {
		return Identifier{}, nil, err
	}
	conditions := make([]string, 0, len(m.caveats))
	for _, c := range m.caveats {
		if c.verification == nil {
			conditions = append(conditions, string(c.id))
		}
	}
	return id, conditions, nil
}

// Attenuate adds first-party caveats to a macaroon, offline: a holder of the
// result can do at most what the conditions leave. The caller's slice is not
// changed. It fails with ErrMacaroon when bytes are no macaroon or the result
// would be larger than MaxMacaroonSize; whether the service understands the
// conditions shows when the token is used.
func Attenuate(unverified []byte, conditions ...string) ([]byte, error) {
	if _, err := parseMacaroon(unverified); err != nil {
		return nil, err
	}
	var m macaroon.Macaroon
	if err := m.UnmarshalBinary(unverified); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMacaroon, err)
	}
	for _, c := range conditions {
		if err := m.AddFirstPartyCaveat([]byte(c)); err != nil {
			return nil, fmt.Errorf("add caveat: %w", err)
		}
	}
	b, err := m.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode macaroon: %w", err)
	}
	if len(b) > MaxMacaroonSize {
		return nil, fmt.Errorf("macaroon would grow to %d bytes: %w", len(b), ErrMacaroon)
	}
	return b, nil
}

// DecodeMacaroon reads a macaroon from base64, standard or URL-safe, padded or
// not, and checks its form. It fails with ErrMacaroon.
func DecodeMacaroon(s string) ([]byte, error) {
	b, err := decodeBase64(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMacaroon, err)
	}
	if _, err := parseMacaroon(b); err != nil {
		return nil, err
	}
	return b, nil
}

var errBase64 = errors.New("not base64")

// decodeBase64 takes either alphabet, but not both at once, with exact padding
// or none, and no more than a macaroon needs. Unlike the standard library's it
// accepts no line breaks.
func decodeBase64(s string) ([]byte, error) {
	if len(s) > base64.StdEncoding.EncodedLen(MaxMacaroonSize) || strings.ContainsAny(s, "\r\n") {
		return nil, errBase64
	}
	enc := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.RawURLEncoding
	}
	if strings.HasSuffix(s, "=") {
		enc = enc.WithPadding(base64.StdPadding)
	}
	b, err := enc.Strict().DecodeString(s)
	if err != nil {
		return nil, errBase64 // the cause would repeat parts of the secret
	}
	return b, nil
}
