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

// preimagePrefix begins the caveat in which header macaroons carry the
// preimage. Source: L402 specification, gRPC transport.
const preimagePrefix = "preimage="

// maxMacaroons bounds the macaroons of one credential: each one that is not
// ours costs an HMAC chain per key before that shows.
const maxMacaroons = 4

// Credential is a macaroon with the preimage that paid for it, well-formed
// and unverified. It is bearer material and prints nothing useful.
type Credential struct {
	Macaroon []byte
	Preimage Preimage
	// Others are further macaroons that came with the same preimage, at most
	// maxMacaroons in all. Verify finds out which one is ours.
	Others [][]byte
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

// credentialHeaders are the headers in which a credential is looked for, as
// http.Header keys them. Token is the metadata key of the L402 specification for
// gRPC, Macaroon its older name; gateways that translate gRPC to HTTP put
// Grpc-Metadata- before either.
var credentialHeaders = [...]string{
	"Authorization", "X-Api-Key", "Macaroon", "Token", "Grpc-Metadata-Macaroon", "Grpc-Metadata-Token",
}

// CredentialHeaders lists the headers that CredentialFromHeader reads, in
// canonical form. A proxy that forwards a request, and a log, must leave all
// of them out.
func CredentialHeaders() []string { return slices.Clone(credentialHeaders[:]) }

// CredentialFromHeader finds the L402 credential of a request. It reads
//
//   - Authorization with the scheme L402 or LSAT: "<macaroon>:<preimage>";
//   - Authorization with the scheme Bearer, and X-Api-Key: the same value, with
//     or without L402 before it, for clients that only have a box for a key;
//   - Macaroon and Grpc-Metadata-Macaroon: hex with a preimage= caveat;
//   - Token and Grpc-Metadata-Token: either form.
//
// Before the colon there may be several macaroons, separated by commas: those
// that have no identifier of ours are left out, and Verify decides about the rest.
// It returns nil, nil when there is none: a key of another kind in a box for
// keys, and another scheme, count as none. The same credential in several places
// is one. It fails with ErrMalformedCredential when none can be read, and with
// ErrConflictingCredentials when not all of them agree.
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

// finder collects the credentials of one request.
type finder struct {
	found     *Credential
	malformed bool
	conflict  bool
}

// read takes one header value in.
func (f *finder) read(name, value string) {
	value = strings.Trim(value, " \t")
	switch name {
	case "Macaroon", "Grpc-Metadata-Macaroon":
		f.add(parseMacaroonHeader(value))
		return
	case "Token", "Grpc-Metadata-Token": // a common name: what is no credential of ours is somebody else's
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

// join takes the macaroons of another place in and reports whether both places
// hold the same credential: the same preimage and at least one macaroon in
// common, where one of the two may carry the preimage as a caveat too.
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

// holds reports whether a macaroon is one of the credential's.
func (c *Credential) holds(macaroon []byte) bool {
	for m := range c.all {
		if bytes.Equal(m, macaroon) || carries(m, c.Preimage, macaroon) || carries(macaroon, c.Preimage, m) {
			return true
		}
	}
	return false
}

// carries reports whether a macaroon with its preimage as a caveat is with.
func carries(macaroon []byte, p Preimage, with []byte) bool {
	if len(with) <= len(macaroon) {
		return false
	}
	added, err := Attenuate(macaroon, preimagePrefix+p.Hex())
	return err == nil && bytes.Equal(added, with)
}

// cutScheme splits a value after its first word. A value of one word is all
// rest.
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

// isOurs says whether a scheme is L402 or LSAT, in any case.
func isOurs(scheme string) bool {
	return strings.EqualFold(scheme, "L402") || strings.EqualFold(scheme, "LSAT")
}

// parseAuthorization reads "<base64 macaroons>:<64 hex digits>".
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

// parseMacaroonHeader reads a hex macaroon that carries its preimage as a
// caveat. Should it carry several that differ, verification refuses it.
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

// parseToken reads a macaroon with an identifier of ours.
func parseToken(b []byte) (rawMacaroon, bool) {
	m, err := parseMacaroon(b)
	if err != nil {
		return m, false
	}
	_, err = ParseIdentifier(m.id)
	return m, err == nil
}
