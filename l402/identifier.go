package l402

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
)

// IdentifierSize is the length in bytes of an encoded Identifier: a version
// (2), a payment hash (32) and a token id (32). Source: L402 specification,
// "macaroon identifier", version 0.
const IdentifierSize = 2 + 32 + 32

// ErrIdentifier reports bytes that are no version 0 identifier.
var ErrIdentifier = errors.New("not an L402 identifier")

// TokenID names the account that a token spends from. It is stable across
// top-ups: many deposits (payment hashes) may belong to one TokenID.
type TokenID [32]byte

// String renders the id in lower-case hex; it is no secret.
func (t TokenID) String() string { return hex.EncodeToString(t[:]) }

// NewTokenID returns a random account name.
func NewTokenID() TokenID {
	var t TokenID
	rand.Read(t[:])
	return t
}

// ParseTokenID reads 64 hex digits.
func ParseTokenID(s string) (TokenID, error) {
	b, err := parseHex32(s)
	if err != nil {
		return TokenID{}, fmt.Errorf("token id: %w", err)
	}
	return b, nil
}

// parseHex32 reads exactly 64 hex digits of either case. Its error does not
// repeat them, since they may be a secret.
func parseHex32(s string) ([32]byte, error) {
	var b [32]byte
	if len(s) != 64 {
		return b, fmt.Errorf("want 64 hex digits, got %d characters", len(s))
	}
	if _, err := hex.Decode(b[:], []byte(s)); err != nil {
		return [32]byte{}, errors.New("want 64 hex digits")
	}
	return b, nil
}

// PaymentHash is the SHA-256 of a Preimage and names one invoice.
type PaymentHash [32]byte

// String renders the hash in lower-case hex; it is no secret.
func (h PaymentHash) String() string { return hex.EncodeToString(h[:]) }

// ParsePaymentHash reads 64 hex digits.
func ParsePaymentHash(s string) (PaymentHash, error) {
	b, err := parseHex32(s)
	if err != nil {
		return PaymentHash{}, fmt.Errorf("payment hash: %w", err)
	}
	return b, nil
}

// Preimage proves a payment. A holder of preimage and macaroon owns the
// account, so a Preimage prints nothing useful; Hex is the explicit way out.
type Preimage [32]byte

// NewPreimage returns a random preimage for a new invoice.
func NewPreimage() Preimage {
	var p Preimage
	rand.Read(p[:])
	return p
}

// ParsePreimage reads 64 hex digits. Its error does not repeat them.
func ParsePreimage(s string) (Preimage, error) {
	b, err := parseHex32(s)
	if err != nil {
		return Preimage{}, fmt.Errorf("preimage: %w", err)
	}
	return b, nil
}

// Hash returns the payment hash that p proves.
func (p Preimage) Hash() PaymentHash { return sha256.Sum256(p[:]) }

// Hex returns the secret itself in lower-case hex.
func (p Preimage) Hex() string { return hex.EncodeToString(p[:]) }

// String redacts the secret.
func (p Preimage) String() string { return "[preimage redacted]" }

// GoString redacts the secret under %#v.
func (p Preimage) GoString() string { return p.String() }

// Format redacts the secret under every verb, %x included.
func (p Preimage) Format(f fmt.State, _ rune) { f.Write([]byte(p.String())) }

// LogValue redacts the secret in structured logs.
func (p Preimage) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalText always fails, so that no encoder writes the secret (or, worse,
// loses it) by accident: store Hex.
func (p Preimage) MarshalText() ([]byte, error) {
	return nil, errors.New("a preimage is a secret: encode it with Hex")
}

// Identifier is the public head of a macaroon.
type Identifier struct {
	PaymentHash PaymentHash
	TokenID     TokenID
}

// Encode returns uint16 BE version 0 ‖ payment hash ‖ token id.
func (id Identifier) Encode() []byte {
	b := make([]byte, IdentifierSize)
	copy(b[2:34], id.PaymentHash[:])
	copy(b[34:], id.TokenID[:])
	return b
}

// ParseIdentifier reads exactly IdentifierSize bytes of version 0. Any other
// length or version is ErrIdentifier.
func ParseIdentifier(b []byte) (Identifier, error) {
	var id Identifier
	if len(b) != IdentifierSize || binary.BigEndian.Uint16(b) != 0 {
		return id, ErrIdentifier
	}
	copy(id.PaymentHash[:], b[2:34])
	copy(id.TokenID[:], b[34:])
	return id, nil
}
