package l402

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
)

// preimagePrefix is the beginning of the caveat that carries the preimage when a macaroon is sent
// alone in a header. Source: L402 specification, gRPC transport.
const preimagePrefix = "preimage="

// maxMacaroons bounds the macaroons of one credential. Each macaroon from elsewhere costs one HMAC
// chain per master key before Verify can reject it.
const maxMacaroons = 4

// Credential is a macaroon with the preimage that paid for it. Both are well-formed and neither is
// verified. Whoever has a Credential can spend with it, so it is redacted wherever it is printed.
type Credential struct {
	Macaroon []byte
	Preimage Preimage
	// Others are further macaroons that came with the same preimage. Macaroon and Others are at
	// most maxMacaroons together. Verify finds out which macaroon was issued by the keyring.
	Others [][]byte
}

// String redacts the credential.
func (c Credential) String() string { return "[credential redacted]" }

// Format redacts the credential under every verb of fmt.
func (c Credential) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// LogValue redacts the credential in structured logs.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText always fails, because only FormatCredential may encode a credential.
func (c Credential) MarshalText() ([]byte, error) {
	return nil, errors.New("a credential is a secret: encode it with FormatCredential")
}

// FormatCredential returns the value of the Authorization header for a macaroon and its preimage.
func FormatCredential(macaroon []byte, p Preimage) string {
	return "L402 " + base64.StdEncoding.EncodeToString(macaroon) + ":" + p.Hex()
}

// credentialHeaders are the headers in which CredentialFromHeader looks for a credential, spelt as
// the keys of http.Header. Token is the metadata key of the L402 specification for gRPC. Macaroon
// is the older name of that key. A proxy that translates gRPC to HTTP puts Grpc-Metadata- before
// the key.
var credentialHeaders = [...]string{
	"Authorization", "X-Api-Key", "Macaroon", "Token", "Grpc-Metadata-Macaroon", "Grpc-Metadata-Token",
}

// CredentialHeaders lists the headers that CredentialFromHeader reads, in canonical form. A proxy
// must remove all of them from a request that it forwards. A log must leave all of them out.
func CredentialHeaders() []string { return slices.Clone(credentialHeaders[:]) }

// CredentialFromHeader returns the L402 credential of a request. It reads these headers:
//
//   - Authorization with the scheme L402 or LSAT: "<macaroon>:<preimage>";
//   - Authorization with the scheme Bearer, and X-Api-Key: the same value, with
//     or without L402 before it, for clients that only have a box for a key;
//   - Macaroon and Grpc-Metadata-Macaroon: hex with a preimage= caveat;
//   - Token and Grpc-Metadata-Token: either form.
//
// Before the colon there may be several macaroons, separated by commas. A macaroon whose identifier
// is not an L402 identifier is left out, and Verify decides about the rest. The same credential in
// several headers counts as one credential.
//
// It returns nil, nil when the request has no L402 credential. A Bearer value or an X-Api-Key that
// is not an L402 credential, and an Authorization header with any other scheme, are ignored. It
// fails with ErrMalformedCredential when no L402 credential of the request can be read. It fails
// with ErrConflictingCredentials when the request has different credentials, or when only some of
// them can be read.
func CredentialFromHeader(h http.Header) (*Credential, error) {
	var f finder
	for _, name := range credentialHeaders {
		for _, value := range h[name] {
			f.read(name, value)
		}
	}
	switch {
	case f.conflict || f.malformed && f.found != nil:
		return nil, ErrConflictingCredentials
	case f.malformed:
		return nil, ErrMalformedCredential
	}
	return f.found, nil
}

// finder collects the credentials of one request, see CredentialFromHeader.
type finder struct {
	found     *Credential
	malformed bool
	conflict  bool
}

// read adds the credential in one header value, if the value has one.
func (f *finder) read(name, value string) {
	value = strings.Trim(value, " \t")
	switch name {
	case "Macaroon", "Grpc-Metadata-Macaroon":
		f.add(parseMacaroonHeader(value))
		return
	case "Token", "Grpc-Metadata-Token": // other protocols use this name too, so any other value is ignored
		if c, ok := parseMacaroonHeader(value); ok {
			f.add(c, true)
			return
		}
	case "Authorization":
		scheme, rest := cutScheme(value)
		if isOurs(scheme) {
			f.add(parseAuthorization(rest))
			return
		}
		if !strings.EqualFold(scheme, "Bearer") {
			return
		}
		value = rest
	}
	if scheme, rest := cutScheme(value); isOurs(scheme) {
		f.add(parseAuthorization(rest))
	} else if c, ok := parseAuthorization(value); ok {
		f.add(c, true)
	}
}

func (f *finder) add(c *Credential, ok bool) {
	switch {
	case !ok:
		f.malformed = true
	case f.found == nil:
		f.found = c
	case !f.found.join(c):
		f.conflict = true
	}
}

// join adds the macaroons of o, which comes from another header, to c. It reports whether c and o
// are the same credential: they have the same preimage and at least one macaroon in common. Two
// macaroons also count as the same when they differ only by a preimage= caveat with that preimage.
// join reports false as well when c would have more than maxMacaroons macaroons.
func (c *Credential) join(o *Credential) bool {
	if c.Preimage != o.Preimage {
		return false
	}
	common := false
	var more [][]byte
	for m := range o.all {
		if c.holds(m) {
			common = true
		} else {
			more = append(more, m)
		}
	}
	c.Others = append(c.Others, more...)
	return common && len(c.Others) < maxMacaroons
}

// all yields the macaroons of the credential, Macaroon first.
func (c *Credential) all(yield func([]byte) bool) {
	if !yield(c.Macaroon) {
		return
	}
	for _, m := range c.Others {
		if !yield(m) {
			return
		}
	}
}

// holds reports whether the credential has the given macaroon, with or without a preimage= caveat.
func (c *Credential) holds(macaroon []byte) bool {
	for m := range c.all {
		if bytes.Equal(m, macaroon) || carries(m, c.Preimage, macaroon) || carries(macaroon, c.Preimage, m) {
			return true
		}
	}
	return false
}

// carries reports whether with equals macaroon plus a caveat that carries the preimage p.
func carries(macaroon []byte, p Preimage, with []byte) bool {
	if len(with) <= len(macaroon) {
		return false
	}
	added, err := Attenuate(macaroon, preimagePrefix+p.Hex())
	return err == nil && bytes.Equal(added, with)
}

// cutScheme splits a header value into its first word, the scheme, and the rest. When the value is
// a single word, the word is the rest and the scheme is empty, unless the word itself is L402 or
// LSAT.
func cutScheme(value string) (scheme, rest string) {
	i := strings.IndexAny(value, " \t")
	if i < 0 {
		if isOurs(value) {
			return value, ""
		}
		return "", value
	}
	return value[:i], strings.TrimLeft(value[i:], " \t")
}

// isOurs reports whether a scheme is L402 or LSAT, in upper or lower case.
func isOurs(scheme string) bool {
	return strings.EqualFold(scheme, "L402") || strings.EqualFold(scheme, "LSAT")
}

// parseAuthorization reads "<base64 macaroons>:<64 hex digits>". The macaroons are separated by
// commas.
func parseAuthorization(s string) (*Credential, bool) {
	encoded, digits, _ := strings.Cut(s, ":")
	p, err := ParsePreimage(digits)
	if err != nil || strings.Count(encoded, ",") >= maxMacaroons {
		return nil, false
	}
	c := &Credential{Preimage: p}
	for one := range strings.SplitSeq(encoded, ",") {
		b, err := decodeBase64(strings.Trim(one, " \t"))
		if err != nil {
			continue
		}
		if _, ok := parseToken(b); !ok {
			continue
		}
		if c.Macaroon == nil {
			c.Macaroon = b
		} else if !c.holds(b) {
			c.Others = append(c.Others, b)
		}
	}
	return c, c.Macaroon != nil
}

// parseMacaroonHeader reads a macaroon in hex that carries its preimage as a caveat. It takes the
// first preimage= caveat. When a macaroon has several with different preimages, Verify refuses it.
func parseMacaroonHeader(s string) (*Credential, bool) {
	if len(s) > 2*MaxMacaroonSize {
		return nil, false
	}
	b, err := hex.DecodeString(s)
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

// parseToken reads a macaroon and reports whether it has an L402 identifier.
func parseToken(b []byte) (rawMacaroon, bool) {
	m, err := parseMacaroon(b)
	if err != nil {
		return m, false
	}
	_, err = ParseIdentifier(m.id)
	return m, err == nil
}
