package l402

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"gopkg.in/macaroon.v2"
)

// MaxMacaroonSize is the largest size of a binary macaroon in bytes. A larger one is rejected
// before it is parsed. A token that Authorize accepts is far smaller (maxTokenSize).
const MaxMacaroonSize = 64 << 10

// maxCaveats is how many caveats a parsed macaroon has at most. The limit is far above what a token
// may have. It is needed because each caveat costs one HMAC per key before a forgery is found.
const maxCaveats = 1024

// These are the field types of the version 2 binary format. Source: libmacaroons doc/format.txt.
const (
	fieldEnd          = 0
	fieldLocation     = 1
	fieldIdentifier   = 2
	fieldVerification = 4
	fieldSignature    = 6
)

// rawMacaroon is a parsed, unverified macaroon. Its slices point into the bytes that were parsed.
type rawMacaroon struct {
	id        []byte
	caveats   []rawCaveat
	signature []byte // 32 bytes
}

// rawCaveat is one caveat. verification is nil for a first-party caveat. It is not empty for a
// third-party caveat.
type rawCaveat struct {
	id           []byte
	verification []byte
}

// parseMacaroon reads exactly one version 2 binary macaroon with at most maxCaveats caveats. It is
// stricter than the macaroon library, which also reads version 1 and ignores bytes after the
// signature. parseMacaroon accepts only the encoding that the library itself writes, so that each
// macaroon has exactly one encoding.
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
			r.bad = true // only a third-party caveat may have a location
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

// packetReader reads the packets of a macaroon in turn. After the first error bad remains true and
// every read returns nothing.
type packetReader struct {
	rest []byte
	bad  bool
}

// atEnd reports whether the next byte ends the section.
func (r *packetReader) atEnd() bool { return len(r.rest) > 0 && r.rest[0] == fieldEnd }

// end reads the end of a section.
func (r *packetReader) end() {
	if r.bad || !r.atEnd() {
		r.bad = true
		return
	}
	r.rest = r.rest[1:]
}

// optional reads the next field if it is of type want, and returns nil if it is of another type. A
// field of type want that is empty is an error.
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

// field reads a field of type want: its type, its length and its data. It returns the data.
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

// minimalUvarint reads a length of at most MaxMacaroonSize from b. It returns the length n and the
// number of bytes used. used is 0 for an error. A length that could be written with fewer bytes is
// an error, because one macaroon would have several encodings.
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

// Inspect reads a macaroon without verifying it. It returns the identifier and the conditions of
// the first-party caveats, in order. A client compares the payment hash in the identifier with the
// payment hash of the invoice before it pays. Inspect fails with ErrMacaroon or ErrIdentifier.
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

// Attenuate returns a copy of a macaroon with first-party caveats added, and needs no connection. A
// holder of the result can do at most what the conditions allow. The caller's slice is not changed.
// Attenuate fails with ErrMacaroon when the bytes are not a macaroon or the result would be larger
// than MaxMacaroonSize. It does not check whether the service knows the conditions: the service
// refuses unknown ones when the token is used.
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

// DecodeMacaroon reads a macaroon from base64 and checks its form. The base64 may be standard or
// URL-safe, with or without padding. DecodeMacaroon fails with ErrMacaroon.
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

// decodeBase64 decodes standard or URL-safe base64, but not a mix of both. The padding must be
// exact or missing. The text may be as long as a macaroon of MaxMacaroonSize bytes needs. Unlike
// encoding/base64, it accepts no line breaks.
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
		return nil, errBase64 // the decoder's error would repeat parts of the secret
	}
	return b, nil
}
