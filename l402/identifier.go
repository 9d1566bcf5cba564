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

// IdentifierSize is the length in bytes of an encoded Identifier: a version (2 bytes), a payment
// hash (32 bytes) and a token id (32 bytes). Source: L402 specification, "macaroon identifier",
// version 0.
const IdentifierSize = 2 + 32 + 32

// ErrIdentifier reports bytes that are not a version 0 identifier.
var ErrIdentifier = errors.New("not an L402 identifier")

// TokenID names the account that a token spends from. A top-up adds a payment hash to the account
// and leaves the TokenID as it is, so many payment hashes may belong to one TokenID.
type TokenID [32]byte

// String returns the id in lower-case hex. The id is not a secret.
func (t TokenID) String() string { return hex.EncodeToString(t[:]) }

// NewTokenID returns a random id for a new account.
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

// parseHex32 reads exactly 64 hex digits of either case. Its error does not repeat the digits,
// because they may be a secret.
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

// PaymentHash is the SHA-256 of a Preimage. It names one invoice.
type PaymentHash [32]byte

// String returns the hash in lower-case hex. The hash is not a secret.
func (h PaymentHash) String() string { return hex.EncodeToString(h[:]) }

// ParsePaymentHash reads 64 hex digits.
func ParsePaymentHash(s string) (PaymentHash, error) {
	b, err := parseHex32(s)
	if err != nil {
		return PaymentHash{}, fmt.Errorf("payment hash: %w", err)
	}
	return b, nil
}

// Preimage proves a payment. Whoever has the preimage and the macaroon owns the account, so a
// Preimage is redacted wherever it is printed. Hex is the only method that returns the secret.
type Preimage [32]byte

// NewPreimage returns a random preimage for a new invoice.
func NewPreimage() Preimage {
	var p Preimage
	rand.Read(p[:])
	return p
}

// ParsePreimage reads 64 hex digits. Its error does not repeat the digits.
func ParsePreimage(s string) (Preimage, error) {
	b, err := parseHex32(s)
	if err != nil {
		return Preimage{}, fmt.Errorf("preimage: %w", err)
	}
	return b, nil
}

// Hash returns the payment hash whose payment p proves.
func (p Preimage) Hash() PaymentHash { return sha256.Sum256(p[:]) }

// Hex returns the secret itself in lower-case hex.
func (p Preimage) Hex() string { return hex.EncodeToString(p[:]) }

// String redacts the secret.
func (p Preimage) String() string { return "[preimage redacted]" }

// GoString redacts the secret under %#v.
func (p Preimage) GoString() string { return p.String() }

// Format redacts the secret under every verb of fmt, %x included.
func (p Preimage) Format(f fmt.State, _ rune) { f.Write([]byte(p.String())) }

// LogValue redacts the secret in structured logs.
func (p Preimage) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalText always fails, so that no encoder writes or loses the secret by accident. A caller
// that stores the secret uses Hex.
func (p Preimage) MarshalText() ([]byte, error) {
	return nil, errors.New("a preimage is a secret: encode it with Hex")
}

// Identifier is the identifier at the beginning of a macaroon. It is not a secret.
type Identifier struct {
	PaymentHash PaymentHash
	TokenID     TokenID
}

// Encode returns the version 0 as two bytes, then the payment hash, then the token id.
func (id Identifier) Encode() []byte {
	b := make([]byte, IdentifierSize)
	copy(b[2:34], id.PaymentHash[:])
	copy(b[34:], id.TokenID[:])
	return b
}

// ParseIdentifier reads exactly IdentifierSize bytes of version 0. It fails with ErrIdentifier for
// any other length or version.
func ParseIdentifier(b []byte) (Identifier, error) {
	var id Identifier
	if len(b) != IdentifierSize || binary.BigEndian.Uint16(b) != 0 {
		return id, ErrIdentifier
	}
	copy(id.PaymentHash[:], b[2:34])
	copy(id.TokenID[:], b[34:])
	return id, nil
}
