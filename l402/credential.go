package l402

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
)

// preimagePrefix begins the caveat in which header macaroons carry the
// preimage. Source: L402 specification, gRPC transport.
const preimagePrefix = "preimage="

// Credential is a macaroon with the preimage that paid for it, well-formed
// and unverified. It is bearer material and prints nothing useful.
type Credential struct {
	Macaroon []byte
	Preimage Preimage
}

// String redacts the credential.
func (c Credential) String() string { return "[credential redacted]" }

// Format redacts the credential under every verb.
func (c Credential) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// LogValue redacts the credential in structured logs.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText always fails: a credential is encoded by FormatCredential only.
func (c Credential) MarshalText() ([]byte, error) {
	return nil, errors.New("a credential is a secret: encode it with FormatCredential")
}

// FormatCredential returns the value of the Authorization header.
func FormatCredential(macaroon []byte, p Preimage) string {
	return "L402 " + base64.StdEncoding.EncodeToString(macaroon) + ":" + p.Hex()
}

// CredentialFromHeader finds the L402 credential of a request: in
// Authorization with the scheme L402 or LSAT, or in Macaroon or
// Grpc-Metadata-Macaroon as hex with a preimage= caveat. It returns nil, nil
// when there is none; another scheme counts as none. The same credential in
// several places is one. It fails with ErrMalformedCredential when none can be
// read, and with ErrConflictingCredentials when not all of them agree.
func CredentialFromHeader(h http.Header) (*Credential, error) {
	var f finder
	for _, value := range h.Values("Authorization") {
		if encoded, ok := cutScheme(value); ok {
			f.add(parseAuthorization(encoded))
		}
	}
	for _, value := range h.Values("Macaroon") {
		f.add(parseMacaroonHeader(value))
	}
	for _, value := range h.Values("Grpc-Metadata-Macaroon") {
		f.add(parseMacaroonHeader(value))
	}
	switch {
	case f.conflict || f.malformed && f.found != nil:
		return nil, ErrConflictingCredentials
	case f.malformed:
		return nil, ErrMalformedCredential
	}
	return f.found, nil
}

// finder collects the credentials of one request.
type finder struct {
	found     *Credential
	malformed bool
	conflict  bool
}

func (f *finder) add(c *Credential, ok bool) {
	switch {
	case !ok:
		f.malformed = true
	case f.found == nil:
		f.found = c
	case !f.found.same(c):
		f.conflict = true
	}
}

// same reports whether two credentials are one: the same macaroon with the
// same preimage, where one of them may carry the preimage as a caveat too.
func (c *Credential) same(o *Credential) bool {
	if c.Preimage != o.Preimage {
		return false
	}
	return bytes.Equal(c.Macaroon, o.Macaroon) || c.withCaveat(o) || o.withCaveat(c)
}

// withCaveat reports whether c with its preimage as a caveat is o.
func (c *Credential) withCaveat(o *Credential) bool {
	with, err := Attenuate(c.Macaroon, preimagePrefix+c.Preimage.Hex())
	return err == nil && bytes.Equal(with, o.Macaroon)
}

// cutScheme returns what follows the scheme L402 or LSAT, in any case.
func cutScheme(value string) (string, bool) {
	value = strings.Trim(value, " \t")
	scheme, rest := value, ""
	if i := strings.IndexAny(value, " \t"); i >= 0 {
		scheme, rest = value[:i], strings.TrimLeft(value[i:], " \t")
	}
	return rest, strings.EqualFold(scheme, "L402") || strings.EqualFold(scheme, "LSAT")
}

// parseAuthorization reads "<base64 macaroon>:<64 hex digits>".
func parseAuthorization(s string) (*Credential, bool) {
	encoded, digits, _ := strings.Cut(s, ":")
	p, err := ParsePreimage(digits)
	if err != nil {
		return nil, false
	}
	b, err := decodeBase64(encoded)
	if err != nil {
		return nil, false
	}
	if _, ok := parseToken(b); !ok {
		return nil, false
	}
	return &Credential{Macaroon: b, Preimage: p}, true
}

// parseMacaroonHeader reads a hex macaroon that carries its preimage as a
// caveat. Should it carry several that differ, verification refuses it.
func parseMacaroonHeader(s string) (*Credential, bool) {
	if len(s) > 2*MaxMacaroonSize {
		return nil, false
	}
	b, err := hex.DecodeString(strings.Trim(s, " \t"))
	if err != nil {
		return nil, false
	}
	m, ok := parseToken(b)
	if !ok {
		return nil, false
	}
	for _, c := range m.caveats {
		if c.verification == nil && bytes.HasPrefix(c.id, []byte(preimagePrefix)) {
			p, err := ParsePreimage(string(c.id[len(preimagePrefix):]))
			return &Credential{Macaroon: b, Preimage: p}, err == nil
		}
	}
	return nil, false
}

// parseToken reads a macaroon with an identifier of ours.
func parseToken(b []byte) (rawMacaroon, bool) {
	m, err := parseMacaroon(b)
	if err != nil {
		return m, false
	}
	_, err = ParseIdentifier(m.id)
	return m, err == nil
}
